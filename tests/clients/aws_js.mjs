// The AWS SDK for JavaScript without and with TLS. Its default client supports only HTTP/2.

import { randomUUID } from "node:crypto";
import * as runtime from "@aws-sdk/client-bedrock-runtime";
import * as cells from "./cells.mjs";

const { assert, CLAUDE_ON_BEDROCK, PROMPT, TOOL_INPUT, TOOL_NAME, TOOL_PROMPT, collect, raises } = cells;
const { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand, InvokeModelCommand } = runtime;
const inputSchema = { json: cells.TOOL_SCHEMA };
const toolConfig = { tools: [{ toolSpec: { name: TOOL_NAME, description: cells.TOOL_DESCRIPTION, inputSchema } }] };
const body = JSON.stringify({
  anthropic_version: "bedrock-2023-05-31",
  max_tokens: cells.MAX_TOKENS,
  messages: [{ role: "user", content: PROMPT }],
});

function request(fields = {}) {
  const messages = [{ role: "user", content: [{ text: PROMPT }] }];
  return { modelId: CLAUDE_ON_BEDROCK, messages, inferenceConfig: { maxTokens: cells.MAX_TOKENS }, ...fields };
}

// Makes the cells of a client. `connect` makes the client from a key and a number of attempts.
function clientCells(connect) {
  const client = connect(cells.KEY, 1);
  const ask = (fields, sender = client) => sender.send(new ConverseCommand(request(fields)));
  return (impatientKey) => ({
    async plain() {
      const response = await ask();
      assert.ok(response.output.message.content[0].text, "the response is empty");
      assert.ok(response.usage.outputTokens > 0 && response.usage.outputTokens <= cells.MAX_TOKENS);
    },

    async stream() {
      const unstreamed = await ask();
      const events = await collect((await client.send(new ConverseStreamCommand(request()))).stream);
      const text = events.map((event) => event.contentBlockDelta?.delta.text ?? "").join("");
      assert.equal(text, unstreamed.output.message.content[0].text);
      assert.deepEqual(events.at(-1).metadata.usage, unstreamed.usage);
    },

    async tools() {
      const question = { role: "user", content: [{ text: TOOL_PROMPT }] };
      const first = await ask({ messages: [question], toolConfig });
      assert.equal(first.stopReason, "tool_use");
      const call = first.output.message.content.at(-1).toolUse;
      assert.deepEqual([call.name, call.input], [TOOL_NAME, TOOL_INPUT]);
      const result = { toolUseId: call.toolUseId, content: [{ text: cells.TOOL_RESULT }] };
      const messages = [question, first.output.message, { role: "user", content: [{ toolResult: result }] }];
      assert.equal((await ask({ messages, toolConfig })).stopReason, "end_turn");
      const streamed = await client.send(new ConverseStreamCommand(request({ messages: [question], toolConfig })));
      const input = (await collect(streamed.stream)).map((event) => event.contentBlockDelta?.delta.toolUse?.input ?? "");
      assert.deepEqual(JSON.parse(input.join("")), TOOL_INPUT);
    },

    async image() {
      const bytes = Buffer.from(cells.PNG_BASE64, "base64");
      const content = [{ text: PROMPT }, { image: { format: "png", source: { bytes } } }];
      const response = await ask({ messages: [{ role: "user", content }] });
      assert.ok(response.usage.inputTokens > (await ask()).usage.inputTokens, "the image costs nothing");
    },

    async error() {
      await raises(runtime.ResourceNotFoundException, () => ask({ modelId: cells.UNKNOWN_MODEL }));
      const badMessages = [{ role: "robot", content: [{ text: PROMPT }] }];
      await raises(runtime.ValidationException, () => ask({ messages: badMessages }));
      const unknownKeyClient = connect(cells.UNKNOWN_KEY, 1);
      const error = await raises(runtime.BedrockRuntimeServiceException, () => ask({}, unknownKeyClient));
      assert.ok([401, 403].includes(error.$metadata.httpStatusCode), `${error}`);
    },

    async retry() {
      const [noRetryClient, retryClient] = [connect(impatientKey, 1), connect(impatientKey, 10)];
      await cells.eventually(async () => {
        const error = await cells.callUntilRefused(runtime.ThrottlingException, () => ask({}, noRetryClient));
        assert.ok(Number(error.$response.headers["retry-after"]) > 0);
        return (await ask({}, retryClient)).$metadata.attempts > 1;
      });
    },

    async schema() {
      const structure = { jsonSchema: { name: "river", schema: JSON.stringify(cells.RIVER_SCHEMA) } };
      const response = await ask({ outputConfig: { textFormat: { type: "json_schema", structure } } });
      const text = response.output.message.content[0].text;
      assert.deepEqual(Object.keys(JSON.parse(text)).sort(), ["length_km", "river"]);
    },

    async thinking() {
      const additionalModelRequestFields = { thinking: { type: "enabled", budget_tokens: 1_024 } };
      const response = await ask({ inferenceConfig: { maxTokens: 2_048 }, additionalModelRequestFields });
      const [reasoning, text] = response.output.message.content;
      assert.ok(reasoning.reasoningContent?.reasoningText.signature && text?.text, JSON.stringify(reasoning));
    },

    async cache() {
      const system = [{ text: `${randomUUID()} ${cells.LONG_TEXT}` }, { cachePoint: { type: "default" } }];
      const written = (await ask({ system })).usage;
      const read = (await ask({ system })).usage;
      assert.ok(written.cacheWriteInputTokens > 1_000, JSON.stringify(written));
      assert.equal(read.cacheReadInputTokens, written.cacheWriteInputTokens);
    },

    async count() {
      const input = { converse: { messages: request().messages } };
      const counted = await client.send(new runtime.CountTokensCommand({ modelId: CLAUDE_ON_BEDROCK, input }));
      assert.equal(counted.inputTokens, (await ask()).usage.inputTokens);
    },

    async guardrail() {
      const guardrail = { guardrailIdentifier: "grrivers1", guardrailVersion: "1", source: "INPUT" };
      const content = [{ text: { text: PROMPT } }];
      const response = await client.send(new runtime.ApplyGuardrailCommand({ ...guardrail, content }));
      assert.ok(["NONE", "GUARDRAIL_INTERVENED"].includes(response.action));
    },

    async invoke() {
      const response = await client.send(new InvokeModelCommand({ modelId: CLAUDE_ON_BEDROCK, body }));
      assert.ok(JSON.parse(response.body.transformToString()).content[0].text);
    },

    async i_stream() {
      const unstreamed = await client.send(new InvokeModelCommand({ modelId: CLAUDE_ON_BEDROCK, body }));
      const command = new runtime.InvokeModelWithResponseStreamCommand({ modelId: CLAUDE_ON_BEDROCK, body });
      const chunks = await collect((await client.send(command)).body);
      const events = chunks.map((event) => JSON.parse(Buffer.from(event.chunk.bytes).toString()));
      const text = events.map((event) => event.delta?.text ?? "").join("");
      assert.equal(text, JSON.parse(unstreamed.body.transformToString()).content[0].text);
    },

    async embed() {
      const titan = JSON.stringify({ inputText: "a river", dimensions: 256 });
      const response = await client.send(new InvokeModelCommand({ modelId: cells.TITAN, body: titan }));
      assert.equal(JSON.parse(response.body.transformToString()).embedding.length, 256);
    },
  });
}

const signingClient = (endpoint) => (sessionToken, maxAttempts) => {
  const credentials = { accessKeyId: "unused", secretAccessKey: "unused", sessionToken };
  return new BedrockRuntimeClient({ endpoint, region: "us-east-1", credentials, maxAttempts });
};
const bearerClient = (endpoint) => (token, maxAttempts) => {
  const authSchemePreference = ["httpBearerAuth"];
  return new BedrockRuntimeClient({ endpoint, region: "us-east-1", token: { token }, authSchemePreference, maxAttempts });
};
const withoutTls = {
  "AWS js, h2c, SigV4": signingClient(cells.URL),
  "AWS js, h2c, bearer": bearerClient(cells.URL),
};
const rows = {
  ...(cells.IS_LOCAL ? withoutTls : {}),
  "AWS js, h2 over TLS, SigV4": signingClient(cells.TLS_URL),
  "AWS js, h2 over TLS, bearer": bearerClient(cells.TLS_URL),
};
await cells.run(...Object.entries(rows).map(([name, connect]) => ({ name, table: "Bedrock", cells: clientCells(connect) })));
