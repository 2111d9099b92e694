"""Runs the suites of llm-comply, which check answers against the published schemas of three APIs.

    python comply.py target/debug/spillway

A check that fails must be in `LEFT_OUT`, with the reason, and what is there must fail. The exit code is 1 otherwise.
"""

import json
import pathlib
import subprocess
import sys

import server

# By suite, the model: its name decides which checks the suite skips. Claude answers messages itself, so the broker's own
# are those of a model that is reached through Converse.
SUITES = {"openai-chat": "gpt-5", "anthropic": "claude-sonnet-4-5-by-converse", "open-responses": "gpt-5"}
# Checks of what the broker leaves out on purpose.
LEFT_OUT = {"assistant-phase": "Bedrock's models want a message of the user first"}
TIMEOUT_S = 60
COMMAND = pathlib.Path(sys.executable).with_name("llm-comply")


def main(command: str) -> int:
    passed, failed = 0, 0
    with server.started(command) as told:
        for suite, model in SUITES.items():
            for result in results(suite, model, told["ready"], told["key patient"]):
                expected = result["id"] not in LEFT_OUT
                outcome, complaints = result["status"], result.get("errors", [])
                if (outcome == "passed") == expected:
                    passed += 1
                    print(f"ok   {suite}, {result['id']}{'' if expected else ': ' + LEFT_OUT[result['id']]}")
                else:
                    failed += 1
                    print(f"FAIL {suite}, {result['id']} {outcome}: {'; '.join(complaints)}")
                for warning in result.get("warnings", []):
                    print(f"     {warning}")
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


def results(suite: str, model: str, url: str, key: str) -> list[dict]:
    arguments = ["--base-url", f"{url}/v1", "--api-key", key, "--model", model, "--format", suite, "--json"]
    ended = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    return json.loads(ended.stdout)["results"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
