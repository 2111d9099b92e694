"""langchain-aws: its client for Converse, and its client for InvokeModel."""

import uuid

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from langchain_aws import BedrockEmbeddings, ChatBedrock, ChatBedrockConverse
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from cells import *


class River(BaseModel):
    """A river."""

    river: str
    length_km: int


@tool
def river_length(river: str) -> str:
    """The length of a river in kilometres."""
    return TOOL_RESULT


def runtime(key, attempts):
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=URL,
        region_name="us-east-1",
        aws_access_key_id="unused",
        aws_secret_access_key="unused",
        aws_session_token=key,
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
    )


class Chat:
    """The cells of a chat model that `connect` makes from a boto3 client and a model."""

    def __init__(self, connect):
        self.connect = connect
        self.chat = self.model()

    def model(self, key=KEY, attempts=1, model=CLAUDE_ON_BEDROCK, **more):
        return self.connect(runtime(key, attempts), model, **more)

    def plain(self):
        answer = self.chat.invoke(PROMPT)
        usage = answer.usage_metadata
        assert answer.text and usage["input_tokens"] > 0 and 0 < usage["output_tokens"] <= MAX_TOKENS, answer

    def stream(self):
        whole = self.chat.invoke(PROMPT)
        chunks = list(self.chat.stream(PROMPT))
        final = sum(chunks[1:], chunks[0])
        same(final.text, whole.text)
        same(final.usage_metadata["output_tokens"], whole.usage_metadata["output_tokens"])

    def tools(self):
        chat = self.chat.bind_tools([river_length])
        first = chat.invoke(TOOL_PROMPT)
        call = first.tool_calls[0]
        same((call["name"], call["args"]), (TOOL_NAME, TOOL_INPUT))
        last = chat.invoke([HumanMessage(TOOL_PROMPT), first, river_length.invoke(call)])
        assert last.text and not last.tool_calls, last
        chunks = list(chat.stream(TOOL_PROMPT))
        same(sum(chunks[1:], chunks[0]).tool_calls[0]["args"], TOOL_INPUT)

    def image(self):
        image = {"type": "image", "base64": PNG_BASE64, "mime_type": "image/png"}
        answer = self.chat.invoke([HumanMessage([{"type": "text", "text": PROMPT}, image])])
        without = self.chat.invoke(PROMPT).usage_metadata
        assert answer.usage_metadata["input_tokens"] > without["input_tokens"], "the image costs nothing"

    def error(self):
        error = raises(ClientError, lambda: self.model(model="anthropic.claude-none").invoke(PROMPT))
        same(error.response["Error"]["Code"], "ResourceNotFoundException")
        error = raises(ClientError, lambda: self.model(temperature=7).invoke(PROMPT))
        same(error.response["Error"]["Code"], "ValidationException")
        error = raises(ClientError, lambda: self.model(key=UNKNOWN_KEY).invoke(PROMPT))
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (401, 403), error.response

    def retry(self, key):
        hasty = self.model(key)
        error = refused(ClientError, lambda: hasty.invoke(PROMPT))
        same(error.response["Error"]["Code"], "ThrottlingException")
        assert self.model(key, 10).invoke(PROMPT).text

    def cache(self):
        text = {"type": "text", "text": f"{uuid.uuid4()} {LONG_TEXT}"}
        if self.connect is by_converse:
            system = SystemMessage([text, {"cachePoint": {"type": "default"}}])
        else:
            system = SystemMessage([text | {"cache_control": {"type": "ephemeral"}}])
        written, read = (
            self.chat.invoke([system, HumanMessage(PROMPT)]).usage_metadata["input_token_details"] for _ in range(2)
        )
        # Where the time to live is known, the client counts what was written under that.
        writes = written["cache_creation"] + written.get("ephemeral_5m_input_tokens", 0)
        assert writes > 1_000, written
        same(read["cache_read"], writes)

    def schema(self):
        # ChatBedrock makes a tool of the schema, which it tells the model to call.
        prompt = '[[tool=River {"river": "Elbe", "length_km": 1094}]] How long is it?'
        answer = self.chat.with_structured_output(River, method="json_schema").invoke(prompt)
        assert isinstance(answer, River), answer

    def thinking(self):
        more = {"max_tokens": 2_048, **thinking(self.connect)}
        chat = self.model(**more)
        first = chat.invoke(PROMPT)
        kinds = [block["type"] for block in first.content_blocks]
        same(kinds, ["reasoning", "text"])
        assert chat.invoke([HumanMessage(PROMPT), first, HumanMessage("And another?")]).text

    def count(self):
        charged = self.chat.invoke(PROMPT).usage_metadata["input_tokens"]
        same(self.chat.get_num_tokens_from_messages([HumanMessage(PROMPT)]), charged)

    def embed(self):
        vectors = BedrockEmbeddings(client=runtime(KEY, 1), model_id=TITAN).embed_documents(["a river", "a hill"])
        assert len(vectors) == 2 and len(vectors[0]) > 1
        vectors = BedrockEmbeddings(client=runtime(KEY, 1), model_id=COHERE).embed_documents(["a river", "a hill"])
        same(len(vectors), 2)

    def cells(self, impatient_key):
        names = "plain stream tools image error cache schema thinking count embed".split()
        return {name: getattr(self, name) for name in names} | {"retry": lambda: self.retry(impatient_key)}


def by_converse(client, model, max_tokens=MAX_TOKENS, **more):
    return ChatBedrockConverse(client=client, model_id=model, max_tokens=max_tokens, region_name="us-east-1", **more)


def by_invoke(client, model, max_tokens=MAX_TOKENS, **more):
    return ChatBedrock(client=client, model_id=model, max_tokens=max_tokens, region="us-east-1", **more)


def thinking(connect):
    told = {"thinking": {"type": "enabled", "budget_tokens": 1_024}}
    return {"additional_model_request_fields": told} if connect is by_converse else {"model_kwargs": told}


WITHOUT = {"guardrail": "the client has no such call"}
BY_CONVERSE = {
    "invoke": "is what ChatBedrock does",
    "i_stream": "is what ChatBedrock does",
    "count": "the client counts with a tokenizer of its own",
}
BY_INVOKE = {"invoke": "see plain", "i_stream": "see stream"}
run(
    Row("ChatBedrockConverse", "Bedrock", Chat(by_converse).cells, WITHOUT | BY_CONVERSE),
    Row("ChatBedrock", "Bedrock", Chat(by_invoke).cells, WITHOUT | BY_INVOKE),
)
