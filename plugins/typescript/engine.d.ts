// What the engine has and TypeScript's own library does not know yet: the source text of numbers.

interface JSON {
  parse(
    text: string,
    reviver?: (this: unknown, name: string, value: unknown, context: { source: string }) => unknown,
  ): unknown;
  rawJSON(text: string): object;
  isRawJSON(value: unknown): boolean;
}
