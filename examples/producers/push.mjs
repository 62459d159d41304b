// Pushes one event with the `redis` package (see package.json).
//
//     node push.mjs                    acme, invoice.paid, a new id
//     node push.mjs globex order.created order-17 '{"total":9.90}'
//
// REDIS_URL says where Redis is. Pushing an id again makes no second delivery.

import { randomUUID } from "node:crypto";
import process from "node:process";
import { createClient } from "redis";

const [
  tenant = "acme",
  type = "invoice.paid",
  id = `evt_${randomUUID()}`,
  payload = JSON.stringify({ invoice: "inv_1", total: 12.5, region: "eu" }),
] = process.argv.slice(2);

const client = createClient({ url: process.env.REDIS_URL ?? "redis://127.0.0.1:6379" });
await client.connect();
const entry = await client.xAdd("wasmhook:events", "*", { tenant, type, id, payload });
await client.close();
console.log(`pushed ${id} as ${entry}`);
