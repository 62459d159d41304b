// Blanks the fields that the configuration names and adds `schema_version`; sends an event to the
// endpoint that a field of its payload names.
//
// Configuration of the transformer: `fields`, names separated by commas, blanked at any depth;
// `schema_version`, "1" if absent. Of the resolver: `field`, the path of a field (`customer.region`);
// `map.VALUE`, the endpoint for one value of it, which is itself the endpoint's id where there is no
// such entry; `default`, the endpoint where the field is absent. Without `field`, or when there is
// nothing to choose by, an event goes to the endpoints that subscribe to it.

import { get } from "wasmhook:plugin/config@1.0.0";

const BLANK = "[redacted]";

export const transform = {
  transform(event) {
    const fields = new Set(words(get("fields")));
    const payload = parse(event.payload, function (name, value, { source }) {
      if (fields.has(name) && !Array.isArray(this)) return BLANK;
      // As it was written: 1.00 stays 1.00, and a long integer keeps its last digits.
      return typeof value === "number" ? JSON.rawJSON(source) : value;
    });
    if (isObject(payload)) payload.schema_version = get("schema_version") ?? "1";
    const body = new TextEncoder().encode(JSON.stringify(payload));
    return { tag: "deliver", val: { body, headers: [] } };
  },
};

export const resolve = {
  resolve(event) {
    const field = get("field");
    const value = field && find(parse(event.payload), field.split("."));
    const chosen = value === undefined ? get("default") : (get(`map.${value}`) ?? value);
    if (!field || chosen === undefined) return { mode: "add", choices: [] };
    return { mode: "replace", choices: [{ tag: "registered", val: chosen }] };
  },
};

/** The parts of a list that is separated by commas. */
function words(text = "") {
  return text.split(",").map((word) => word.trim()).filter((word) => word !== "");
}

function parse(bytes, reviver) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes), reviver);
  } catch {
    // What is thrown is the `failure` of the contract.
    throw { retryable: false, message: "the payload is not JSON" };
  }
}

function isObject(value) {
  const isComposite = typeof value === "object" && value !== null;
  return isComposite && !Array.isArray(value) && !JSON.isRawJSON(value);
}

/** The text at a path into the payload. */
function find(payload, path) {
  let value = payload;
  for (const part of path) {
    if (!isObject(value) || !Object.hasOwn(value, part)) return undefined;
    value = value[part];
  }
  return typeof value === "string" ? value : undefined;
}
