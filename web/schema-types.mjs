// Writes TypeScript types of docs/schema into .types/mux: one file a schema, with `Params` and
// `Result`, and what stands in its definitions.

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const SCHEMAS = join(HERE, "..", "docs", "schema");
const OUT = join(HERE, ".types", "mux");

await mkdir(OUT, { recursive: true });
for (const name of await readdir(SCHEMAS)) {
  if (!name.startsWith("mux.") || !name.endsWith(".json")) continue;
  const schema = JSON.parse(await readFile(join(SCHEMAS, name), "utf8"));
  const parts = Object.entries(schema.$defs ?? {}).map(
    ([each, definition]) => `export type ${each} = ${type(definition)};`,
  );
  const { params, result } = schema.properties ?? {};
  if (params) parts.push(`export type Params = ${type(params)};`);
  if (result) parts.push(`export type Result = ${type(result)};`);
  await writeFile(join(OUT, name.replace(/\.json$/, ".ts")), `${parts.join("\n")}\n`);
}

function type(schema) {
  if (schema.$ref) return schema.$ref.replace("#/$defs/", "");
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  const several = schema.anyOf ?? schema.oneOf;
  if (several) return several.map(type).join(" | ");
  switch (schema.type) {
    case "string":
      return "string";
    case "integer":
    case "number":
      return "number";
    case "boolean":
      return "boolean";
    case "null":
      return "null";
    case "array":
      return `(${schema.items ? type(schema.items) : "any"})[]`;
    case "object":
      return schema.properties ? members(schema) : `{ [name: string]: ${schema.additionalProperties?.type ? type(schema.additionalProperties) : "any"} }`;
    default:
      return "any";
  }
}

function members(schema) {
  const required = new Set(schema.required ?? []);
  const each = Object.entries(schema.properties).map(
    ([name, value]) => `${JSON.stringify(name)}${required.has(name) ? "" : "?"}: ${type(value)}`,
  );
  return `{ ${each.join("; ")} }`;
}
