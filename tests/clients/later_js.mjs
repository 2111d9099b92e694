// What the SDKs for JavaScript can ask for and fetch later: the same as `later_python.py`.

import { execFile } from "node:child_process";
import { createServer } from "node:http";
import { promisify } from "node:util";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI, { toFile } from "openai";
import { Webhook } from "standardwebhooks";
import * as cells from "./cells.mjs";

const { assert, CLAUDE, GPT, NO_MODEL, PROMPT, all, raises } = cells;
const PATIENCE_MS = 50_000;
// How long the server may not know of a new endpoint, and a little.
const REGISTRY_CACHE_MS = 2_500;
const openai = new OpenAI({ baseURL: `${cells.URL}/v1`, apiKey: cells.KEY, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: cells.URL, apiKey: cells.KEY, maxRetries: 0 });

// Reads until it is so.
async function until(isSo, read) {
  const began = performance.now();
  for (;;) {
    const thing = await read();
    if (isSo(thing)) return thing;
    assert.ok(performance.now() - began < PATIENCE_MS, JSON.stringify(thing));
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

const asked = { model: GPT, input: PROMPT, max_output_tokens: cells.MAX_TOKENS };
const begin = (more = {}) => openai.responses.create({ ...asked, background: true, ...more });
const ended = (begun) =>
  until(
    ({ status }) => status !== "queued" && status !== "in_progress",
    () => openai.responses.retrieve(begun.id),
  );

const responses = {
  async background() {
    const begun = await begin();
    assert.ok(["queued", "in_progress"].includes(begun.status) && begun.background, JSON.stringify(begun));
    const answer = await ended(begun);
    assert.equal(answer.output_text, (await openai.responses.create(asked)).output_text);
    await openai.responses.delete(begun.id);
    await raises(OpenAI.NotFoundError, () => openai.responses.retrieve(begun.id));
  },

  async follow() {
    const events = await all(await begin({ stream: true }));
    assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
    assert.deepEqual([events[0].type, events[1].type], ["response.created", "response.queued"]);
    const middle = events.length >> 1;
    const id = events.at(-1).response.id;
    const rest = await all(await openai.responses.retrieve(id, { stream: true, starting_after: middle }));
    assert.deepEqual(rest, events.slice(middle + 1));
  },

  async cancel() {
    const begun = await begin();
    const cancelled = await openai.responses.cancel(begun.id);
    assert.ok(["cancelled", "completed", "incomplete"].includes(cancelled.status), cancelled.status);
    assert.equal((await ended(begun)).status, cancelled.status);
  },
};

// Runs the command against the server's own registry; gives what it printed.
async function operate(...args) {
  const env = { PATH: process.env.PATH, ...JSON.parse(process.env.SPILLWAY_EXPORTS) };
  return (await promisify(execFile)(process.env.SPILLWAY_COMMAND, ["webhooks", ...args], { env })).stdout;
}

// Answers a challenge, and keeps every other event with its headers.
async function receiver(received) {
  const server = createServer(async (request, response) => {
    const body = Buffer.concat(await all(request)).toString();
    const { data } = JSON.parse(body);
    if (!data.challenge) received.push({ body, headers: request.headers, id: data.id });
    response.end(data.challenge ?? "");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}/hook`;
}

async function webhook() {
  const received = [];
  const url = await receiver(received);
  const told = await operate("add", "patient", url, "--allow-loopback", "--event", "response.completed");
  const secret = told.match(/whsec_\S+/)[0];
  await new Promise((resolve) => setTimeout(resolve, REGISTRY_CACHE_MS));
  const begun = await begin();
  const { body, headers } = await until(Boolean, async () => received.find(({ id }) => id === begun.id));
  const event = await openai.webhooks.unwrap(body, headers, secret);
  assert.deepEqual([event.type, event.data.id], ["response.completed", begun.id]);
  assert.equal(new Webhook(secret).verify(body, headers).id, event.id);
  await raises(OpenAI.InvalidWebhookSignatureError, () => openai.webhooks.unwrap(`${body} `, headers, secret));
}

// A batch of chats; the last asks for a model that does not exist.
function lines(count) {
  const body = { model: GPT, messages: [{ role: "user", content: PROMPT }], max_completion_tokens: cells.MAX_TOKENS };
  return Array.from({ length: count }, (_, number) => {
    const model = number === count - 1 ? NO_MODEL : GPT;
    const line = { custom_id: `line-${number}`, method: "POST", url: "/v1/chat/completions", body: { ...body, model } };
    return `${JSON.stringify(line)}\n`;
  }).join("");
}

const upload = async (count) =>
  openai.files.create({ file: await toFile(Buffer.from(lines(count)), "batch.jsonl"), purpose: "batch" });
const submit = async (count) =>
  openai.batches.create({
    input_file_id: (await upload(count)).id,
    endpoint: "/v1/chat/completions",
    completion_window: "24h",
  });
const endedBatch = (begun) =>
  until(
    ({ status }) => ["completed", "failed", "expired", "cancelled"].includes(status),
    () => openai.batches.retrieve(begun.id),
  );
const read = async (file) => (await (await openai.files.content(file)).text()).trim().split("\n").map(JSON.parse);

const batches = {
  async files() {
    const file = await upload(3);
    assert.deepEqual([file.purpose, file.filename], ["batch", "batch.jsonl"]);
    assert.equal(await (await openai.files.content(file.id)).text(), lines(3));
    assert.ok((await all(openai.files.list({ purpose: "batch" }))).some(({ id }) => id === file.id));
    assert.ok((await openai.files.delete(file.id)).deleted);
    await raises(OpenAI.NotFoundError, () => openai.files.retrieve(file.id));
  },

  async batch() {
    const batch = await endedBatch(await submit(5));
    assert.deepEqual([batch.status, { ...batch.request_counts }], ["completed", { total: 5, completed: 4, failed: 1 }]);
    const answers = await read(batch.output_file_id);
    assert.equal(answers.length, 4);
    assert.ok(answers.every(({ response }) => response.body.choices[0].message.content));
    assert.deepEqual((await read(batch.error_file_id)).map((line) => line.response.status_code), [404]);
    assert.ok((await all(openai.batches.list())).some(({ id }) => id === batch.id));
  },

  async b_cancel() {
    const begun = await submit(40);
    await openai.batches.cancel(begun.id);
    assert.ok(["cancelled", "completed"].includes((await endedBatch(begun)).status));
  },
};

const submitMessages = (count) => {
  const params = { max_tokens: cells.MAX_TOKENS, messages: [{ role: "user", content: PROMPT }] };
  const requests = Array.from({ length: count }, (_, number) => {
    const model = number === count - 1 ? NO_MODEL : CLAUDE;
    return { custom_id: `line-${number}`, params: { model, ...params } };
  });
  return anthropic.messages.batches.create({ requests });
};
const endedMessages = (begun) =>
  until(
    ({ processing_status }) => processing_status === "ended",
    () => anthropic.messages.batches.retrieve(begun.id),
  );

const messageBatches = {
  async batch() {
    const begun = await submitMessages(5);
    const { request_counts } = await endedMessages(begun);
    assert.deepEqual([request_counts.succeeded, request_counts.errored], [4, 1]);
    const results = await all(await anthropic.messages.batches.results(begun.id));
    const succeeded = results.filter(({ result }) => result.type === "succeeded");
    assert.ok(succeeded.length === 4 && succeeded.every(({ result }) => result.message.content[0].text));
    assert.ok((await anthropic.messages.batches.list({ limit: 5 })).data.some(({ id }) => id === begun.id));
    await anthropic.messages.batches.delete(begun.id);
    await raises(Anthropic.NotFoundError, () => anthropic.messages.batches.retrieve(begun.id));
  },

  async b_cancel() {
    const begun = await submitMessages(40);
    await anthropic.messages.batches.cancel(begun.id);
    const counts = Object.values({ ...(await endedMessages(begun)).request_counts });
    assert.equal(counts.reduce((sum, count) => sum + count), 40);
  },
};

const noResponses = "the API has batches only";
const without = Object.fromEntries(["background", "follow", "cancel", "files", "webhook"].map((name) => [name, noResponses]));
await cells.run(
  { name: "openai js", table: "Later", cells: () => ({ ...responses, ...batches, webhook }) },
  { name: "anthropic js", table: "Later", cells: () => messageBatches, without },
);
