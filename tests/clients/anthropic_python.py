"""The Anthropic SDK for Python, with the Anthropic API, InvokeModel, and Bedrock Mantle."""

import uuid

import anthropic

from cells import *

TOOL = {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "input_schema": TOOL_SCHEMA}


class Messages:
    """The cells of a client. `connect` makes the client from a key and a number of retries."""

    def __init__(self, connect, model):
        self.connect = connect
        self.model = model
        self.client = connect(KEY, 0)

    def request(self, content=PROMPT, **fields):
        messages = [{"role": "user", "content": content}]
        return {"model": self.model, "max_tokens": MAX_TOKENS, "messages": messages, **fields}

    def ask(self, content=PROMPT, **fields):
        return self.client.messages.create(**self.request(content, **fields))

    def plain(self):
        response = self.ask()
        assert response.content[0].text, "the response is empty"
        assert response.stop_reason in ("end_turn", "max_tokens"), response.stop_reason
        assert response.usage.input_tokens > 0 and 0 < response.usage.output_tokens <= MAX_TOKENS, response.usage

    def stream(self):
        unstreamed = self.ask()
        with self.client.messages.stream(**self.request()) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert_equal(text, unstreamed.content[0].text)
        assert_equal(final.usage.output_tokens, unstreamed.usage.output_tokens)

    def tools(self):
        first = self.ask(TOOL_PROMPT, tools=[TOOL])
        assert_equal(first.stop_reason, "tool_use")
        call = first.content[-1]
        assert_equal((call.name, call.input), (TOOL_NAME, TOOL_INPUT))
        result = {"type": "tool_result", "tool_use_id": call.id, "content": TOOL_RESULT}
        question = {"role": "user", "content": TOOL_PROMPT}
        tool_call = {"role": "assistant", "content": first.content}
        last = self.ask(tools=[TOOL], messages=[question, tool_call, {"role": "user", "content": [result]}])
        assert last.stop_reason == "end_turn" and last.content[0].text, last
        with self.client.messages.stream(**self.request(TOOL_PROMPT, tools=[TOOL])) as stream:
            assert_equal(stream.get_final_message().content[-1].input, TOOL_INPUT)

    def image(self):
        source = {"type": "base64", "media_type": "image/png", "data": PNG_BASE64}
        response = self.ask([{"type": "text", "text": PROMPT}, {"type": "image", "source": source}])
        assert response.usage.input_tokens > self.ask().usage.input_tokens, "the image costs nothing"

    def error(self):
        assert UNKNOWN_MODEL in str(raises(anthropic.NotFoundError, lambda: self.ask(model=UNKNOWN_MODEL)))
        bad_messages = [{"role": "robot", "content": PROMPT}]
        raises(anthropic.BadRequestError, lambda: self.ask(messages=bad_messages))
        unknown_key_client = self.connect(UNKNOWN_KEY, 0)
        kinds = (anthropic.AuthenticationError, anthropic.PermissionDeniedError)
        error = raises(kinds, lambda: unknown_key_client.messages.create(**self.request()))
        assert UNKNOWN_KEY not in str(error), "the error repeats the key"

    def retry(self, key):
        def is_retried():
            no_retry_client = self.connect(key, 0)
            send = lambda: no_retry_client.messages.create(**self.request())
            error = call_until_refused(anthropic.RateLimitError, send)
            assert float(error.response.headers["retry-after"]) > 0
            response = self.connect(key, 5).messages.with_raw_response.create(**self.request())
            assert response.parse().content[0].text
            return response.retries_taken > 0

        eventually(is_retried)

    def schema(self):
        response = self.ask(output_config={"format": {"type": "json_schema", "schema": RIVER_SCHEMA}})
        river = json.loads(response.content[0].text)
        assert_equal(sorted(river), ["length_km", "river"])

    def models(self):
        assert self.model in [model.id for model in self.client.models.list()]

    def count(self):
        counted = self.client.messages.count_tokens(model=self.model, messages=self.request()["messages"])
        assert_equal(counted.input_tokens, self.ask().usage.input_tokens)

    def thinking(self):
        fields = {"max_tokens": 2_048, "thinking": {"type": "enabled", "budget_tokens": 1_024}}
        response = self.ask(**fields)
        assert_equal([block.type for block in response.content], ["thinking", "text"])
        assert response.content[0].thinking and response.content[0].signature, response.content[0]
        with self.client.messages.stream(**self.request(**fields)) as stream:
            streamed = stream.get_final_message().content
        assert_equal([block.type for block in streamed], ["thinking", "text"])
        thinking = response.content[0]
        assert_equal((streamed[0].thinking, streamed[0].signature), (thinking.thinking, thinking.signature))
        question, follow_up = self.request()["messages"][0], {"role": "user", "content": "And another?"}
        self.ask(messages=[question, {"role": "assistant", "content": response.content}, follow_up], **fields)

    def cache(self):
        system = [{"type": "text", "text": f"{uuid.uuid4()} {LONG_TEXT}", "cache_control": {"type": "ephemeral"}}]
        written = self.ask(system=system).usage
        read = self.ask(system=system).usage
        assert written.cache_creation_input_tokens > 1_000, written
        assert_equal(read.cache_read_input_tokens, written.cache_creation_input_tokens)

    def cells(self, impatient_key):
        names = "plain stream tools image error schema models count thinking cache".split()
        return {name: getattr(self, name) for name in names} | {"retry": lambda: self.retry(impatient_key)}


def anthropic_client(key, retries):
    return anthropic.Anthropic(base_url=URL, api_key=key, max_retries=retries)


def bedrock_client(key, retries):
    return anthropic.AnthropicBedrock(base_url=URL, api_key=key, aws_region="us-east-1", max_retries=retries)


def signing_bedrock_client(key, retries):
    return anthropic.AnthropicBedrock(
        base_url=URL,
        aws_access_key="unused",
        aws_secret_key="unused",
        aws_session_token=key,
        aws_region="us-east-1",
        max_retries=retries,
    )


def mantle_client(key, retries):
    return anthropic.AnthropicBedrockMantle(
        base_url=f"{URL}/anthropic", api_key=key, aws_region="us-east-1", max_retries=retries
    )


NO_MODELS = {"models": "the client has no such call"}
NO_COUNT = {"count": "the client does not support counting tokens on Bedrock"}

clients = [
    ("anthropic python", anthropic_client, CLAUDE, {}),
    ("AnthropicBedrock python", bedrock_client, CLAUDE_ON_BEDROCK, NO_MODELS | NO_COUNT),
    ("AnthropicBedrock python, SigV4", signing_bedrock_client, CLAUDE_ON_BEDROCK, NO_MODELS | NO_COUNT),
    ("AnthropicBedrockMantle python", mantle_client, "anthropic.claude-sonnet-4-5-20250929-v1:0", NO_MODELS),
]
run(
    *(
        Row(name, "Anthropic", Messages(connect, model).cells, not_applicable)
        for name, connect, model, not_applicable in clients
    )
)
