// The AI SDK: its provider for Bedrock (Converse, and Anthropic's messages by InvokeModel), its provider for
// OpenAI-compatible servers, and its provider for Anthropic.

import { createAmazonBedrock } from "@ai-sdk/amazon-bedrock";
import { createBedrockAnthropic } from "@ai-sdk/amazon-bedrock/anthropic";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { randomUUID } from "node:crypto";
import * as cells from "./cells.mjs";

const { assert, PROMPT, TOOL_INPUT, TOOL_PROMPT } = cells;
const THINKING = { type: "enabled", budgetTokens: 1_024 };

// The cells of a provider: `connect` makes it from a key; `model` and `embedding` are ids, `cached` and `thinking` are what
// the provider wants to be told.
function generations({ connect, model, embedding, cached, thinking }) {
  const provider = connect(cells.KEY);
  const request = (more = {}) => {
    return { model: provider(model), prompt: PROMPT, maxOutputTokens: cells.MAX_TOKENS, maxRetries: 0, ...more };
  };
  const ask = (more) => generateText(request(more));
  const lengthTool = (seen) => {
    const execute = async (input) => seen.push(input) && cells.TOOL_RESULT;
    return tool({ description: cells.TOOL_DESCRIPTION, inputSchema: jsonSchema(cells.TOOL_SCHEMA), execute });
  };
  return (impatientKey) => ({
    async plain() {
      const answer = await ask();
      assert.ok(answer.text, "the answer is empty");
      assert.ok(answer.usage.inputTokens > 0 && answer.usage.outputTokens <= cells.MAX_TOKENS);
    },

    async stream() {
      const whole = await ask();
      const streamed = streamText(request({ onError() {} }));
      assert.equal((await cells.all(streamed.textStream)).join(""), whole.text);
      assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
    },

    async tools() {
      const seen = [];
      const more = { prompt: TOOL_PROMPT, tools: { river_length: lengthTool(seen) }, stopWhen: stepCountIs(2) };
      const answer = await ask(more);
      assert.ok(answer.text && answer.steps.length === 2);
      const streamed = streamText(request({ ...more, onError() {} }));
      assert.ok(await streamed.text);
      assert.deepEqual(seen, [TOOL_INPUT, TOOL_INPUT]);
    },

    async image() {
      const image = { type: "image", image: cells.PNG_BASE64, mediaType: "image/png" };
      const messages = [{ role: "user", content: [{ type: "text", text: PROMPT }, image] }];
      const answer = await ask({ prompt: undefined, messages });
      assert.ok(answer.usage.inputTokens > (await ask()).usage.inputTokens, "the image costs nothing");
    },

    async error() {
      const unknown = await cells.raises("AI_APICallError", () => ask({ model: provider("anthropic.claude-none") }));
      assert.equal(unknown.statusCode, 404);
      assert.match(unknown.message, /anthropic.claude-none/);
      const stranger = connect(cells.UNKNOWN_KEY);
      const error = await cells.raises("AI_APICallError", () => ask({ model: stranger(model) }));
      assert.ok([401, 403].includes(error.statusCode), `${error}`);
    },

    async retry() {
      const hasty = connect(impatientKey)(model);
      const error = await cells.refused("AI_APICallError", () => ask({ model: hasty }));
      assert.equal(error.statusCode, 429);
      assert.ok((await ask({ model: hasty, maxRetries: 5 })).text);
    },

    async schema() {
      const output = Output.object({ schema: jsonSchema(cells.RIVER_SCHEMA) });
      assert.deepEqual(Object.keys((await ask({ output })).output).sort(), ["length_km", "river"]);
    },

    async thinking() {
      const answer = await ask({ maxOutputTokens: 2_048, providerOptions: thinking });
      assert.ok(answer.reasoningText && answer.text);
    },

    async cache() {
      const content = `${randomUUID()} ${cells.LONG_TEXT}`;
      const messages = [{ role: "system", content, providerOptions: cached }, { role: "user", content: PROMPT }];
      const written = (await ask({ prompt: undefined, messages })).usage.inputTokenDetails;
      const read = (await ask({ prompt: undefined, messages })).usage.inputTokenDetails;
      assert.ok(written.cacheWriteTokens > 1_000, JSON.stringify(written));
      assert.equal(read.cacheReadTokens, written.cacheWriteTokens);
    },

    async embed() {
      const values = ["a river", "a mountain"];
      const { embeddings } = await embedMany({ model: provider.textEmbeddingModel(embedding), values, maxRetries: 0 });
      assert.ok(embeddings.length === 2 && embeddings[0].length > 1);
    },
  });
}

const aws = { baseURL: cells.URL, region: "us-east-1" };
const no = (names, reason) => Object.fromEntries(names.split(" ").map((name) => [name, reason]));
const noCalls = no("models count guardrail", "the provider has no such call");
const noThinking = no("thinking cache", "the provider has no such option");
const noEmbeddings = no("embed", "the provider has no embeddings");
const noResponses = no("respond r_stream r_tools r_schema", "the provider speaks chat completions");
const rows = [
  {
    name: "AI SDK amazon-bedrock",
    table: "Bedrock",
    connect: (apiKey) => createAmazonBedrock({ ...aws, apiKey }),
    model: cells.CLAUDE_ON_BEDROCK,
    embedding: cells.TITAN,
    cached: { bedrock: { cachePoint: { type: "default" } } },
    thinking: { bedrock: { reasoningConfig: THINKING } },
    without: { ...noCalls, ...no("invoke i_stream", "the provider converses") },
  },
  {
    name: "AI SDK amazon-bedrock, SigV4",
    table: "Bedrock",
    connect: (sessionToken) => {
      return createAmazonBedrock({ ...aws, accessKeyId: "unused", secretAccessKey: "unused", sessionToken });
    },
    model: cells.CLAUDE_ON_BEDROCK,
    embedding: cells.TITAN,
    cached: { bedrock: { cachePoint: { type: "default" } } },
    thinking: { bedrock: { reasoningConfig: THINKING } },
    without: { ...noCalls, ...no("invoke i_stream", "the provider converses") },
  },
  {
    name: "AI SDK amazon-bedrock/anthropic",
    table: "Bedrock",
    connect: (apiKey) => createBedrockAnthropic({ ...aws, apiKey }),
    model: cells.CLAUDE_ON_BEDROCK,
    cached: { anthropic: { cacheControl: { type: "ephemeral" } } },
    thinking: { anthropic: { thinking: THINKING } },
    without: { ...noCalls, ...noEmbeddings, invoke: "see plain", i_stream: "see stream" },
  },
  {
    name: "AI SDK openai-compatible",
    table: "OpenAI",
    connect: (apiKey) => {
      const more = { includeUsage: true, supportsStructuredOutputs: true };
      return createOpenAICompatible({ name: "spillway", baseURL: `${cells.URL}/v1`, apiKey, ...more });
    },
    model: cells.GPT,
    embedding: "text-embedding-3-small",
    without: { ...noResponses, ...no("models", "the provider has no such call"), ...noThinking },
  },
  {
    name: "AI SDK anthropic",
    table: "Anthropic",
    connect: (apiKey) => createAnthropic({ baseURL: `${cells.URL}/v1`, apiKey }),
    model: cells.CLAUDE,
    cached: { anthropic: { cacheControl: { type: "ephemeral" } } },
    thinking: { anthropic: { thinking: THINKING } },
    without: { ...no("models count", "the provider has no such call"), ...noEmbeddings },
  },
];
await cells.run(...rows.map((row) => ({ ...row, cells: generations(row) })));
