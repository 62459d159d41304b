// Makes a component of plugin.ts: `node build.mjs [OUT]`. The types of the contract, which editors
// and the compiler read, are written to build/types.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { componentize } from "@bytecodealliance/componentize-js";
import { $init, generateTypes } from "@bytecodealliance/jco-transpile/component";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const [out = here("plugin.wasm")] = process.argv.slice(2);
const world = "transformer";

await $init;
const wit = { tag: "source", val: readFileSync(here("../../wit/plugin.wit"), "utf8") };
for (const [name, text] of generateTypes(world, { wit, world, guest: true })) {
  const file = here(`build/types/${name}`);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

const tsc = here("node_modules/typescript/bin/tsc");
execFileSync(process.execPath, [tsc, "--project", here(".")], { stdio: "inherit" });

const { component } = await componentize({
  sourcePath: here("build/js/plugin.js"),
  witPath: here("../../wit"),
  worldName: world,
  // A smaller sandbox: what the plugin does not use is not even imported.
  disableFeatures: ["clocks", "fetch-event", "http", "random", "stdio"],
});
writeFileSync(out, component);
