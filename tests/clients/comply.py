"""Runs the suites of llm-comply, which check responses against the published schemas of three APIs.

    python comply.py target/debug/spillway

Exactly the checks in `UNSUPPORTED` must fail. The exit code is 1 otherwise.
"""

import json
import pathlib
import subprocess
import sys

import server

# The model of each suite. Its name decides which checks the suite skips. Claude's responses pass
# through the broker unchanged, so the suite for messages uses a model behind Converse.
SUITES = {"openai-chat": "gpt-5", "anthropic": "claude-sonnet-4-5-by-converse", "open-responses": "gpt-5"}
# Checks of features that the broker does not support, each with the reason.
UNSUPPORTED = {"assistant-phase": "Bedrock's models require that a user message comes first"}
TIMEOUT_S = 60
COMMAND = pathlib.Path(sys.executable).with_name("llm-comply")


def main(command: str) -> int:
    passed, failed = 0, 0
    with server.run_local(command) as printed:
        for suite, model in SUITES.items():
            for result in results(suite, model, printed["ready"], printed["key patient"]):
                is_supported = result["id"] not in UNSUPPORTED
                outcome, errors = result["status"], result.get("errors", [])
                if (outcome == "passed") == is_supported:
                    passed += 1
                    print(f"ok   {suite}, {result['id']}{'' if is_supported else ': ' + UNSUPPORTED[result['id']]}")
                else:
                    failed += 1
                    print(f"FAIL {suite}, {result['id']} {outcome}: {'; '.join(errors)}")
                for warning in result.get("warnings", []):
                    print(f"     {warning}")
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


def results(suite: str, model: str, url: str, key: str) -> list[dict]:
    arguments = ["--base-url", f"{url}/v1", "--api-key", key, "--model", model, "--format", suite, "--json"]
    process = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    return json.loads(process.stdout)["results"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
