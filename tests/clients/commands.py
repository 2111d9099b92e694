"""Runs command-line clients in separate home directories, with no settings but the server's."""

import base64
import os
import pathlib
import subprocess
import tempfile
import urllib.error
import urllib.request

from cells import *

BINARIES = pathlib.Path(__file__).parent / "node_modules"
COMMAND_TIMEOUT_S = 50


class Sandbox:
    """A home directory with a text file and an image."""

    def __init__(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="spillway-client-"))
        self.text = self.home / "elbe.txt"
        self.text.write_text(f"The Elbe is {TOOL_RESULT} long.\n")
        self.image = self.home / "dot.png"
        self.image.write_bytes(base64.b64decode(PNG_BASE64))

    def run(self, command: list, variables: dict[str, str]) -> subprocess.CompletedProcess:
        """Runs a command and returns its result. The caller checks the exit code."""
        variables = {"PATH": os.environ["PATH"], "HOME": str(self.home), "NO_PROXY": "127.0.0.1", **variables}
        return subprocess.run(
            [str(part) for part in command],
            cwd=self.home,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )


def json_lines(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def exhaust(key: str):
    """Exhausts the limit of an impatient tenant, so that its next request is refused."""
    body = json.dumps({"model": GPT, "messages": [{"role": "user", "content": PROMPT}]}).encode()
    headers = {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{URL}/v1/chat/completions", data=body, headers=headers)
    error = call_until_refused(urllib.error.HTTPError, lambda: urllib.request.urlopen(request).read())
    assert_equal(error.code, 429)
