// The asynchronous features of the SDKs for JavaScript; see `asynchronous_python.py`.

import { execFile } from "node:child_process";
import { createServer } from "node:http";
import { promisify } from "node:util";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI, { toFile } from "openai";
import { Webhook } from "standardwebhooks";
import * as cells from "./cells.mjs";

const { assert, CLAUDE, GPT, UNKNOWN_MODEL, PROMPT, collect, raises } = cells;
const POLL_TIMEOUT_MS = 50_000;
// Longer than the time after which the server must know a new webhook endpoint.
const REGISTRY_CACHE_MS = 2_500;
const openai = new OpenAI({ baseURL: `${cells.URL}/v1`, apiKey: cells.KEY, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: cells.URL, apiKey: cells.KEY, maxRetries: 0 });

// Reads repeatedly until the condition holds for the value, and returns the value.
async function pollUntil(condition, read) {
  const start = performance.now();
  for (;;) {
    const value = await read();
    if (condition(value)) return value;
    assert.ok(performance.now() - start < POLL_TIMEOUT_MS, JSON.stringify(value));
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

// Reads all pages of a list, which must hold each created ID once, and end.
async function readPages(created, list) {
  const ids = new Set();
  for await (const { id } of list) {
    assert.ok(!ids.has(id), "an entry is listed twice");
    ids.add(id);
    if (created.every((one) => ids.has(one))) return;
  }
  assert.fail(`not all of ${created} are listed`);
}

// Creates three entries one after the other, and returns their IDs.
async function createThree(create) {
  return [(await create()).id, (await create()).id, (await create()).id];
}

const request = { model: GPT, input: PROMPT, max_output_tokens: cells.MAX_TOKENS };
const create = (fields = {}) => openai.responses.create({ ...request, background: true, ...fields });
const waitUntilEnded = (created) =>
  pollUntil(
    ({ status }) => status !== "queued" && status !== "in_progress",
    () => openai.responses.retrieve(created.id),
  );

const responses = {
  async background() {
    const created = await create();
    assert.ok(["queued", "in_progress"].includes(created.status) && created.background, JSON.stringify(created));
    const ended = await waitUntilEnded(created);
    assert.equal(ended.output_text, (await openai.responses.create(request)).output_text);
    await openai.responses.delete(created.id);
    await raises(OpenAI.NotFoundError, () => openai.responses.retrieve(created.id));
  },

  async follow() {
    const events = await collect(await create({ stream: true }));
    assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
    assert.deepEqual([events[0].type, events[1].type], ["response.created", "response.queued"]);
    const middle = events.length >> 1;
    const id = events.at(-1).response.id;
    const rest = await collect(await openai.responses.retrieve(id, { stream: true, starting_after: middle }));
    assert.deepEqual(rest, events.slice(middle + 1));
  },

  async cancel() {
    const created = await create();
    const cancelled = await openai.responses.cancel(created.id);
    assert.ok(["cancelled", "completed", "incomplete"].includes(cancelled.status), cancelled.status);
    assert.equal((await waitUntilEnded(created)).status, cancelled.status);
  },
};

// Runs `spillway webhooks` on the server's registry and returns its output.
async function runWebhooksCommand(...args) {
  const env = { PATH: process.env.PATH, ...JSON.parse(process.env.SPILLWAY_EXPORTS) };
  return (await promisify(execFile)(process.env.SPILLWAY_COMMAND, ["webhooks", ...args], { env })).stdout;
}

// Starts a server that responds to challenges, and records events with their headers.
// Returns its URL.
async function startReceiver(received) {
  const server = createServer(async (request, response) => {
    const body = Buffer.concat(await collect(request)).toString();
    const { data } = JSON.parse(body);
    if (!data.challenge) received.push({ body, headers: request.headers, id: data.id });
    response.end(data.challenge ?? "");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}/hook`;
}

async function webhook() {
  const received = [];
  const url = await startReceiver(received);
  const output = await runWebhooksCommand("add", "patient", url, "--allow-loopback", "--event", "response.completed");
  const secret = output.match(/whsec_\S+/)[0];
  await new Promise((resolve) => setTimeout(resolve, REGISTRY_CACHE_MS));
  const created = await create();
  const { body, headers } = await pollUntil(Boolean, async () => received.find(({ id }) => id === created.id));
  const event = await openai.webhooks.unwrap(body, headers, secret);
  assert.deepEqual([event.type, event.data.id], ["response.completed", created.id]);
  assert.equal(new Webhook(secret).verify(body, headers).id, event.id);
  await raises(OpenAI.InvalidWebhookSignatureError, () => openai.webhooks.unwrap(`${body} `, headers, secret));
}

// Returns a batch of chat completions. The last line names an unknown model.
function batchLines(count) {
  const body = { model: GPT, messages: [{ role: "user", content: PROMPT }], max_completion_tokens: cells.MAX_TOKENS };
  return Array.from({ length: count }, (_, number) => {
    const model = number === count - 1 ? UNKNOWN_MODEL : GPT;
    const line = { custom_id: `line-${number}`, method: "POST", url: "/v1/chat/completions", body: { ...body, model } };
    return `${JSON.stringify(line)}\n`;
  }).join("");
}

const upload = async (count) =>
  openai.files.create({ file: await toFile(Buffer.from(batchLines(count)), "batch.jsonl"), purpose: "batch" });
const submit = async (count) =>
  openai.batches.create({
    input_file_id: (await upload(count)).id,
    endpoint: "/v1/chat/completions",
    completion_window: "24h",
  });
const waitUntilBatchEnded = (created) =>
  pollUntil(
    ({ status }) => ["completed", "failed", "expired", "cancelled"].includes(status),
    () => openai.batches.retrieve(created.id),
  );
const read = async (file) => (await (await openai.files.content(file)).text()).trim().split("\n").map(JSON.parse);

const batches = {
  async pages() {
    await readPages(await createThree(() => upload(1)), openai.files.list({ limit: 1 }));
    await readPages(await createThree(() => submit(1)), openai.batches.list({ limit: 1 }));
  },

  async files() {
    const file = await upload(3);
    assert.deepEqual([file.purpose, file.filename], ["batch", "batch.jsonl"]);
    assert.equal(await (await openai.files.content(file.id)).text(), batchLines(3));
    assert.ok((await collect(openai.files.list({ purpose: "batch" }))).some(({ id }) => id === file.id));
    assert.ok((await openai.files.delete(file.id)).deleted);
    await raises(OpenAI.NotFoundError, () => openai.files.retrieve(file.id));
  },

  async uploads() {
    const content = Buffer.from(batchLines(3));
    const fields = { filename: "batch.jsonl", mime_type: "application/jsonl", purpose: "batch" };
    const create = () => openai.uploads.create({ bytes: content.length, ...fields });
    const created = await create();
    const add = async (data) => (await openai.uploads.parts.create(created.id, { data: await toFile(data, "part") })).id;
    const last = await add(content.subarray(100));
    const part_ids = [await add(content.subarray(0, 100)), last];
    const { file } = await openai.uploads.complete(created.id, { part_ids });
    assert.equal(await (await openai.files.content(file.id)).text(), content.toString());
    const whole = await create();
    assert.equal((await fetch(whole.put_url, { method: "PUT", body: content })).status, 200);
    assert.equal((await openai.uploads.complete(whole.id, { part_ids: [] })).file.bytes, content.length);
    assert.equal((await openai.uploads.cancel((await create()).id)).status, "cancelled");
  },

  async batch() {
    const batch = await waitUntilBatchEnded(await submit(5));
    assert.deepEqual([batch.status, { ...batch.request_counts }], ["completed", { total: 5, completed: 4, failed: 1 }]);
    const responses = await read(batch.output_file_id);
    assert.equal(responses.length, 4);
    assert.ok(responses.every(({ response }) => response.body.choices[0].message.content));
    assert.deepEqual((await read(batch.error_file_id)).map((line) => line.response.status_code), [404]);
    assert.ok((await collect(openai.batches.list())).some(({ id }) => id === batch.id));
  },

  async b_cancel() {
    const created = await submit(40);
    await openai.batches.cancel(created.id);
    assert.ok(["cancelled", "completed"].includes((await waitUntilBatchEnded(created)).status));
  },
};

const submitMessages = (count) => {
  const params = { max_tokens: cells.MAX_TOKENS, messages: [{ role: "user", content: PROMPT }] };
  const requests = Array.from({ length: count }, (_, number) => {
    const model = number === count - 1 ? UNKNOWN_MODEL : CLAUDE;
    return { custom_id: `line-${number}`, params: { model, ...params } };
  });
  return anthropic.messages.batches.create({ requests });
};
const waitUntilMessageBatchEnded = (created) =>
  pollUntil(
    ({ processing_status }) => processing_status === "ended",
    () => anthropic.messages.batches.retrieve(created.id),
  );

const messageBatches = {
  async pages() {
    await readPages(await createThree(() => submitMessages(1)), anthropic.messages.batches.list({ limit: 1 }));
  },

  async batch() {
    const created = await submitMessages(5);
    const { request_counts } = await waitUntilMessageBatchEnded(created);
    assert.deepEqual([request_counts.succeeded, request_counts.errored], [4, 1]);
    const results = await collect(await anthropic.messages.batches.results(created.id));
    const succeeded = results.filter(({ result }) => result.type === "succeeded");
    assert.ok(succeeded.length === 4 && succeeded.every(({ result }) => result.message.content[0].text));
    assert.ok((await anthropic.messages.batches.list({ limit: 100 })).data.some(({ id }) => id === created.id));
    await anthropic.messages.batches.delete(created.id);
    await raises(Anthropic.NotFoundError, () => anthropic.messages.batches.retrieve(created.id));
  },

  async b_cancel() {
    const created = await submitMessages(40);
    await anthropic.messages.batches.cancel(created.id);
    const counts = Object.values({ ...(await waitUntilMessageBatchEnded(created)).request_counts });
    assert.equal(counts.reduce((sum, count) => sum + count), 40);
  },
};

const onlyBatches = "the API has only batches";
const noWebhook = { webhook: "the receiver is on loopback, which a deployed server does not call" };
const notApplicable = Object.fromEntries(
  ["background", "follow", "cancel", "files", "uploads", "webhook"].map((name) => [name, onlyBatches]),
);
await cells.run(
  { name: "openai js", table: "Asynchronous", cells: () => ({ ...responses, ...batches, webhook }), notApplicable: cells.IS_LOCAL ? {} : noWebhook },
  { name: "anthropic js", table: "Asynchronous", cells: () => messageBatches, notApplicable },
);
