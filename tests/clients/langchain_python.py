"""langchain-aws: its Converse client and its InvokeModel client."""

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


def runtime_client(key, attempts):
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
    """The cells of a chat model. `connect` makes it from a boto3 client and a model id."""

    def __init__(self, connect):
        self.connect = connect
        self.chat = self.model()

    def model(self, key=KEY, attempts=1, model=CLAUDE_ON_BEDROCK, **fields):
        return self.connect(runtime_client(key, attempts), model, **fields)

    def plain(self):
        response = self.chat.invoke(PROMPT)
        usage = response.usage_metadata
        assert response.text and usage["input_tokens"] > 0 and 0 < usage["output_tokens"] <= MAX_TOKENS, response

    def stream(self):
        unstreamed = self.chat.invoke(PROMPT)
        chunks = list(self.chat.stream(PROMPT))
        final = sum(chunks[1:], chunks[0])
        assert_equal(final.text, unstreamed.text)
        assert_equal(final.usage_metadata["output_tokens"], unstreamed.usage_metadata["output_tokens"])

    def tools(self):
        chat = self.chat.bind_tools([river_length])
        first = chat.invoke(TOOL_PROMPT)
        call = first.tool_calls[0]
        assert_equal((call["name"], call["args"]), (TOOL_NAME, TOOL_INPUT))
        last = chat.invoke([HumanMessage(TOOL_PROMPT), first, river_length.invoke(call)])
        assert last.text and not last.tool_calls, last
        chunks = list(chat.stream(TOOL_PROMPT))
        assert_equal(sum(chunks[1:], chunks[0]).tool_calls[0]["args"], TOOL_INPUT)

    def image(self):
        image = {"type": "image", "base64": PNG_BASE64, "mime_type": "image/png"}
        response = self.chat.invoke([HumanMessage([{"type": "text", "text": PROMPT}, image])])
        usage_without_image = self.chat.invoke(PROMPT).usage_metadata
        assert response.usage_metadata["input_tokens"] > usage_without_image["input_tokens"], "the image costs nothing"

    def error(self):
        error = raises(ClientError, lambda: self.model(model="anthropic.claude-none").invoke(PROMPT))
        assert_equal(error.response["Error"]["Code"], "ResourceNotFoundException")
        error = raises(ClientError, lambda: self.model(temperature=7).invoke(PROMPT))
        assert_equal(error.response["Error"]["Code"], "ValidationException")
        error = raises(ClientError, lambda: self.model(key=UNKNOWN_KEY).invoke(PROMPT))
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (401, 403), error.response

    def retry(self, key):
        no_retry_chat = self.model(key)
        error = call_until_refused(ClientError, lambda: no_retry_chat.invoke(PROMPT))
        assert_equal(error.response["Error"]["Code"], "ThrottlingException")
        assert self.model(key, 10).invoke(PROMPT).text

    def cache(self):
        text = {"type": "text", "text": f"{uuid.uuid4()} {LONG_TEXT}"}
        if self.connect is converse_chat:
            system = SystemMessage([text, {"cachePoint": {"type": "default"}}])
        else:
            system = SystemMessage([text | {"cache_control": {"type": "ephemeral"}}])
        written, read = (
            self.chat.invoke([system, HumanMessage(PROMPT)]).usage_metadata["input_token_details"] for _ in range(2)
        )
        # If the client knows the time to live, it reports the written tokens under it instead.
        written_tokens = written["cache_creation"] + written.get("ephemeral_5m_input_tokens", 0)
        assert written_tokens > 1_000, written
        assert_equal(read["cache_read"], written_tokens)

    def schema(self):
        # ChatBedrock turns the schema into a tool that the model must call.
        prompt = '[[tool=River {"river": "Elbe", "length_km": 1094}]] How long is it?'
        response = self.chat.with_structured_output(River, method="json_schema").invoke(prompt)
        assert isinstance(response, River), response

    def thinking(self):
        fields = {"max_tokens": 2_048, **thinking(self.connect)}
        chat = self.model(**fields)
        first = chat.invoke(PROMPT)
        kinds = [block["type"] for block in first.content_blocks]
        assert_equal(kinds, ["reasoning", "text"])
        assert chat.invoke([HumanMessage(PROMPT), first, HumanMessage("And another?")]).text

    def count(self):
        charged = self.chat.invoke(PROMPT).usage_metadata["input_tokens"]
        assert_equal(self.chat.get_num_tokens_from_messages([HumanMessage(PROMPT)]), charged)

    def embed(self):
        vectors = BedrockEmbeddings(client=runtime_client(KEY, 1), model_id=TITAN).embed_documents(["a river", "a hill"])
        assert len(vectors) == 2 and len(vectors[0]) > 1
        vectors = BedrockEmbeddings(client=runtime_client(KEY, 1), model_id=COHERE).embed_documents(["a river", "a hill"])
        assert_equal(len(vectors), 2)

    def cells(self, impatient_key):
        names = "plain stream tools image error cache schema thinking count embed".split()
        return {name: getattr(self, name) for name in names} | {"retry": lambda: self.retry(impatient_key)}


def converse_chat(client, model, max_tokens=MAX_TOKENS, **fields):
    return ChatBedrockConverse(client=client, model_id=model, max_tokens=max_tokens, region_name="us-east-1", **fields)


def invoke_chat(client, model, max_tokens=MAX_TOKENS, **fields):
    return ChatBedrock(client=client, model_id=model, max_tokens=max_tokens, region="us-east-1", **fields)


def thinking(connect):
    fields = {"thinking": {"type": "enabled", "budget_tokens": 1_024}}
    return {"additional_model_request_fields" if connect is converse_chat else "model_kwargs": fields}


NOT_APPLICABLE = {"guardrail": "the client has no such call"}
NOT_APPLICABLE_TO_CONVERSE = {
    "invoke": "see ChatBedrock",
    "i_stream": "see ChatBedrock",
    "count": "the client counts with its own tokenizer",
}
NOT_APPLICABLE_TO_INVOKE = {"invoke": "see plain", "i_stream": "see stream"}
run(
    Row("ChatBedrockConverse", "Bedrock", Chat(converse_chat).cells, NOT_APPLICABLE | NOT_APPLICABLE_TO_CONVERSE),
    Row("ChatBedrock", "Bedrock", Chat(invoke_chat).cells, NOT_APPLICABLE | NOT_APPLICABLE_TO_INVOKE),
)
