"""LiteLLM as a client: of Bedrock by Converse and by InvokeModel, of an OpenAI-compatible server, and of Anthropic."""

import os
import uuid

# Otherwise it fetches these from the internet.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"

import litellm

from cells import *

litellm.suppress_debug_info = True
TOOL = {"type": "function", "function": {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "parameters": TOOL_SCHEMA}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "river", "schema": RIVER_SCHEMA, "strict": True}}


class Completion:
    """The cells of one provider; `auth` is how it is told where the server is and who calls."""

    def __init__(self, prefix, model, auth, embedding=None):
        self.prefix = prefix
        self.model = model
        self.auth = auth
        self.embedding = embedding

    def ask(self, content=PROMPT, key=KEY, model=None, retries=0, **more):
        request = {"messages": [{"role": "user", "content": content}], "max_tokens": MAX_TOKENS, **more}
        model = f"{self.prefix}/{model or self.model}"
        return litellm.completion(model=model, num_retries=retries, max_retries=0, **self.auth(key), **request)

    def plain(self):
        answer = self.ask()
        assert answer.choices[0].message.content, answer
        assert answer.usage.prompt_tokens > 0 and 0 < answer.usage.completion_tokens <= MAX_TOKENS, answer.usage

    def stream(self):
        whole = self.ask()
        chunks = list(self.ask(stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        same(text, whole.choices[0].message.content)
        same(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)

    def tools(self):
        first = self.ask(TOOL_PROMPT, tools=[TOOL]).choices[0]
        same(first.finish_reason, "tool_calls")
        call = first.message.tool_calls[0]
        same((call.function.name, json.loads(call.function.arguments)), (TOOL_NAME, TOOL_INPUT))
        result = {"role": "tool", "tool_call_id": call.id, "content": TOOL_RESULT}
        turns = [{"role": "user", "content": TOOL_PROMPT}, first.message, result]
        same(self.ask(messages=turns, tools=[TOOL]).choices[0].finish_reason, "stop")
        chunks = list(self.ask(TOOL_PROMPT, tools=[TOOL], stream=True))
        streamed = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls[0]
        same(json.loads(streamed.function.arguments), TOOL_INPUT)

    def image(self):
        url = {"url": f"data:image/png;base64,{PNG_BASE64}"}
        answer = self.ask([{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": url}])
        assert answer.usage.prompt_tokens > self.ask().usage.prompt_tokens, "the image costs nothing"

    def error(self):
        raises(litellm.NotFoundError, lambda: self.ask(model="anthropic.claude-none"))
        raises(litellm.BadRequestError, lambda: self.ask(temperature=7))
        kinds = (litellm.AuthenticationError, litellm.PermissionDeniedError)
        raises(kinds, lambda: self.ask(key=UNKNOWN_KEY))

    def retry(self, key):
        refused(litellm.RateLimitError, lambda: self.ask(key=key))
        answer = self.ask(key=key, retries=5, retry_strategy="exponential_backoff_retry")
        assert answer.choices[0].message.content

    def schema(self):
        # For some providers the client makes a tool of the schema, which it tells the model to call.
        prompt = '[[tool=json_tool_call {"river": "Elbe", "length_km": 1094}]] How long is it?'
        text = self.ask(prompt, response_format=FORMAT).choices[0].message.content
        same(sorted(json.loads(text)), ["length_km", "river"])

    def thinking(self):
        told = {"type": "enabled", "budget_tokens": 1_024}
        message = self.ask(thinking=told, max_tokens=2_048).choices[0].message
        assert message.reasoning_content and message.content, message

    def cache(self):
        text = f"{uuid.uuid4()} {LONG_TEXT}"
        marked = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
        turns = [{"role": "system", "content": marked}, {"role": "user", "content": PROMPT}]
        self.ask(messages=turns)
        assert self.ask(messages=turns).usage.prompt_tokens_details.cached_tokens > 1_000, "nothing was read"

    def embed(self):
        answer = litellm.embedding(model=self.embedding, input=["a river", "a hill"], **self.auth(KEY))
        same(len(answer.data), 2)

    def cells(self, impatient_key):
        names = "plain stream tools image error schema thinking cache embed".split()
        return {name: getattr(self, name) for name in names} | {"retry": lambda: self.retry(impatient_key)}


def bearer(key):
    return {"api_key": key, "aws_bedrock_runtime_endpoint": URL, "aws_region_name": "us-east-1"}


def signed(key):
    return {
        "aws_access_key_id": "unused",
        "aws_secret_access_key": "unused",
        "aws_session_token": key,
        "aws_bedrock_runtime_endpoint": URL,
        "aws_region_name": "us-east-1",
    }


def openai(key):
    return {"api_key": key, "api_base": f"{URL}/v1"}


def anthropic(key):
    return {"api_key": key, "api_base": URL}


def no(columns, reason):
    return {column: reason for column in columns.split()}


BEDROCK = no("count guardrail", "the client has no such call for this provider")
NO_RESPONSES = no("respond r_stream r_tools r_schema", "the client turns it into chat completions")
converse = Completion("bedrock/converse", CLAUDE_ON_BEDROCK, bearer, f"bedrock/{TITAN}")
invoke = Completion("bedrock/invoke", CLAUDE_ON_BEDROCK, signed, f"bedrock/{COHERE}")
compatible = Completion("openai", GPT, openai, "openai/text-embedding-3-small")
messages = Completion("anthropic", CLAUDE, anthropic)
run(
    Row("LiteLLM bedrock/converse", "Bedrock", converse.cells, BEDROCK | no("invoke i_stream", "the provider converses")),
    Row("LiteLLM bedrock/invoke", "Bedrock", invoke.cells, BEDROCK | {"invoke": "see plain", "i_stream": "see stream"}),
    Row(
        "LiteLLM openai",
        "OpenAI",
        compatible.cells,
        NO_RESPONSES | no("models thinking cache", "the provider has no such thing"),
    ),
    Row(
        "LiteLLM anthropic",
        "Anthropic",
        messages.cells,
        no("models count embed", "the provider has no such thing"),
    ),
)
