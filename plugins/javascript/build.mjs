// Makes a component of plugin.js: `node build.mjs [OUT]`.

import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { componentize } from "@bytecodealliance/componentize-js";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const [out = here("plugin.wasm")] = process.argv.slice(2);

const { component } = await componentize({
  sourcePath: here("plugin.js"),
  witPath: here("../../wit"),
  worldName: "plugin",
  // A smaller sandbox: what the plugin does not use is not even imported.
  disableFeatures: ["clocks", "fetch-event", "http", "random", "stdio"],
});
await writeFile(out, component);
