// Blanks the fields that the configuration names and adds `schema_version`.
//
// Configuration: `fields`, names separated by commas, blanked at any depth; `schema_version`, "1" if
// absent.

import { get } from "wasmhook:plugin/config@1.0.0";
import type { Event, Failure } from "wasmhook:plugin/types@1.0.0";
import type { Verdict } from "wasmhook:plugin/transform@1.0.0";

const BLANK = "[redacted]";

export const transform = {
  transform(event: Event): Verdict {
    const names = (get("fields") ?? "").split(",").map((name) => name.trim());
    const payload = redacted(event.payload, new Set(names.filter((name) => name !== "")));
    if (isObject(payload)) payload["schema_version"] = get("schema_version") ?? "1";
    const body = new TextEncoder().encode(JSON.stringify(payload));
    return { tag: "deliver", val: { body, headers: [] } };
  },
};

function redacted(bytes: Uint8Array, fields: Set<string>): unknown {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return JSON.parse(text, function (name, value, { source }) {
      if (fields.has(name) && !Array.isArray(this)) return BLANK;
      // As it was written: 1.00 stays 1.00, and a long integer keeps its last digits.
      return typeof value === "number" ? JSON.rawJSON(source) : value;
    });
  } catch {
    const failure: Failure = { retryable: false, message: "the payload is not JSON" };
    throw failure;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  const isComposite = typeof value === "object" && value !== null;
  return isComposite && !Array.isArray(value) && !JSON.isRawJSON(value);
}
