// Receives deliveries and verifies each with the `standardwebhooks` package (see package.json).
//
//     node receive.mjs                                     port 9000, the secret of acme
//     node receive.mjs --port 9001 --secret ../secrets/globex/main
//
// --secret takes a file or the secret itself; so does WEBHOOK_SECRET. PORT works like --port.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Webhook } from "standardwebhooks";

const sample = fileURLToPath(new URL("../secrets/acme/main", import.meta.url));
const { values } = parseArgs({
  options: {
    port: { type: "string", default: process.env.PORT ?? "9000" },
    secret: { type: "string", default: process.env.WEBHOOK_SECRET ?? sample },
  },
});
const secret = values.secret.startsWith("whsec_")
  ? values.secret
  : readFileSync(values.secret, "utf8").trim();
const webhook = new Webhook(secret);

const server = createServer(async (request, response) => {
  try {
    // The signature is over these very bytes: verify first, parse afterwards.
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString("utf8");
    const payload = webhook.verify(body, request.headers);
    // The same delivery may arrive twice; its id is the same then.
    const id = request.headers["webhook-id"];
    console.log(`verified ${id} on ${request.url}: ${JSON.stringify(payload)}`);
    response.writeHead(204).end();
  } catch (error) {
    console.log(`refused: ${error.message}`);
    response.writeHead(400).end();
  }
});
server.listen(Number(values.port), "127.0.0.1", () => {
  console.log(`receiving on http://127.0.0.1:${values.port}`);
});
