"""Claude Code, headless: with Anthropic's API, and with Bedrock's."""

from commands import *

COMMAND = BINARIES / "@anthropic-ai" / "claude-code-linux-x64" / "claude"
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}


class ClaudeCode:
    """The cells of one mode; `variables` says with which key to call what."""

    def __init__(self, variables, model):
        self.variables = variables
        self.model = model
        self.sandbox = Sandbox()

    def ask(self, prompt=PROMPT, key=KEY, model=None, **variables):
        """All events of one run."""
        arguments = ["-p", prompt, "--model", model or self.model, "--verbose", "--output-format", "stream-json"]
        variables = QUIET | self.variables(key) | variables
        return json_lines(self.sandbox.run([COMMAND, *arguments, "--include-partial-messages"], variables).stdout)

    def result(self, *arguments, **more):
        result = self.ask(*arguments, **more)[-1]
        same((result["type"], result["is_error"]), ("result", False))
        return result

    def plain(self):
        result = self.result()
        assert result["result"] and result["usage"]["output_tokens"] > 0, result

    def stream(self):
        *events, result = self.ask()
        deltas = [event["event"].get("delta", {}) for event in events if event["type"] == "stream_event"]
        same("".join(delta.get("text", "") for delta in deltas), result["result"])

    def tools(self):
        self.reads(self.sandbox.text, TOOL_RESULT)

    def image(self):
        self.reads(self.sandbox.image, '"image"')

    def reads(self, file, wanted):
        *events, result = self.ask(f'[[tool=Read {{"file_path": "{file}"}}]] What is in it?')
        results = [event["message"]["content"] for event in events if event["type"] == "user"]
        assert wanted in json.dumps(results), results
        same((result["is_error"], result["num_turns"]), (False, 2))

    def error(self):
        result = self.ask(model=NO_MODEL)[-1]
        same((result["is_error"], result["api_error_status"]), (True, 404))

    def retry(self, key):
        exhaust(key)
        self.result(key=key)

    def thinking(self):
        *events, result = self.ask(MAX_THINKING_TOKENS="1024")
        blocks = [block for event in events if event["type"] == "assistant" for block in event["message"]["content"]]
        same([block["type"] for block in blocks], ["thinking", "text"])
        same(result["is_error"], False)

    def cache(self):
        usage = self.result()["usage"]
        cached = usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"]
        assert cached > 1_000, usage

    def cells(self, impatient_key):
        names = "plain stream tools image error thinking cache".split()
        return {name: getattr(self, name) for name in names} | {"retry": lambda: self.retry(impatient_key)}


def of_anthropic(key):
    return {"ANTHROPIC_BASE_URL": URL, "ANTHROPIC_API_KEY": key}


def of_bedrock(key):
    return {
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "ANTHROPIC_BEDROCK_BASE_URL": URL,
        "AWS_BEARER_TOKEN_BEDROCK": key,
        "AWS_REGION": "us-east-1",
    }


WITHOUT = {
    "schema": "the command has no such option",
    "models": "the command asks for no list of models",
    "count": "the command counts tokens only in its interactive mode",
}
run(
    Row("Claude Code", "Anthropic", ClaudeCode(of_anthropic, CLAUDE).cells, WITHOUT),
    Row("Claude Code, Bedrock", "Anthropic", ClaudeCode(of_bedrock, CLAUDE_ON_BEDROCK).cells, WITHOUT),
)
