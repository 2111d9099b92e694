"""boto3: Converse, InvokeModel and what else Bedrock Runtime can do, with each way in which it can say who calls."""

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
    """The cells of a client that `connect` makes; it takes a key and how often to try."""

    def __init__(self, connect):
        self.connect = connect

    @functools.cached_property
    def client(self):
        return self.connect(KEY, 1)

    def request(self, *content, **more):
        messages = [{"role": "user", "content": [{"text": PROMPT}, *content]}]
        config = {"maxTokens": MAX_TOKENS}
        return {"modelId": CLAUDE_ON_BEDROCK, "messages": messages, "inferenceConfig": config, **more}

    def ask(self, *content, **more):
        return self.client.converse(**self.request(*content, **more))

    def plain(self):
        answer = self.ask()
        assert answer["output"]["message"]["content"][0]["text"], "the answer is empty"
        usage = answer["usage"]
        assert usage["inputTokens"] > 0 and 0 < usage["outputTokens"] <= MAX_TOKENS, usage
        same(usage["totalTokens"], usage["inputTokens"] + usage["outputTokens"])

    def stream(self):
        whole = self.ask()
        events = list(self.client.converse_stream(**self.request())["stream"])
        deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
        same("".join(delta.get("text", "") for delta in deltas), whole["output"]["message"]["content"][0]["text"])
        assert "messageStart" in events[0], events[0]
        same(events[-1]["metadata"]["usage"], whole["usage"])

    def tools(self):
        question = {"role": "user", "content": [{"text": TOOL_PROMPT}]}
        first = self.ask(messages=[question], toolConfig=TOOLS)
        same(first["stopReason"], "tool_use")
        call = first["output"]["message"]["content"][-1]["toolUse"]
        same((call["name"], call["input"]), (TOOL_NAME, TOOL_INPUT))
        result = {"toolResult": {"toolUseId": call["toolUseId"], "content": [{"text": TOOL_RESULT}]}}
        turns = [question, first["output"]["message"], {"role": "user", "content": [result]}]
        last = self.ask(messages=turns, toolConfig=TOOLS)
        same(last["stopReason"], "end_turn")
        events = list(self.client.converse_stream(**self.request(messages=[question], toolConfig=TOOLS))["stream"])
        deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
        same(json.loads("".join(delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta)), TOOL_INPUT)

    def image(self):
        image = {"image": {"format": "png", "source": {"bytes": base64.b64decode(PNG_BASE64)}}}
        assert self.ask(image)["usage"]["inputTokens"] > self.ask()["usage"]["inputTokens"], "the image costs nothing"

    def error(self):
        raises(self.client.exceptions.ResourceNotFoundException, lambda: self.ask(modelId=NO_MODEL))
        twice = [{"role": "robot", "content": [{"text": PROMPT}]}]
        raises(self.client.exceptions.ValidationException, lambda: self.ask(messages=twice))
        stranger = self.connect(UNKNOWN_KEY, 1)
        error = raises(ClientError, lambda: stranger.converse(**self.request()))
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (401, 403), error.response

    def retry(self, key):
        hasty, stubborn = self.connect(key, 1), self.connect(key, 10)

        def is_retried():
            error = refused(hasty.exceptions.ThrottlingException, lambda: hasty.converse(**self.request()))
            assert float(error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) > 0, error.response
            return stubborn.converse(**self.request())["ResponseMetadata"]["RetryAttempts"] > 0

        soon(is_retried)

    def schema(self):
        definition = {"name": "river", "schema": json.dumps(RIVER_SCHEMA)}
        text_format = {"type": "json_schema", "structure": {"jsonSchema": definition}}
        answer = self.ask(outputConfig={"textFormat": text_format})
        same(sorted(json.loads(answer["output"]["message"]["content"][0]["text"])), ["length_km", "river"])

    def thinking(self):
        told = {"thinking": {"type": "enabled", "budget_tokens": 1_024}}
        more = {"inferenceConfig": {"maxTokens": 2_048}, "additionalModelRequestFields": told}
        content = self.ask(**more)["output"]["message"]["content"]
        same([next(iter(block)) for block in content], ["reasoningContent", "text"])
        reasoning = content[0]["reasoningContent"]["reasoningText"]
        assert reasoning["text"] and reasoning["signature"], reasoning
        events = list(self.client.converse_stream(**self.request(**more))["stream"])
        deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
        pieces = [delta["reasoningContent"].get("text", "") for delta in deltas if "reasoningContent" in delta]
        same("".join(pieces), reasoning["text"])

    def cache(self):
        system = [{"text": f"{uuid.uuid4()} {LONG_TEXT}"}, {"cachePoint": {"type": "default"}}]
        written = self.ask(system=system)["usage"]
        read = self.ask(system=system)["usage"]
        assert written["cacheWriteInputTokens"] > 1_000, written
        same(read["cacheReadInputTokens"], written["cacheWriteInputTokens"])

    def count(self):
        counted = self.client.count_tokens(
            modelId=CLAUDE_ON_BEDROCK, input={"converse": {"messages": self.request()["messages"]}}
        )
        same(counted["inputTokens"], self.ask()["usage"]["inputTokens"])
        body = {"invokeModel": {"body": messages_body()}}
        same(self.client.count_tokens(modelId=CLAUDE_ON_BEDROCK, input=body)["inputTokens"], counted["inputTokens"])

    def guardrail(self):
        # The simulator's guardrails block this word.
        for text, action in ((PROMPT, "NONE"), ("sim-blocked", "GUARDRAIL_INTERVENED")):
            same(self.client.apply_guardrail(**GUARDRAIL, content=[{"text": {"text": text}}])["action"], action)

    def invoke(self):
        # As boto3 sends it when nobody says otherwise: without a content type.
        answer = self.client.invoke_model(modelId=CLAUDE_ON_BEDROCK, body=messages_body())
        message = json.loads(answer["body"].read())
        assert message["content"][0]["text"] and message["usage"]["output_tokens"] > 0, message
        nova = {"messages": [{"role": "user", "content": [{"text": PROMPT}]}], "inferenceConfig": {"maxTokens": 9}}
        answer = self.client.invoke_model(modelId=NOVA, body=json.dumps(nova), contentType="application/json")
        assert json.loads(answer["body"].read())["output"]["message"]["content"][0]["text"]

    def i_stream(self):
        whole = json.loads(self.client.invoke_model(modelId=CLAUDE_ON_BEDROCK, body=messages_body())["body"].read())
        answer = self.client.invoke_model_with_response_stream(modelId=CLAUDE_ON_BEDROCK, body=messages_body())
        events = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        same("".join(delta.get("text", "") for delta in deltas), whole["content"][0]["text"])
        same((events[0]["type"], events[-1]["type"]), ("message_start", "message_stop"))
        assert "amazon-bedrock-invocationMetrics" in events[-1], events[-1]

    def embed(self):
        titan = json.dumps({"inputText": "a river", "dimensions": 256, "normalize": True})
        answer = json.loads(self.client.invoke_model(modelId=TITAN, body=titan)["body"].read())
        assert len(answer["embedding"]) == 256 and answer["inputTextTokenCount"] > 0, answer
        cohere = json.dumps({"texts": ["a river", "a hill"], "input_type": "search_document"})
        answer = json.loads(self.client.invoke_model(modelId=COHERE, body=cohere)["body"].read())
        same(len(answer["embeddings"]), 2)

    def cells(self, impatient_key):
        names = "plain stream tools image error schema thinking cache count guardrail invoke i_stream embed".split()
        return {name: getattr(self, name) for name in names} | {"retry": lambda: self.retry(impatient_key)}


