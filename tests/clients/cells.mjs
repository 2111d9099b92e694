// What the programs in JavaScript have in common: the same as `cells.py`.

import assert from "node:assert/strict";

export { assert };
export const URL = process.env.SPILLWAY_URL;
export const TLS_URL = process.env.SPILLWAY_TLS_URL;
export const KEY = process.env.SPILLWAY_KEY;
export const UNKNOWN_KEY = `sk-spill-nobody-${"0".repeat(64)}`;

export const CLAUDE = "claude-sonnet-4-5";
export const CLAUDE_ON_BEDROCK = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
export const CLAUDE_ON_MANTLE = "anthropic.claude-sonnet-4-5-20250929-v1:0";
export const GPT = "gpt-5";
export const NOVA = "us.amazon.nova-lite-v1:0";
export const TITAN = "amazon.titan-embed-text-v2:0";
export const NO_MODEL = "no-such-model";

export const PROMPT = "Name three rivers, one per line.";
// The simulator calls the tool that a prompt names in this way, if the request offers it.
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
// Longer than what a prompt must be to be cached.
export const LONG_TEXT = "The river rises in the mountains and flows through the plain. ".repeat(200);
// A red dot.
export const PNG_BASE64 =
  "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==";
export const MAX_TOKENS = 64;

const IMPATIENT_KEYS = process.env.SPILLWAY_IMPATIENT_KEYS.split(",");
const CELL_TIMEOUT_MS = 60_000;
const AT_ONCE = 4;
const BURST = 8;
const ATTEMPTS = 3;

// Runs all cells of the rows `{name, table, cells, without}` and prints their outcomes; `cells` takes the key of an
// impatient tenant. Ends the process, whatever a cell still waits for.
export async function run(...rows) {
  const waiting = rows.flatMap((row, number) => {
    const without = row.without ?? {};
    for (const [column, reason] of Object.entries(without)) tell(row, column, "-", reason, 0);
    const cells = Object.entries(row.cells(IMPATIENT_KEYS[number]));
    return cells.filter(([column]) => !(column in without)).map(([column, cell]) => () => check(row, column, cell));
  });
  const worker = async () => {
    while (waiting.length) await waiting.shift()();
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  process.exit(0);
}

async function check(row, column, cell) {
  const started = performance.now();
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no outcome after ${CELL_TIMEOUT_MS} ms`)), CELL_TIMEOUT_MS);
  });
  let told = "";
  try {
    await Promise.race([cell(), late]);
  } catch (error) {
    told = `${error}${at(error)}`;
  }
  clearTimeout(timer);
  tell(row, column, told ? "FAIL" : "ok", told, (performance.now() - started) / 1_000);
}

// Where in its own program a cell failed.
function at(error) {
  const line = String(error?.stack).match(/clients\/(?!node_modules|cells)[a-z_]+\.mjs:(\d+)/);
  return line ? ` (line ${line[1]})` : "";
}

function tell(row, column, outcome, told, s) {
  console.log(JSON.stringify({ table: row.table, row: row.name, column, outcome, told, s }));
}

// Calls and returns the error of that kind, which must be raised.
export async function raises(kind, call) {
  try {
    await call();
  } catch (error) {
    assert.ok(is(error, kind), `${error} instead of ${kind.name ?? kind}`);
    return error;
  }
  assert.fail(`no ${kind.name ?? kind} was raised`);
}

// Calls until it is refused with an error of that kind, and returns the error.
export async function refused(kind, call) {
  for (let attempt = 0; attempt < BURST; attempt += 1) {
    try {
      await call();
    } catch (error) {
      assert.ok(is(error, kind), `${error} instead of ${kind.name ?? kind}`);
      return error;
    }
  }
  assert.fail(`${BURST} requests in a row found room`);
}

// Tries until it happens: between a refusal and the next request a limit may have room again by itself.
export async function soon(happens) {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) if (await happens()) return;
  assert.fail(`did not happen in ${ATTEMPTS} attempts`);
}

function is(error, kind) {
  return typeof kind === "function" ? error instanceof kind : error.name === kind;
}

export async function all(iterable) {
  const elements = [];
  for await (const element of iterable) elements.push(element);
  return elements;
}
