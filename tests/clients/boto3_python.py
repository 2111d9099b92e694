"""boto3: the operations of Bedrock Runtime, with each authentication method."""

import base64
import functools
import uuid

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.tokens import FrozenAuthToken

from cells import *
from server import access_key_id

TOOLS = {
    "tools": [
        {"toolSpec": {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "inputSchema": {"json": TOOL_SCHEMA}}}
    ]
}
GUARDRAIL = {"guardrailIdentifier": "grrivers1", "guardrailVersion": "1", "source": "INPUT"}


class Runtime:
    """The cells of a client. `connect` makes the client from a key and a number of attempts."""

    def __init__(self, connect):
        self.connect = connect

    @functools.cached_property
    def client(self):
        return self.connect(KEY, 1)

    def request(self, *content, **fields):
        messages = [{"role": "user", "content": [{"text": PROMPT}, *content]}]
        config = {"maxTokens": MAX_TOKENS}
        return {"modelId": CLAUDE_ON_BEDROCK, "messages": messages, "inferenceConfig": config, **fields}

    def ask(self, *content, **fields):
        return self.client.converse(**self.request(*content, **fields))

    def plain(self):
        response = self.ask()
        assert response["output"]["message"]["content"][0]["text"], "the response is empty"
        usage = response["usage"]
        assert usage["inputTokens"] > 0 and 0 < usage["outputTokens"] <= MAX_TOKENS, usage
        assert_equal(usage["totalTokens"], usage["inputTokens"] + usage["outputTokens"])

    def stream(self):
        unstreamed = self.ask()
        events = list(self.client.converse_stream(**self.request())["stream"])
        deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
        text = "".join(delta.get("text", "") for delta in deltas)
        assert_equal(text, unstreamed["output"]["message"]["content"][0]["text"])
        assert "messageStart" in events[0], events[0]
        assert_equal(events[-1]["metadata"]["usage"], unstreamed["usage"])

    def tools(self):
        question = {"role": "user", "content": [{"text": TOOL_PROMPT}]}
        first = self.ask(messages=[question], toolConfig=TOOLS)
        assert_equal(first["stopReason"], "tool_use")
        call = first["output"]["message"]["content"][-1]["toolUse"]
        assert_equal((call["name"], call["input"]), (TOOL_NAME, TOOL_INPUT))
        result = {"toolResult": {"toolUseId": call["toolUseId"], "content": [{"text": TOOL_RESULT}]}}
        messages = [question, first["output"]["message"], {"role": "user", "content": [result]}]
        last = self.ask(messages=messages, toolConfig=TOOLS)
        assert_equal(last["stopReason"], "end_turn")
        events = list(self.client.converse_stream(**self.request(messages=[question], toolConfig=TOOLS))["stream"])
        deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
        assert_equal(json.loads("".join(delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta)), TOOL_INPUT)

    def image(self):
        image = {"image": {"format": "png", "source": {"bytes": base64.b64decode(PNG_BASE64)}}}
        assert self.ask(image)["usage"]["inputTokens"] > self.ask()["usage"]["inputTokens"], "the image costs nothing"

    def error(self):
        raises(self.client.exceptions.ResourceNotFoundException, lambda: self.ask(modelId=UNKNOWN_MODEL))
        bad_messages = [{"role": "robot", "content": [{"text": PROMPT}]}]
        raises(self.client.exceptions.ValidationException, lambda: self.ask(messages=bad_messages))
        unknown_key_client = self.connect(UNKNOWN_KEY, 1)
        error = raises(ClientError, lambda: unknown_key_client.converse(**self.request()))
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (401, 403), error.response

    def retry(self, key):
        no_retry_client, retry_client = self.connect(key, 1), self.connect(key, 10)

        def is_retried():
            throttling = no_retry_client.exceptions.ThrottlingException
            error = call_until_refused(throttling, lambda: no_retry_client.converse(**self.request()))
            assert float(error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) > 0, error.response
            return retry_client.converse(**self.request())["ResponseMetadata"]["RetryAttempts"] > 0

        eventually(is_retried)

    def schema(self):
        definition = {"name": "river", "schema": json.dumps(RIVER_SCHEMA)}
        text_format = {"type": "json_schema", "structure": {"jsonSchema": definition}}
        response = self.ask(outputConfig={"textFormat": text_format})
        assert_equal(sorted(json.loads(response["output"]["message"]["content"][0]["text"])), ["length_km", "river"])

    def thinking(self):
        thinking = {"thinking": {"type": "enabled", "budget_tokens": 1_024}}
        fields = {"inferenceConfig": {"maxTokens": 2_048}, "additionalModelRequestFields": thinking}
        content = self.ask(**fields)["output"]["message"]["content"]
        assert_equal([next(iter(block)) for block in content], ["reasoningContent", "text"])
        reasoning = content[0]["reasoningContent"]["reasoningText"]
        assert reasoning["text"] and reasoning["signature"], reasoning
        events = list(self.client.converse_stream(**self.request(**fields))["stream"])
        deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
        texts = [delta["reasoningContent"].get("text", "") for delta in deltas if "reasoningContent" in delta]
        assert_equal("".join(texts), reasoning["text"])

    def cache(self):
        system = [{"text": f"{uuid.uuid4()} {LONG_TEXT}"}, {"cachePoint": {"type": "default"}}]
        written = self.ask(system=system)["usage"]
        read = self.ask(system=system)["usage"]
        assert written["cacheWriteInputTokens"] > 1_000, written
        assert_equal(read["cacheReadInputTokens"], written["cacheWriteInputTokens"])

    def count(self):
        counted = self.client.count_tokens(
            modelId=CLAUDE_ON_BEDROCK, input={"converse": {"messages": self.request()["messages"]}}
        )
        assert_equal(counted["inputTokens"], self.ask()["usage"]["inputTokens"])
        body = {"invokeModel": {"body": messages_body()}}
        counted_body = self.client.count_tokens(modelId=CLAUDE_ON_BEDROCK, input=body)
        assert_equal(counted_body["inputTokens"], counted["inputTokens"])

    def guardrail(self):
        # The simulator's guardrails block this word.
        for text, action in ((PROMPT, "NONE"), ("sim-blocked", "GUARDRAIL_INTERVENED")):
            assert_equal(self.client.apply_guardrail(**GUARDRAIL, content=[{"text": {"text": text}}])["action"], action)

    def invoke(self):
        # By default, boto3 sends no content type.
        response = self.client.invoke_model(modelId=CLAUDE_ON_BEDROCK, body=messages_body())
        message = json.loads(response["body"].read())
        assert message["content"][0]["text"] and message["usage"]["output_tokens"] > 0, message
        nova = {"messages": [{"role": "user", "content": [{"text": PROMPT}]}], "inferenceConfig": {"maxTokens": 9}}
        response = self.client.invoke_model(modelId=NOVA, body=json.dumps(nova), contentType="application/json")
        assert json.loads(response["body"].read())["output"]["message"]["content"][0]["text"]

    def i_stream(self):
        unstreamed = json.loads(self.client.invoke_model(modelId=CLAUDE_ON_BEDROCK, body=messages_body())["body"].read())
        response = self.client.invoke_model_with_response_stream(modelId=CLAUDE_ON_BEDROCK, body=messages_body())
        events = [json.loads(event["chunk"]["bytes"]) for event in response["body"]]
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        assert_equal("".join(delta.get("text", "") for delta in deltas), unstreamed["content"][0]["text"])
        assert_equal((events[0]["type"], events[-1]["type"]), ("message_start", "message_stop"))
        assert "amazon-bedrock-invocationMetrics" in events[-1], events[-1]

    def embed(self):
        titan = json.dumps({"inputText": "a river", "dimensions": 256, "normalize": True})
        response = json.loads(self.client.invoke_model(modelId=TITAN, body=titan)["body"].read())
        assert len(response["embedding"]) == 256 and response["inputTextTokenCount"] > 0, response
        cohere = json.dumps({"texts": ["a river", "a hill"], "input_type": "search_document"})
        response = json.loads(self.client.invoke_model(modelId=COHERE, body=cohere)["body"].read())
        assert_equal(len(response["embeddings"]), 2)

    def cells(self, impatient_key):
        names = "plain stream tools image error schema thinking cache count guardrail invoke i_stream embed".split()
        return {name: getattr(self, name) for name in names} | {"retry": lambda: self.retry(impatient_key)}


