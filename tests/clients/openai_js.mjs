// The OpenAI SDK for JavaScript.

import OpenAI from "openai";
import * as cells from "./cells.mjs";

const { assert, GPT, PROMPT, TOOL_INPUT, TOOL_NAME, TOOL_PROMPT, collect, raises } = cells;
const TOOL = { name: TOOL_NAME, description: cells.TOOL_DESCRIPTION, parameters: cells.TOOL_SCHEMA };
const FORMAT = { type: "json_schema", json_schema: { name: "river", schema: cells.RIVER_SCHEMA, strict: true } };
const client = connect(cells.KEY, 0);

function connect(apiKey, maxRetries) {
  return new OpenAI({ baseURL: `${cells.URL}/v1`, apiKey, maxRetries });
}

function request(fields = {}) {
  const messages = [{ role: "user", content: PROMPT }];
  return { model: GPT, messages, max_completion_tokens: cells.MAX_TOKENS, ...fields };
}

const ask = (fields, sender = client) => sender.chat.completions.create(request(fields));
const respond = (fields) =>
  client.responses.create({ model: GPT, input: PROMPT, max_output_tokens: cells.MAX_TOKENS, ...fields });

const row = {
  name: "openai js",
  table: "OpenAI",
  cells: (impatientKey) => ({
    async plain() {
      const response = await ask();
      assert.ok(response.choices[0].message.content, "the response is empty");
      assert.ok(response.usage.completion_tokens > 0 && response.usage.completion_tokens <= cells.MAX_TOKENS);
    },

    async stream() {
      const unstreamed = await ask();
      const chunks = await collect(await ask({ stream: true, stream_options: { include_usage: true } }));
      const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
      assert.equal(text, unstreamed.choices[0].message.content);
      assert.deepEqual(chunks.at(-1).usage, unstreamed.usage);
    },

    async tools() {
      // `runTools` calls the function and sends the result to the model.
      const inputs = [];
      const length = (input) => inputs.push(input) && cells.TOOL_RESULT;
      const tools = [{ type: "function", function: { ...TOOL, function: length, parse: JSON.parse } }];
      const messages = [{ role: "user", content: TOOL_PROMPT }];
      assert.ok(await client.chat.completions.runTools(request({ messages, tools })).finalContent());
      assert.deepEqual(inputs, [TOOL_INPUT]);
      assert.ok(await client.chat.completions.runTools(request({ messages, tools, stream: true })).finalContent());
      assert.deepEqual(inputs, [TOOL_INPUT, TOOL_INPUT]);
    },

    async image() {
      const image = { type: "image_url", image_url: { url: `data:image/png;base64,${cells.PNG_BASE64}` } };
      const response = await ask({ messages: [{ role: "user", content: [{ type: "text", text: PROMPT }, image] }] });
      assert.ok(response.usage.prompt_tokens > (await ask()).usage.prompt_tokens, "the image costs nothing");
    },

    async error() {
      const unknown = await raises(OpenAI.NotFoundError, () => ask({ model: cells.UNKNOWN_MODEL }));
      assert.match(unknown.message, /no-such-model/);
      const bad = await raises(OpenAI.BadRequestError, () => ask({ temperature: "warm" }));
      assert.equal(bad.param, "temperature");
      await raises(OpenAI.AuthenticationError, () => ask({}, connect(cells.UNKNOWN_KEY, 0)));
    },

    async retry() {
      const noRetryClient = connect(impatientKey, 0);
      const error = await cells.callUntilRefused(OpenAI.RateLimitError, () => ask({}, noRetryClient));
      assert.ok(Number(error.headers.get("retry-after")) > 0);
      assert.ok((await ask({}, connect(impatientKey, 5))).choices[0].message.content);
    },

    async schema() {
      const response = await client.chat.completions.parse(request({ response_format: FORMAT }));
      assert.deepEqual(Object.keys(JSON.parse(response.choices[0].message.content)).sort(), ["length_km", "river"]);
    },

    async models() {
      assert.ok((await collect(client.models.list())).some((model) => model.id === GPT));
      assert.equal((await client.models.retrieve(GPT)).id, GPT);
    },

    async embed() {
      const input = ["a river", "a mountain"];
      const model = "text-embedding-3-small";
      const floats = await client.embeddings.create({ model, input, encoding_format: "float" });
      assert.ok(floats.data.length === 2 && floats.data[0].embedding.length > 1 && floats.usage.prompt_tokens > 0);
      // By default, the SDK requests Base64 and decodes it.
      const decoded = await client.embeddings.create({ model, input });
      decoded.data[1].embedding.forEach((value, index) => {
        assert.ok(Math.abs(value - floats.data[1].embedding[index]) < 1e-6, "vectors differ");
      });
    },

    async respond() {
      const response = await respond();
      assert.ok(response.output_text && response.usage.output_tokens > 0);
    },

    async r_stream() {
      const unstreamed = await respond();
      const events = await collect(await respond({ stream: true }));
      const deltas = events.filter((event) => event.type === "response.output_text.delta");
      assert.equal(deltas.map((event) => event.delta).join(""), unstreamed.output_text);
      assert.deepEqual(events.at(-1).response.usage, unstreamed.usage);
    },

    async r_tools() {
      const tools = [{ type: "function", ...TOOL, strict: false }];
      const question = { role: "user", content: TOOL_PROMPT };
      const first = await respond({ input: [question], tools });
      const call = first.output.find((item) => item.type === "function_call");
      assert.deepEqual([call.name, JSON.parse(call.arguments)], [TOOL_NAME, TOOL_INPUT]);
      const result = { type: "function_call_output", call_id: call.call_id, output: cells.TOOL_RESULT };
      assert.ok((await respond({ input: [question, ...first.output, result], tools })).output_text);
    },

    async r_schema() {
      const { name, schema, strict } = FORMAT.json_schema;
      const text = { format: { type: "json_schema", name, schema, strict } };
      const response = await client.responses.parse({ model: GPT, input: PROMPT, text });
      assert.deepEqual(Object.keys(response.output_parsed).sort(), ["length_km", "river"]);
    },
  }),
};

await cells.run(row);
