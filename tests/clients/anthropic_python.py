"""The Anthropic SDK for Python: its own API, Bedrock's InvokeModel, and Bedrock's Mantle."""

import uuid

import anthropic

from cells import *

TOOL = {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "input_schema": TOOL_SCHEMA}


class Messages:
    """The cells of a client that `connect` makes; it takes a key and how often to retry."""

    def __init__(self, connect, model):
        self.connect = connect
        self.model = model
        self.client = connect(KEY, 0)

    def request(self, content=PROMPT, **more):
        messages = [{"role": "user", "content": content}]
        return {"model": self.model, "max_tokens": MAX_TOKENS, "messages": messages, **more}

    def ask(self, content=PROMPT, **more):
        return self.client.messages.create(**self.request(content, **more))

    def plain(self):
        answer = self.ask()
        assert answer.content[0].text, "the answer is empty"
        assert answer.stop_reason in ("end_turn", "max_tokens"), answer.stop_reason
        assert answer.usage.input_tokens > 0 and 0 < answer.usage.output_tokens <= MAX_TOKENS, answer.usage

    def stream(self):
        whole = self.ask()
        with self.client.messages.stream(**self.request()) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        same(text, whole.content[0].text)
        same(final.usage.output_tokens, whole.usage.output_tokens)

    def tools(self):
        first = self.ask(TOOL_PROMPT, tools=[TOOL])
        same(first.stop_reason, "tool_use")
        call = first.content[-1]
        same((call.name, call.input), (TOOL_NAME, TOOL_INPUT))
        result = {"type": "tool_result", "tool_use_id": call.id, "content": TOOL_RESULT}
        question = {"role": "user", "content": TOOL_PROMPT}
        answered = {"role": "assistant", "content": first.content}
        last = self.ask(tools=[TOOL], messages=[question, answered, {"role": "user", "content": [result]}])
        assert last.stop_reason == "end_turn" and last.content[0].text, last
        with self.client.messages.stream(**self.request(TOOL_PROMPT, tools=[TOOL])) as stream:
            same(stream.get_final_message().content[-1].input, TOOL_INPUT)

    def image(self):
        source = {"type": "base64", "media_type": "image/png", "data": PNG_BASE64}
        answer = self.ask([{"type": "text", "text": PROMPT}, {"type": "image", "source": source}])
        assert answer.usage.input_tokens > self.ask().usage.input_tokens, "the image costs nothing"

    def error(self):
        assert NO_MODEL in str(raises(anthropic.NotFoundError, lambda: self.ask(model=NO_MODEL)))
        robot = [{"role": "robot", "content": PROMPT}]
        raises(anthropic.BadRequestError, lambda: self.ask(messages=robot))
        stranger = self.connect(UNKNOWN_KEY, 0)
        kinds = (anthropic.AuthenticationError, anthropic.PermissionDeniedError)
        error = raises(kinds, lambda: stranger.messages.create(**self.request()))
        assert UNKNOWN_KEY not in str(error), "the error repeats the key"

    def retry(self, key):
        def is_retried():
            hasty = self.connect(key, 0)
            error = refused(anthropic.RateLimitError, lambda: hasty.messages.create(**self.request()))
            assert float(error.response.headers["retry-after"]) > 0
            answer = self.connect(key, 5).messages.with_raw_response.create(**self.request())
            assert answer.parse().content[0].text
            return answer.retries_taken > 0

        soon(is_retried)

    def schema(self):
        answer = self.ask(output_config={"format": {"type": "json_schema", "schema": RIVER_SCHEMA}})
        river = json.loads(answer.content[0].text)
        same(sorted(river), ["length_km", "river"])

    def models(self):
        assert self.model in [model.id for model in self.client.models.list()]

    def count(self):
        counted = self.client.messages.count_tokens(model=self.model, messages=self.request()["messages"])
        same(counted.input_tokens, self.ask().usage.input_tokens)

    def thinking(self):
        more = {"max_tokens": 2_048, "thinking": {"type": "enabled", "budget_tokens": 1_024}}
        answer = self.ask(**more)
        same([block.type for block in answer.content], ["thinking", "text"])
        assert answer.content[0].thinking and answer.content[0].signature, answer.content[0]
        with self.client.messages.stream(**self.request(**more)) as stream:
            streamed = stream.get_final_message().content
        same([block.type for block in streamed], ["thinking", "text"])
        same((streamed[0].thinking, streamed[0].signature), (answer.content[0].thinking, answer.content[0].signature))
        question, follow_up = self.request()["messages"][0], {"role": "user", "content": "And another?"}
        self.ask(messages=[question, {"role": "assistant", "content": answer.content}, follow_up], **more)

    def cache(self):
        system = [{"type": "text", "text": f"{uuid.uuid4()} {LONG_TEXT}", "cache_control": {"type": "ephemeral"}}]
        written = self.ask(system=system).usage
        read = self.ask(system=system).usage
        assert written.cache_creation_input_tokens > 1_000, written
        same(read.cache_read_input_tokens, written.cache_creation_input_tokens)

    def cells(self, impatient_key):
        names = "plain stream tools image error schema models count thinking cache".split()
        return {name: getattr(self, name) for name in names} | {"retry": lambda: self.retry(impatient_key)}


def of_anthropic(key, retries):
    return anthropic.Anthropic(base_url=URL, api_key=key, max_retries=retries)


def of_bedrock(key, retries):
    return anthropic.AnthropicBedrock(base_url=URL, api_key=key, aws_region="us-east-1", max_retries=retries)


def signed_bedrock(key, retries):
    return anthropic.AnthropicBedrock(
        base_url=URL,
        aws_access_key="unused",
        aws_secret_key="unused",
        aws_session_token=key,
        aws_region="us-east-1",
        max_retries=retries,
    )


def of_mantle(key, retries):
    return anthropic.AnthropicBedrockMantle(
        base_url=f"{URL}/anthropic", api_key=key, aws_region="us-east-1", max_retries=retries
    )


NO_MODELS = "the client has no such call"
NO_COUNT = "the client refuses to count tokens on Bedrock"

clients = [
    ("anthropic python", of_anthropic, CLAUDE, {}),
    ("AnthropicBedrock python", of_bedrock, CLAUDE_ON_BEDROCK, {"models": NO_MODELS, "count": NO_COUNT}),
    ("AnthropicBedrock python, SigV4", signed_bedrock, CLAUDE_ON_BEDROCK, {"models": NO_MODELS, "count": NO_COUNT}),
    ("AnthropicBedrockMantle python", of_mantle, "anthropic.claude-sonnet-4-5-20250929-v1:0", {"models": NO_MODELS}),
]
run(*(Row(name, "Anthropic", Messages(connect, model).cells, without) for name, connect, model, without in clients))