def messages_body():
    messages = [{"role": "user", "content": PROMPT}]
    return json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": MAX_TOKENS, "messages": messages})


def runtime_client(attempts, url, session=None, signature_version=None, **arguments):
    retries = {"total_max_attempts": attempts, "mode": "standard"}
    return boto3.session.Session(botocore_session=session).client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        config=Config(retries=retries, signature_version=signature_version),
        **arguments,
    )


def signing_client(key, attempts):
    # botocore does not send bearer tokens over plain HTTP, so the key is the session token of dummy
    # credentials.
    credentials = {"aws_access_key_id": "unused", "aws_secret_access_key": "unused", "aws_session_token": key}
    return runtime_client(attempts, URL, **credentials)


def access_key_id_client(key, attempts):
    return runtime_client(attempts, URL, aws_access_key_id=access_key_id(key), aws_secret_access_key="unused")


class Token(str):
    """A bearer token for a single client. The environment variable would apply to the process."""

    def load_token(self, **_):
        return self

    def get_frozen_token(self):
        return FrozenAuthToken(self)


def bearer_client(key, attempts):
    session = botocore.session.Session()
    session.register_component("token_provider", Token(key))
    return runtime_client(attempts, TLS_URL, session, "bearer", verify=CA_FILE)


rows = [
    Row("boto3, SigV4", "Bedrock", Runtime(signing_client).cells),
    Row("boto3, bearer over TLS", "Bedrock", Runtime(bearer_client).cells),
]
if IS_LOCAL:
    rows.append(Row("boto3, access key id", "Bedrock", Runtime(access_key_id_client).cells))
run(*rows)
