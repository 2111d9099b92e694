"""LiteLLM, with its providers for Bedrock, for OpenAI-compatible servers, and for Anthropic."""

import os
import uuid

# Keeps LiteLLM from fetching these files from the internet.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"

import litellm

from cells import *

litellm.suppress_debug_info = True
TOOL = {"type": "function", "function": {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "parameters": TOOL_SCHEMA}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "river", "schema": RIVER_SCHEMA, "strict": True}}


class Completion:
    """The cells of a provider. `auth` makes the arguments for the server's address and a key."""

    def __init__(self, prefix, model, auth, embedding=None):
        self.prefix = prefix
        self.model = model
        self.auth = auth
        self.embedding = embedding

    def ask(self, content=PROMPT, key=KEY, model=None, retries=0, **fields):
        request = {"messages": [{"role": "user", "content": content}], "max_tokens": MAX_TOKENS, **fields}
        model = f"{self.prefix}/{model or self.model}"
        return litellm.completion(model=model, num_retries=retries, max_retries=0, **self.auth(key), **request)

    def plain(self):
        response = self.ask()
        assert response.choices[0].message.content, response
        assert response.usage.prompt_tokens > 0 and 0 < response.usage.completion_tokens <= MAX_TOKENS, response.usage

    def stream(self):
        unstreamed = self.ask()
        chunks = list(self.ask(stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert_equal(text, unstreamed.choices[0].message.content)
        assert_equal(chunks[-1].usage.completion_tokens, unstreamed.usage.completion_tokens)

    def tools(self):
        first = self.ask(TOOL_PROMPT, tools=[TOOL]).choices[0]
        assert_equal(first.finish_reason, "tool_calls")
        call = first.message.tool_calls[0]
        assert_equal((call.function.name, json.loads(call.function.arguments)), (TOOL_NAME, TOOL_INPUT))
        result = {"role": "tool", "tool_call_id": call.id, "content": TOOL_RESULT}
        messages = [{"role": "user", "content": TOOL_PROMPT}, first.message, result]
        assert_equal(self.ask(messages=messages, tools=[TOOL]).choices[0].finish_reason, "stop")
        chunks = list(self.ask(TOOL_PROMPT, tools=[TOOL], stream=True))
        streamed = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls[0]
        assert_equal(json.loads(streamed.function.arguments), TOOL_INPUT)

    def image(self):
        url = {"url": f"data:image/png;base64,{PNG_BASE64}"}
        response = self.ask([{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": url}])
        assert response.usage.prompt_tokens > self.ask().usage.prompt_tokens, "the image costs nothing"

    def error(self):
        raises(litellm.NotFoundError, lambda: self.ask(model="anthropic.claude-none"))
        raises(litellm.BadRequestError, lambda: self.ask(temperature=7))
        kinds = (litellm.AuthenticationError, litellm.PermissionDeniedError)
        raises(kinds, lambda: self.ask(key=UNKNOWN_KEY))

    def retry(self, key):
        call_until_refused(litellm.RateLimitError, lambda: self.ask(key=key))
        response = self.ask(key=key, retries=5, retry_strategy="exponential_backoff_retry")
        assert response.choices[0].message.content

    def schema(self):
        # For some providers, the client turns the schema into a tool that the model must call.
        prompt = '[[tool=json_tool_call {"river": "Elbe", "length_km": 1094}]] How long is it?'
        text = self.ask(prompt, response_format=FORMAT).choices[0].message.content
        assert_equal(sorted(json.loads(text)), ["length_km", "river"])

    def thinking(self):
        thinking = {"type": "enabled", "budget_tokens": 1_024}
        message = self.ask(thinking=thinking, max_tokens=2_048).choices[0].message
        assert message.reasoning_content and message.content, message

    def cache(self):
        text = f"{uuid.uuid4()} {LONG_TEXT}"
        content = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
        messages = [{"role": "system", "content": content}, {"role": "user", "content": PROMPT}]
        self.ask(messages=messages)
        usage = self.ask(messages=messages).usage
        assert usage.prompt_tokens_details.cached_tokens > 1_000, "the cache was not read"

    def embed(self):
        response = litellm.embedding(model=self.embedding, input=["a river", "a hill"], **self.auth(KEY))
        assert_equal(len(response.data), 2)

    def cells(self, impatient_key):
        names = "plain stream tools image error schema thinking cache embed".split()
        return {name: getattr(self, name) for name in names} | {"retry": lambda: self.retry(impatient_key)}


def bearer_arguments(key):
    return {"api_key": key, "aws_bedrock_runtime_endpoint": URL, "aws_region_name": "us-east-1"}


def signing_arguments(key):
    return {
        "aws_access_key_id": "unused",
        "aws_secret_access_key": "unused",
        "aws_session_token": key,
        "aws_bedrock_runtime_endpoint": URL,
        "aws_region_name": "us-east-1",
    }


def openai_arguments(key):
    return {"api_key": key, "api_base": f"{URL}/v1"}


def anthropic_arguments(key):
    return {"api_key": key, "api_base": URL}


def not_applicable(columns, reason):
    return {column: reason for column in columns.split()}


NO_BEDROCK_CALLS = not_applicable("count guardrail", "the client has no such call for this provider")
NO_RESPONSES = not_applicable(
    "respond r_stream r_tools r_schema", "the client converts responses to chat completions"
)
converse = Completion("bedrock/converse", CLAUDE_ON_BEDROCK, bearer_arguments, f"bedrock/{TITAN}")
invoke = Completion("bedrock/invoke", CLAUDE_ON_BEDROCK, signing_arguments, f"bedrock/{COHERE}")
compatible = Completion("openai", GPT, openai_arguments, "openai/text-embedding-3-small")
messages = Completion("anthropic", CLAUDE, anthropic_arguments)
run(
    Row(
        "LiteLLM bedrock/converse",
        "Bedrock",
        converse.cells,
        NO_BEDROCK_CALLS | not_applicable("invoke i_stream", "the provider uses Converse"),
    ),
    Row(
        "LiteLLM bedrock/invoke",
        "Bedrock",
        invoke.cells,
        NO_BEDROCK_CALLS | {"invoke": "see plain", "i_stream": "see stream"},
    ),
    Row(
        "LiteLLM openai",
        "OpenAI",
        compatible.cells,
        NO_RESPONSES | not_applicable("models thinking cache", "the provider has no such feature"),
    ),
    Row(
        "LiteLLM anthropic",
        "Anthropic",
        messages.cells,
        not_applicable("models count embed", "the provider has no such feature"),
    ),
)
