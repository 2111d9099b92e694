// Common code of the client programs in JavaScript; see `cells.py`.

import assert from "node:assert/strict";

export { assert };
export const URL = process.env.SPILLWAY_URL;
export const TLS_URL = process.env.SPILLWAY_TLS_URL;
// Only `spillway local` speaks plain HTTP.
export const IS_LOCAL = URL.startsWith("http:");
export const KEY = process.env.SPILLWAY_KEY;
export const UNKNOWN_KEY = `sk-spill-nobody-${"0".repeat(64)}`;

export const CLAUDE = "claude-sonnet-4-5";
export const CLAUDE_ON_BEDROCK = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
export const CLAUDE_ON_MANTLE = "anthropic.claude-sonnet-4-5-20250929-v1:0";
export const GPT = "gpt-5";
export const NOVA = "us.amazon.nova-lite-v1:0";
export const TITAN = "amazon.titan-embed-text-v2:0";
export const UNKNOWN_MODEL = "no-such-model";

export const PROMPT = "Name three rivers, one per line.";
// The simulator calls the tool that a prompt names in this syntax, if the request defines it.
export const TOOL_PROMPT = '[[tool=river_length {"river": "Elbe"}]] How long is it?';
export const TOOL_NAME = "river_length";
export const TOOL_DESCRIPTION = "The length of a river in kilometres.";
export const TOOL_INPUT = { river: "Elbe" };
export const TOOL_RESULT = "1094 km";
export const TOOL_SCHEMA = { type: "object", properties: { river: { type: "string" } }, required: ["river"] };
export const RIVER_SCHEMA = {
  type: "object",
  properties: { river: { type: "string" }, length_km: { type: "integer" } },
  required: ["river", "length_km"],
  additionalProperties: false,
};
// Longer than the minimum length of a cached prompt.
export const LONG_TEXT = "The river rises in the mountains and flows through the plain. ".repeat(200);
// A red dot.
export const PNG_BASE64 =
  "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==";
export const MAX_TOKENS = 64;

const IMPATIENT_KEYS = process.env.SPILLWAY_IMPATIENT_KEYS.split(",");
const CELL_TIMEOUT_MS = 60_000;
const MAX_CONCURRENT_CELLS = 4;
const MAX_REQUESTS_UNTIL_REFUSAL = 8;
const MAX_ATTEMPTS = 3;

// Runs all cells of the rows `{name, table, cells, notApplicable}` and prints their outcomes.
// `cells` takes the key of an impatient tenant. Exits the process even if a cell still hangs.
export async function run(...rows) {
  const pending = rows.flatMap((row, number) => {
    const notApplicable = row.notApplicable ?? {};
    for (const [column, reason] of Object.entries(notApplicable)) report(row, column, "-", reason, 0);
    const cells = Object.entries(row.cells(IMPATIENT_KEYS[number]));
    const applicable = cells.filter(([column]) => !(column in notApplicable));
    return applicable.map(([column, cell]) => () => check(row, column, cell));
  });
  const worker = async () => {
    while (pending.length) await pending.shift()();
  };
  await Promise.all(Array.from({ length: MAX_CONCURRENT_CELLS }, worker));
  process.exit(0);
}

async function check(row, column, cell) {
  const start = performance.now();
  let timer;
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no outcome after ${CELL_TIMEOUT_MS} ms`)), CELL_TIMEOUT_MS);
  });
  let message = "";
  try {
    await Promise.race([cell(), timeout]);
  } catch (error) {
    message = `${error}${location(error)}`;
  }
  clearTimeout(timer);
  report(row, column, message ? "FAIL" : "ok", message, (performance.now() - start) / 1_000);
}

// Returns the line of the client program that threw the error.
function location(error) {
  const line = String(error?.stack).match(/clients\/(?!node_modules|cells)[a-z_]+\.mjs:(\d+)/);
  return line ? ` (line ${line[1]})` : "";
}

function report(row, column, outcome, message, seconds) {
  console.log(JSON.stringify({ table: row.table, row: row.name, column, outcome, message, s: seconds }));
}

// Requires that the call throws an error of the kind, and returns the error.
export async function raises(kind, call) {
  try {
    await call();
  } catch (error) {
    assert.ok(isOfKind(error, kind), `${error} instead of ${kind.name ?? kind}`);
    return error;
  }
  assert.fail(`no ${kind.name ?? kind} was raised`);
}

// Repeats the call until it throws an error of the kind, and returns the error.
export async function callUntilRefused(kind, call) {
  for (let attempt = 0; attempt < MAX_REQUESTS_UNTIL_REFUSAL; attempt += 1) {
    try {
      await call();
    } catch (error) {
      assert.ok(isOfKind(error, kind), `${error} instead of ${kind.name ?? kind}`);
      return error;
    }
  }
  assert.fail(`none of ${MAX_REQUESTS_UNTIL_REFUSAL} consecutive requests was refused`);
}

// Requires that the condition holds in one of a few attempts. A limit may have capacity again
// between a refusal and the next request.
export async function eventually(condition) {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) if (await condition()) return;
  assert.fail(`condition not met in ${MAX_ATTEMPTS} attempts`);
}

function isOfKind(error, kind) {
  return typeof kind === "function" ? error instanceof kind : error.name === kind;
}

export async function collect(iterable) {
  const elements = [];
  for await (const element of iterable) elements.push(element);
  return elements;
}
