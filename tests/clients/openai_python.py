"""The OpenAI SDK for Python, and its Bedrock client."""

import base64
import struct

import openai
from pydantic import BaseModel

from cells import *

TOOL = {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "parameters": TOOL_SCHEMA}


class River(BaseModel):
    river: str
    length_km: int


class Chat:
    """The cells of a client. `connect` makes the client from a key and a number of retries."""

    def __init__(self, connect):
        self.connect = connect
        self.client = connect(KEY, 0)

    def ask(self, client=None, content=PROMPT, **fields):
        messages = [{"role": "user", "content": content}]
        request = {"model": GPT, "messages": messages, "max_completion_tokens": MAX_TOKENS, **fields}
        return (client or self.client).chat.completions.create(**request)

    def plain(self):
        response = self.ask()
        assert response.choices[0].message.content, "the response is empty"
        assert response.choices[0].finish_reason in ("stop", "length"), response.choices[0].finish_reason
        usage = response.usage
        assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= MAX_TOKENS, usage
        assert_equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)

    def stream(self):
        unstreamed = self.ask()
        chunks = list(self.ask(stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert_equal(text, unstreamed.choices[0].message.content)
        assert_equal(chunks[-1].usage, unstreamed.usage)

    def tools(self):
        tools = [{"type": "function", "function": TOOL}]
        first = self.ask(content=TOOL_PROMPT, tools=tools).choices[0]
        assert_equal(first.finish_reason, "tool_calls")
        call = first.message.tool_calls[0]
        assert_equal((call.function.name, json.loads(call.function.arguments)), (TOOL_NAME, TOOL_INPUT))
        result = {"role": "tool", "tool_call_id": call.id, "content": TOOL_RESULT}
        messages = [{"role": "user", "content": TOOL_PROMPT}, first.message, result]
        last = self.ask(messages=messages, tools=tools).choices[0]
        assert last.finish_reason == "stop" and last.message.content, last
        with self.client.chat.completions.stream(
            model=GPT, messages=messages[:1], tools=tools, max_completion_tokens=MAX_TOKENS
        ) as stream:
            streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
        assert_equal(json.loads(streamed.function.arguments), TOOL_INPUT)

    def image(self):
        url = {"url": f"data:image/png;base64,{PNG_BASE64}"}
        response = self.ask(content=[{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": url}])
        assert response.usage.prompt_tokens > self.ask().usage.prompt_tokens, "the image costs nothing"

    def error(self):
        assert UNKNOWN_MODEL in raises(openai.NotFoundError, lambda: self.ask(model=UNKNOWN_MODEL)).message
        assert_equal(raises(openai.BadRequestError, lambda: self.ask(temperature="warm")).param, "temperature")
        error = raises(openai.AuthenticationError, lambda: self.ask(self.connect(UNKNOWN_KEY, 0)))
        assert UNKNOWN_KEY not in str(error), "the error repeats the key"

    def retry(self, key):
        def is_retried():
            error = call_until_refused(openai.RateLimitError, lambda: self.ask(self.connect(key, 0)))
            assert float(error.response.headers["retry-after"]) > 0
            messages = [{"role": "user", "content": PROMPT}]
            response = self.connect(key, 5).chat.completions.with_raw_response.create(model=GPT, messages=messages)
            assert response.parse().choices[0].message.content
            return response.retries_taken > 0

        eventually(is_retried)

    def schema(self):
        response = self.client.chat.completions.parse(
            model=GPT, messages=[{"role": "user", "content": PROMPT}], response_format=River
        )
        assert isinstance(response.choices[0].message.parsed, River), response.choices[0].message

    def models(self):
        assert GPT in [model.id for model in self.client.models.list()]
        assert_equal(self.client.models.retrieve(GPT).id, GPT)

    def embed(self):
        texts = ["a river", "a mountain"]
        floats = self.client.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")
        assert_equal([element.index for element in floats.data], [0, 1])
        assert len(floats.data[0].embedding) > 1 and floats.usage.prompt_tokens > 0, floats.usage
        # By default, the SDK requests Base64 and decodes it.
        decoded = self.client.embeddings.create(model="text-embedding-3-small", input=texts)
        assert_close(decoded.data[1].embedding, floats.data[1].embedding)
        raw = self.client.embeddings.create(model="text-embedding-3-small", input=texts[1], encoding_format="base64")
        packed = base64.b64decode(raw.data[0].embedding)
        assert_close(struct.unpack(f"<{len(packed) // 4}f", packed), floats.data[1].embedding)

    def respond(self):
        response = self.client.responses.create(model=GPT, input=PROMPT, max_output_tokens=MAX_TOKENS)
        assert response.output_text and response.status in ("completed", "incomplete"), response
        assert response.usage.input_tokens > 0 and 0 < response.usage.output_tokens <= MAX_TOKENS, response.usage

    def r_stream(self):
        unstreamed = self.client.responses.create(model=GPT, input=PROMPT, max_output_tokens=MAX_TOKENS)
        request = {"model": GPT, "input": PROMPT, "max_output_tokens": MAX_TOKENS}
        events = list(self.client.responses.create(**request, stream=True))
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert_equal(text, unstreamed.output_text)
        assert_equal([event.sequence_number for event in events], list(range(len(events))))
        assert_equal((events[0].type, events[-1].response.usage), ("response.created", unstreamed.usage))
        with self.client.responses.stream(**request) as stream:
            assert_equal(stream.get_final_response().output_text, unstreamed.output_text)

    def r_tools(self):
        tools = [{"type": "function", **TOOL, "strict": False}]
        question = {"role": "user", "content": TOOL_PROMPT}
        first = self.client.responses.create(model=GPT, input=[question], tools=tools)
        call = next(item for item in first.output if item.type == "function_call")
        assert_equal((call.name, json.loads(call.arguments)), (TOOL_NAME, TOOL_INPUT))
        result = {"type": "function_call_output", "call_id": call.call_id, "output": TOOL_RESULT}
        last = self.client.responses.create(model=GPT, input=[question, *first.output, result], tools=tools)
        assert last.output_text, last

    def r_schema(self):
        response = self.client.responses.parse(model=GPT, input=PROMPT, text_format=River)
        assert isinstance(response.output_parsed, River), response.output

    def cells(self, impatient_key):
        names = "plain stream tools image error schema models embed respond r_stream r_tools r_schema".split()
        return {name: getattr(self, name) for name in names} | {"retry": lambda: self.retry(impatient_key)}


def assert_close(actual, expected):
    assert len(actual) == len(expected) and all(abs(a - b) < 1e-6 for a, b in zip(actual, expected)), "vectors differ"


def openai_client(key, retries):
    return openai.OpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=retries)


def bedrock_client(key, retries):
    return openai.BedrockOpenAI(base_url=f"{URL}/openai/v1", api_key=key, max_retries=retries, aws_region="us-east-1")


def signing_bedrock_client(key, retries):
    return openai.BedrockOpenAI(
        base_url=f"{URL}/openai/v1",
        aws_access_key_id="unused",
        aws_secret_access_key="unused",
        aws_session_token=key,
        aws_region="us-east-1",
        max_retries=retries,
    )


clients = {
    "openai python": openai_client,
    "BedrockOpenAI python": bedrock_client,
    "BedrockOpenAI python, SigV4": signing_bedrock_client,
}
run(*(Row(name, "OpenAI", Chat(connect).cells) for name, connect in clients.items()))
