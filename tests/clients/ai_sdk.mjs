// The AI SDK, with its providers for Bedrock (Converse, and Anthropic's messages by InvokeModel),
// for OpenAI-compatible servers, and for Anthropic.

import { createAmazonBedrock } from "@ai-sdk/amazon-bedrock";
import { createBedrockAnthropic } from "@ai-sdk/amazon-bedrock/anthropic";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { randomUUID } from "node:crypto";
import * as cells from "./cells.mjs";

const { assert, PROMPT, TOOL_INPUT, TOOL_PROMPT } = cells;
const THINKING = { type: "enabled", budgetTokens: 1_024 };

// Makes the cells of a provider. `connect` makes the provider from a key, `model` and `embedding`
// are model ids, `cacheOptions` and `thinkingOptions` are the provider options for these features.
function providerCells({ connect, model, embedding, cacheOptions, thinkingOptions }) {
  const provider = connect(cells.KEY);
  const request = (fields = {}) => {
    return { model: provider(model), prompt: PROMPT, maxOutputTokens: cells.MAX_TOKENS, maxRetries: 0, ...fields };
  };
  const ask = (fields) => generateText(request(fields));
  const lengthTool = (inputs) => {
    const execute = async (input) => inputs.push(input) && cells.TOOL_RESULT;
    return tool({ description: cells.TOOL_DESCRIPTION, inputSchema: jsonSchema(cells.TOOL_SCHEMA), execute });
  };
  return (impatientKey) => ({
    async plain() {
      const response = await ask();
      assert.ok(response.text, "the response is empty");
      assert.ok(response.usage.inputTokens > 0 && response.usage.outputTokens <= cells.MAX_TOKENS);
    },

    async stream() {
      const unstreamed = await ask();
      const streamed = streamText(request({ onError() {} }));
      assert.equal((await cells.collect(streamed.textStream)).join(""), unstreamed.text);
      assert.equal((await streamed.usage).outputTokens, unstreamed.usage.outputTokens);
    },

    async tools() {
      const inputs = [];
      const fields = { prompt: TOOL_PROMPT, tools: { river_length: lengthTool(inputs) }, stopWhen: stepCountIs(2) };
      const response = await ask(fields);
      assert.ok(response.text && response.steps.length === 2);
      const streamed = streamText(request({ ...fields, onError() {} }));
      assert.ok(await streamed.text);
      assert.deepEqual(inputs, [TOOL_INPUT, TOOL_INPUT]);
    },

    async image() {
      const image = { type: "image", image: cells.PNG_BASE64, mediaType: "image/png" };
      const messages = [{ role: "user", content: [{ type: "text", text: PROMPT }, image] }];
      const response = await ask({ prompt: undefined, messages });
      assert.ok(response.usage.inputTokens > (await ask()).usage.inputTokens, "the image costs nothing");
    },

    async error() {
      const unknown = await cells.raises("AI_APICallError", () => ask({ model: provider("anthropic.claude-none") }));
      assert.equal(unknown.statusCode, 404);
      assert.match(unknown.message, /anthropic.claude-none/);
      const unknownKeyClient = connect(cells.UNKNOWN_KEY);
      const error = await cells.raises("AI_APICallError", () => ask({ model: unknownKeyClient(model) }));
      assert.ok([401, 403].includes(error.statusCode), `${error}`);
    },

    async retry() {
      const noRetryClient = connect(impatientKey)(model);
      const error = await cells.callUntilRefused("AI_APICallError", () => ask({ model: noRetryClient }));
      assert.equal(error.statusCode, 429);
      assert.ok((await ask({ model: noRetryClient, maxRetries: 5 })).text);
    },

    async schema() {
      const output = Output.object({ schema: jsonSchema(cells.RIVER_SCHEMA) });
      assert.deepEqual(Object.keys((await ask({ output })).output).sort(), ["length_km", "river"]);
    },

    async thinking() {
      const response = await ask({ maxOutputTokens: 2_048, providerOptions: thinkingOptions });
      assert.ok(response.reasoningText && response.text);
    },

    async cache() {
      const content = `${randomUUID()} ${cells.LONG_TEXT}`;
      const messages = [{ role: "system", content, providerOptions: cacheOptions }, { role: "user", content: PROMPT }];
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
const notApplicable = (names, reason) => Object.fromEntries(names.split(" ").map((name) => [name, reason]));
const noCalls = notApplicable("models count guardrail", "the provider has no such call");
const noThinking = notApplicable("thinking cache", "the provider has no such option");
const noEmbeddings = notApplicable("embed", "the provider has no embeddings");
const noResponses = notApplicable("respond r_stream r_tools r_schema", "the provider uses chat completions");
const rows = [
  {
    name: "AI SDK amazon-bedrock",
    table: "Bedrock",
    connect: (apiKey) => createAmazonBedrock({ ...aws, apiKey }),
    model: cells.CLAUDE_ON_BEDROCK,
    embedding: cells.TITAN,
    cacheOptions: { bedrock: { cachePoint: { type: "default" } } },
    thinkingOptions: { bedrock: { reasoningConfig: THINKING } },
    notApplicable: { ...noCalls, ...notApplicable("invoke i_stream", "the provider uses Converse") },
  },
  {
    name: "AI SDK amazon-bedrock, SigV4",
    table: "Bedrock",
    connect: (sessionToken) => {
      return createAmazonBedrock({ ...aws, accessKeyId: "unused", secretAccessKey: "unused", sessionToken });
    },
    model: cells.CLAUDE_ON_BEDROCK,
    embedding: cells.TITAN,
    cacheOptions: { bedrock: { cachePoint: { type: "default" } } },
    thinkingOptions: { bedrock: { reasoningConfig: THINKING } },
    notApplicable: { ...noCalls, ...notApplicable("invoke i_stream", "the provider uses Converse") },
  },
  {
    name: "AI SDK amazon-bedrock/anthropic",
    table: "Bedrock",
    connect: (apiKey) => createBedrockAnthropic({ ...aws, apiKey }),
    model: cells.CLAUDE_ON_BEDROCK,
    cacheOptions: { anthropic: { cacheControl: { type: "ephemeral" } } },
    thinkingOptions: { anthropic: { thinking: THINKING } },
    notApplicable: { ...noCalls, ...noEmbeddings, invoke: "see plain", i_stream: "see stream" },
  },
  {
    name: "AI SDK openai-compatible",
    table: "OpenAI",
    connect: (apiKey) => {
      const fields = { includeUsage: true, supportsStructuredOutputs: true };
      return createOpenAICompatible({ name: "spillway", baseURL: `${cells.URL}/v1`, apiKey, ...fields });
    },
    model: cells.GPT,
    embedding: "text-embedding-3-small",
    notApplicable: { ...noResponses, ...notApplicable("models", "the provider has no such call"), ...noThinking },
  },
  {
    name: "AI SDK anthropic",
    table: "Anthropic",
    connect: (apiKey) => createAnthropic({ baseURL: `${cells.URL}/v1`, apiKey }),
    model: cells.CLAUDE,
    cacheOptions: { anthropic: { cacheControl: { type: "ephemeral" } } },
    thinkingOptions: { anthropic: { thinking: THINKING } },
    notApplicable: { ...notApplicable("models count", "the provider has no such call"), ...noEmbeddings },
  },
];
await cells.run(...rows.map((row) => ({ ...row, cells: providerCells(row) })));
