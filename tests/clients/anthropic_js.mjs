// The Anthropic SDK for JavaScript, with the Anthropic API, InvokeModel, and Bedrock Mantle.

import { randomUUID } from "node:crypto";
import Anthropic from "@anthropic-ai/sdk";
import AnthropicBedrock, { AnthropicBedrockMantle } from "@anthropic-ai/bedrock-sdk";
import * as cells from "./cells.mjs";

const { assert, PROMPT, TOOL_INPUT, TOOL_NAME, TOOL_PROMPT, raises } = cells;
const TOOL = { name: TOOL_NAME, description: cells.TOOL_DESCRIPTION, input_schema: cells.TOOL_SCHEMA };

// Makes the cells of a client. `connect` makes the client from a key and a number of retries.
function clientCells(connect, model) {
  const client = connect(cells.KEY, 0);
  const request = (fields = {}) => {
    return { model, max_tokens: cells.MAX_TOKENS, messages: [{ role: "user", content: PROMPT }], ...fields };
  };
  const ask = (fields, sender = client) => sender.messages.create(request(fields));
  return (impatientKey) => ({
    async plain() {
      const response = await ask();
      assert.ok(response.content[0].text, "the response is empty");
      assert.ok(response.usage.output_tokens > 0 && response.usage.output_tokens <= cells.MAX_TOKENS);
    },

    async stream() {
      const unstreamed = await ask();
      const final = await client.messages.stream(request()).finalMessage();
      assert.equal(final.content[0].text, unstreamed.content[0].text);
      assert.equal(final.usage.output_tokens, unstreamed.usage.output_tokens);
    },

    async tools() {
      const question = { role: "user", content: TOOL_PROMPT };
      const first = await ask({ messages: [question], tools: [TOOL] });
      assert.equal(first.stop_reason, "tool_use");
      const call = first.content.at(-1);
      assert.deepEqual([call.name, call.input], [TOOL_NAME, TOOL_INPUT]);
      const result = { type: "tool_result", tool_use_id: call.id, content: cells.TOOL_RESULT };
      const messages = [question, { role: "assistant", content: first.content }, { role: "user", content: [result] }];
      assert.equal((await ask({ messages, tools: [TOOL] })).stop_reason, "end_turn");
      const streamed = await client.messages.stream(request({ messages: [question], tools: [TOOL] })).finalMessage();
      assert.deepEqual(streamed.content.at(-1).input, TOOL_INPUT);
    },

    async image() {
      const source = { type: "base64", media_type: "image/png", data: cells.PNG_BASE64 };
      const content = [{ type: "text", text: PROMPT }, { type: "image", source }];
      const response = await ask({ messages: [{ role: "user", content }] });
      assert.ok(response.usage.input_tokens > (await ask()).usage.input_tokens, "the image costs nothing");
    },

    async error() {
      const unknown = await raises(Anthropic.NotFoundError, () => ask({ model: cells.UNKNOWN_MODEL }));
      assert.match(unknown.message, /no-such-model/);
      await raises(Anthropic.BadRequestError, () => ask({ max_tokens: "many" }));
      const error = await raises(Anthropic.APIError, () => ask({}, connect(cells.UNKNOWN_KEY, 0)));
      assert.ok([401, 403].includes(error.status), `${error}`);
    },

    async retry() {
      const noRetryClient = connect(impatientKey, 0);
      const error = await cells.callUntilRefused(Anthropic.RateLimitError, () => ask({}, noRetryClient));
      assert.ok(Number(error.headers.get("retry-after")) > 0);
      assert.ok((await ask({}, connect(impatientKey, 5))).content[0].text);
    },

    async schema() {
      const response = await ask({ output_config: { format: { type: "json_schema", schema: cells.RIVER_SCHEMA } } });
      assert.deepEqual(Object.keys(JSON.parse(response.content[0].text)).sort(), ["length_km", "river"]);
    },

    async models() {
      const ids = await cells.collect(client.models.list());
      assert.ok(ids.some(({ id }) => id === model));
    },

    async count() {
      const counted = await client.messages.countTokens({ model, messages: request().messages });
      assert.equal(counted.input_tokens, (await ask()).usage.input_tokens);
    },

    async thinking() {
      const fields = { max_tokens: 2_048, thinking: { type: "enabled", budget_tokens: 1_024 } };
      const response = await ask(fields);
      assert.deepEqual(response.content.map((block) => block.type), ["thinking", "text"]);
      const streamed = await client.messages.stream(request(fields)).finalMessage();
      assert.deepEqual(streamed.content, response.content);
    },

    async cache() {
      const text = `${randomUUID()} ${cells.LONG_TEXT}`;
      const system = [{ type: "text", text, cache_control: { type: "ephemeral" } }];
      const written = (await ask({ system })).usage;
      const read = (await ask({ system })).usage;
      assert.ok(written.cache_creation_input_tokens > 1_000, JSON.stringify(written));
      assert.equal(read.cache_read_input_tokens, written.cache_creation_input_tokens);
    },
  });
}

const aws = { awsRegion: "us-east-1" };
const anthropicClient = (apiKey, maxRetries) => new Anthropic({ baseURL: cells.URL, apiKey, maxRetries });
const bedrockClient = (apiKey, maxRetries) => new AnthropicBedrock({ baseURL: cells.URL, apiKey, maxRetries, ...aws });
const mantleClient = (apiKey, maxRetries) => {
  return new AnthropicBedrockMantle({ baseURL: `${cells.URL}/anthropic`, apiKey, maxRetries, ...aws });
};
const signingBedrockClient = (awsSessionToken, maxRetries) => {
  const keys = { awsAccessKey: "unused", awsSecretKey: "unused", awsSessionToken };
  return new AnthropicBedrock({ baseURL: cells.URL, maxRetries, ...keys, ...aws });
};

const noModels = { models: "the client has no such call" };
const noCount = { count: "the client does not support counting tokens on Bedrock" };
const clients = [
  ["anthropic js", anthropicClient, cells.CLAUDE, {}],
  ["AnthropicBedrock js", bedrockClient, cells.CLAUDE_ON_BEDROCK, { ...noModels, ...noCount }],
  ["AnthropicBedrock js, SigV4", signingBedrockClient, cells.CLAUDE_ON_BEDROCK, { ...noModels, ...noCount }],
  ["AnthropicBedrockMantle js", mantleClient, cells.CLAUDE_ON_MANTLE, noModels],
];
await cells.run(
  ...clients.map(([name, connect, model, notApplicable]) => {
    return { name, table: "Anthropic", cells: clientCells(connect, model), notApplicable };
  }),
);