def messages_body():
    messages = [{"role": "user", "content": PROMPT}]
    return json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": MAX_TOKENS, "messages": messages})


def made(attempts, url, session=None, signature_version=None, **more):
    retries = {"total_max_attempts": attempts, "mode": "standard"}
    return boto3.session.Session(botocore_session=session).client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        config=Config(retries=retries, signature_version=signature_version),
        **more,
    )


def signed(key, attempts):
    # botocore refuses bearer tokens over plain HTTP, so the key travels as the session token of dummy credentials.
    return made(attempts, URL, aws_access_key_id="unused", aws_secret_access_key="unused", aws_session_token=key)


def known_by_id(key, attempts):
    return made(attempts, URL, aws_access_key_id=access_key_id(key), aws_secret_access_key="unused")


class Token(str):
    """A bearer token that one client has; the environment would give it to all of this process."""

    def load_token(self, **_):
        return self

    def get_frozen_token(self):
        return FrozenAuthToken(self)


def bearer(key, attempts):
    session = botocore.session.Session()
    session.register_component("token_provider", Token(key))
    return made(attempts, TLS_URL, session, "bearer", verify=CA_FILE)


run(
    Row("boto3, SigV4", "Bedrock", Runtime(signed).cells),
    Row("boto3, access key id", "Bedrock", Runtime(known_by_id).cells),
    Row("boto3, bearer over TLS", "Bedrock", Runtime(bearer).cells),
)
