"""Claude Code in headless mode, with the Anthropic API and with the Bedrock API."""

from commands import *

COMMAND = BINARIES / "@anthropic-ai" / "claude-code-linux-x64" / "claude"
OFFLINE = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}


class ClaudeCode:
    """The cells of a mode. `variables` makes the environment variables for a key."""

    def __init__(self, variables, model):
        self.variables = variables
        self.model = model
        self.sandbox = Sandbox()

    def ask(self, prompt=PROMPT, key=KEY, model=None, **variables):
        """Runs the command and returns its events."""
        arguments = ["-p", prompt, "--model", model or self.model, "--verbose", "--output-format", "stream-json"]
        variables = OFFLINE | self.variables(key) | variables
        return json_lines(self.sandbox.run([COMMAND, *arguments, "--include-partial-messages"], variables).stdout)

    def result(self, **options):
        result = self.ask(**options)[-1]
        assert_equal((result["type"], result["is_error"]), ("result", False))
        return result

    def plain(self):
        result = self.result()
        assert result["result"] and result["usage"]["output_tokens"] > 0, result

    def stream(self):
        *events, result = self.ask()
        deltas = [event["event"].get("delta", {}) for event in events if event["type"] == "stream_event"]
        assert_equal("".join(delta.get("text", "") for delta in deltas), result["result"])

    def tools(self):
        self.check_read(self.sandbox.text, TOOL_RESULT)

    def image(self):
        self.check_read(self.sandbox.image, '"image"')

    def check_read(self, file, expected):
        *events, result = self.ask(f'[[tool=Read {{"file_path": "{file}"}}]] What is in it?')
        results = [event["message"]["content"] for event in events if event["type"] == "user"]
        assert expected in json.dumps(results), results
        assert_equal((result["is_error"], result["num_turns"]), (False, 2))

    def error(self):
        result = self.ask(model=UNKNOWN_MODEL)[-1]
        assert_equal((result["is_error"], result["api_error_status"]), (True, 404))

    def retry(self, key):
        exhaust(key)
        self.result(key=key)

    def thinking(self):
        *events, result = self.ask(MAX_THINKING_TOKENS="1024")
        blocks = [block for event in events if event["type"] == "assistant" for block in event["message"]["content"]]
        assert_equal([block["type"] for block in blocks], ["thinking", "text"])
        assert_equal(result["is_error"], False)

    def cache(self):
        usage = self.result()["usage"]
        cached = usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"]
        assert cached > 1_000, usage

    def cells(self, impatient_key):
        names = "plain stream tools image error thinking cache".split()
        return {name: getattr(self, name) for name in names} | {"retry": lambda: self.retry(impatient_key)}


def anthropic_variables(key):
    return {"ANTHROPIC_BASE_URL": URL, "ANTHROPIC_API_KEY": key}


def bedrock_variables(key):
    return {
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "ANTHROPIC_BEDROCK_BASE_URL": URL,
        "AWS_BEARER_TOKEN_BEDROCK": key,
        "AWS_REGION": "us-east-1",
    }


NOT_APPLICABLE = {
    "schema": "the command has no such option",
    "models": "the command does not list models",
    "count": "the command counts tokens only in its interactive mode",
}
run(
    Row("Claude Code", "Anthropic", ClaudeCode(anthropic_variables, CLAUDE).cells, NOT_APPLICABLE),
    Row("Claude Code, Bedrock", "Anthropic", ClaudeCode(bedrock_variables, CLAUDE_ON_BEDROCK).cells, NOT_APPLICABLE),
)
