"""Compares the bodies that Spillway sends with those that LiteLLM makes of the same requests: chat completions as Converse,
Anthropic's messages as InvokeModel.

    python compare_litellm.py target/debug/spillway

Both call one recorder in the place of Bedrock Runtime. Every difference must be in `litellm_differences.py`, with the
reason, and everything that is there must occur. The exit code is 1 otherwise.
"""

import asyncio
import http.server
import json
import os
import sys
import threading
import urllib.error
import urllib.request

import server
from litellm_differences import DIFFERENCES
from litellm_requests import CHATS, MESSAGES

# Otherwise it fetches these from the internet.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"

import litellm
import openai

litellm.suppress_debug_info = True

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": "The Elbe."}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 9, "outputTokens": 3, "totalTokens": 12},
    "metrics": {"latencyMs": 1},
}
INVOKED = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [{"type": "text", "text": "The Elbe."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 9, "output_tokens": 3},
}


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers every call of an operation alike, and keeps its body."""

    bodies = []

    def do_POST(self):
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        answer = json.dumps(INVOKED if self.path.endswith("/invoke") else CONVERSED).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def main(command: str) -> int:
    recorder = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=recorder.serve_forever, daemon=True).start()
    bedrock = f"http://127.0.0.1:{recorder.server_port}"
    failed, compared = 0, 0
    # One process has the registry, the other asks the recorder instead of the simulator.
    with server.started(command) as local:
        variables = os.environ | {name: value for name, value in local.items() if name.isupper()}
        variables["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] = bedrock
        with server.running([command, "serve", "--port", "0"], variables) as told:
            ours = caller(told["ready"], local["key patient"])
            for route, theirs, requests in (
                ("/v1/chat/completions", completion(bedrock), CHATS),
                ("/v1/messages", anthropic_message(bedrock), MESSAGES),
            ):
                for name, request in requests.items():
                    compared += 1
                    failed += compare(name, of(ours, route, request), of(theirs, route, request))
    print(f"{compared - failed} passed, {failed} failed")
    return int(failed > 0)


def caller(url: str, key: str):
    def call(route, request):
        body = json.dumps({"model": MODEL, **request}).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url + route, data=body, headers=headers)) as answer:
            answer.read()

    return call


def completion(bedrock: str):
    return lambda _, request: litellm.completion(model=f"bedrock/converse/{MODEL}", **there(bedrock), **request)


def anthropic_message(bedrock: str):
    def call(_, request):
        # LiteLLM's synchronous call cannot invoke.
        told = litellm.anthropic.messages.acreate(model=f"bedrock/invoke/{MODEL}", **there(bedrock), **request)
        asyncio.run(told)

    return call


def there(bedrock: str) -> dict:
    return {"aws_bedrock_runtime_endpoint": bedrock, "aws_region_name": "us-east-1", "api_key": "unused"}


def of(call, route: str, request: dict) -> dict:
    """The body that a call makes, or its complaint where it makes none."""
    Recorder.bodies.clear()
    try:
        call(route, json.loads(json.dumps(request)))
    except urllib.error.HTTPError as error:
        return {"refused": error.read().decode()}
    except openai.OpenAIError as error:  # What all of LiteLLM's errors are.
        return {"refused": str(error)}
    return Recorder.bodies[-1]


def compare(name: str, ours: dict, theirs: dict) -> int:
    """Prints the differences of one request; 1 if they are not those that are argued for."""
    # Every Converse call carries the tenant and the request id into Bedrock's invocation log.
    ours.pop("requestMetadata", None)
    ours, theirs = dict(leaves(ours)), dict(leaves(theirs))
    argued = DIFFERENCES.get(name, {})
    found = {path for path in ours | theirs if ours.get(path) != theirs.get(path)}
    unargued = sorted(found - argued.keys())
    unfounded = sorted(argued.keys() - found)
    for path in sorted(found & argued.keys()):
        print(f"     {name}: {path}: {argued[path]}")
    for path in unargued:
        print(f"FAIL {name}: {path}: ours {ours.get(path)!r}, theirs {theirs.get(path)!r}")
    for path in unfounded:
        print(f"FAIL {name}: {path}: does not differ")
    if not unargued and not unfounded:
        print(f"ok   {name}")
    return int(bool(unargued or unfounded))


def leaves(value, path=""):
    """Every scalar and every empty container of a JSON value, by its path."""
    if isinstance(value, dict) and value:
        for name, member in value.items():
            yield from leaves(member, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list) and value:
        for index, element in enumerate(value):
            yield from leaves(element, f"{path}[{index}]")
    elif path.endswith(".schema") and isinstance(value, str):
        yield from leaves(json.loads(value), path)
    else:
        yield path, value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
