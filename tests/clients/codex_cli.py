"""Codex in headless mode. It uses only the Responses API, always streamed."""

from commands import *

COMMAND = BINARIES / ".bin" / "codex"
SETTINGS = f"""
model = "{GPT}"
model_provider = "spillway"
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.spillway]
name = "Spillway"
base_url = "{URL}/v1"
env_key = "SPILLWAY_KEY"
wire_api = "responses"
"""

sandbox = Sandbox()
(sandbox.home / ".codex").mkdir()
(sandbox.home / ".codex" / "config.toml").write_text(SETTINGS)
schema = sandbox.home / "river.json"
schema.write_text(json.dumps(RIVER_SCHEMA))


def ask(*options, prompt=PROMPT, key=KEY):
    """Runs the command and returns its events."""
    # The sandbox for the client's tools requires privileges that a container lacks.
    unsandboxed = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    command = [COMMAND, "exec", "--json", *unsandboxed, prompt, *options]
    return json_lines(sandbox.run(command, {"SPILLWAY_KEY": key}).stdout)


def parse_completed(events):
    """Returns the final message, the items before it, and the usage. Requires a successful run."""
    assert_equal(events[-1]["type"], "turn.completed")
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    assert_equal(items[-1]["type"], "agent_message")
    return items[-1]["text"], items[:-1], events[-1]["usage"]


def respond():
    text, _, usage = parse_completed(ask())
    assert text and usage["input_tokens"] > 0 and usage["output_tokens"] > 0, usage


def r_tools():
    call = json.dumps({"cmd": f"cat {sandbox.text}"})
    _, items, _ = parse_completed(ask(prompt=f"[[tool=exec_command {call}]] How long is the Elbe?"))
    outputs = [item["aggregated_output"] for item in items if item["type"] == "command_execution"]
    assert outputs and TOOL_RESULT in outputs[0], items


def r_schema():
    text, _, _ = parse_completed(ask("--output-schema", schema))
    assert_equal(sorted(json.loads(text)), ["length_km", "river"])


def image():
    _, _, usage = parse_completed(ask("--image", sandbox.image))
    assert usage["input_tokens"] > parse_completed(ask())[2]["input_tokens"], "the image costs nothing"


def error():
    events = ask("--model", UNKNOWN_MODEL)
    assert_equal(events[-1]["type"], "turn.failed")
    assert UNKNOWN_MODEL in events[-1]["error"]["message"], events[-1]


def cells(impatient_key):
    def retry():
        exhaust(impatient_key)
        parse_completed(ask(key=impatient_key))

    return {
        "respond": respond,
        "r_tools": r_tools,
        "r_schema": r_schema,
        "image": image,
        "error": error,
        "retry": retry,
    }


ONLY_RESPONSES = "Codex uses only the Responses API"
NOT_APPLICABLE = {column: ONLY_RESPONSES for column in ("plain", "stream", "tools", "schema", "embed")}
NOT_APPLICABLE |= {"models": "Codex does not list models", "r_stream": "Codex always streams: see respond"}
run(Row("Codex", "OpenAI", cells, NOT_APPLICABLE))
