// Calls a running Spillway with the AWS SDK for JavaScript, whose default client speaks HTTP/2 only.
//
//     SPILLWAY_URL=http://127.0.0.1:8787 SPILLWAY_KEY=sk-spill-roomy-… node smoke.mjs
//
// Prints a line for each check and ends with `N passed, M failed`; the exit code is 1 if any failed.

import assert from "node:assert/strict";
import { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand } from "@aws-sdk/client-bedrock-runtime";

const { SPILLWAY_URL: endpoint, SPILLWAY_KEY: key, SPILLWAY_MODEL: model = "demo-chat" } = process.env;
const request = {
  modelId: model,
  messages: [{ role: "user", content: [{ text: "Name three rivers, one per line." }] }],
  inferenceConfig: { maxTokens: 64 },
};

function client(sessionToken = key) {
  const credentials = { accessKeyId: "unused", secretAccessKey: "unused", sessionToken };
  return new BedrockRuntimeClient({ endpoint, region: "us-east-1", credentials, maxAttempts: 1 });
}

const checks = {
  async "aws js converses over h2c"() {
    const answer = await client().send(new ConverseCommand(request));
    assert.ok(answer.output.message.content[0].text, "the answer is empty");
    assert.ok(answer.usage.outputTokens > 0);
  },

  async "aws js streams the same answer"() {
    const whole = await client().send(new ConverseCommand(request));
    const events = [];
    for await (const event of (await client().send(new ConverseStreamCommand(request))).stream) events.push(event);
    const text = events.map((event) => event.contentBlockDelta?.delta.text ?? "").join("");
    assert.equal(text, whole.output.message.content[0].text);
    assert.deepEqual(events.at(-1).metadata.usage, whole.usage);
  },

  async "aws js hears of an unknown model"() {
    const call = client().send(new ConverseCommand({ ...request, modelId: "no-such-model" }));
    await assert.rejects(call, { name: "ResourceNotFoundException" });
  },

  async "aws js hears of a bad key"() {
    const call = client(`sk-spill-nobody-${"0".repeat(64)}`).send(new ConverseCommand(request));
    await assert.rejects(call, (error) => [401, 403].includes(error.$metadata.httpStatusCode));
  },
};

let failed = 0;
for (const [claim, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok   ${claim}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${claim}: ${error}`);
  }
}
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
