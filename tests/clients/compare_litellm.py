"""Compares the bodies that Spillway and LiteLLM send to Bedrock for the same requests.

    python compare_litellm.py target/debug/spillway

Chat completions become Converse calls, and Anthropic's messages become InvokeModel calls. Both
programs call the same recorder instead of Bedrock Runtime. `litellm_differences.py` must list
exactly the differences. The exit code is 1 otherwise.
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

# Keeps LiteLLM from fetching these files from the internet.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"

import litellm
import openai

litellm.suppress_debug_info = True

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CONVERSE_RESPONSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "The Elbe."}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 9, "outputTokens": 3, "totalTokens": 12},
    "metrics": {"latencyMs": 1},
}
INVOKE_RESPONSE = {
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
    """Records request bodies, and returns the same response to every call of an operation."""

    bodies = []

    def do_POST(self):
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        response = json.dumps(INVOKE_RESPONSE if self.path.endswith("/invoke") else CONVERSE_RESPONSE).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(response)))
        self.end_headers()
        self.wfile.write(response)

    def log_message(self, *_):
        pass


def main(command: str) -> int:
    recorder = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=recorder.serve_forever, daemon=True).start()
    bedrock = f"http://127.0.0.1:{recorder.server_port}"
    failed, compared = 0, 0
    # `spillway local` provides the registry. `spillway serve` calls the recorder instead of the
    # simulator.
    with server.run_local(command) as local:
        variables = os.environ | {name: value for name, value in local.items() if name.isupper()}
        variables["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] = bedrock
        with server.run_server([command, "serve", "--port", "0"], variables) as printed:
            for route, call_litellm, requests in (
                ("/v1/chat/completions", litellm_completion(bedrock), CHATS),
                ("/v1/messages", litellm_message(bedrock), MESSAGES),
            ):
                call_spillway = spillway_request(printed["ready"] + route, local["key patient"])
                for name, request in requests.items():
                    compared += 1
                    failed += compare(name, sent_body(call_spillway, request), sent_body(call_litellm, request))
    print(f"{compared - failed} passed, {failed} failed")
    return int(failed > 0)


def spillway_request(url: str, key: str):
    def call(request):
        body = json.dumps({"model": MODEL, **request}).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers)) as response:
            response.read()

    return call


def litellm_completion(bedrock: str):
    return lambda request: litellm.completion(model=f"bedrock/converse/{MODEL}", **endpoint(bedrock), **request)


def litellm_message(bedrock: str):
    def call(request):
        # LiteLLM's synchronous call does not support InvokeModel.
        message = litellm.anthropic.messages.acreate(model=f"bedrock/invoke/{MODEL}", **endpoint(bedrock), **request)
        asyncio.run(message)

    return call


def endpoint(bedrock: str) -> dict:
    return {"aws_bedrock_runtime_endpoint": bedrock, "aws_region_name": "us-east-1", "api_key": "unused"}


def sent_body(call, request: dict) -> dict:
    """Returns the body that the call sends to Bedrock, or the error message if it sends none."""
    Recorder.bodies.clear()
    try:
        call(json.loads(json.dumps(request)))
    except urllib.error.HTTPError as error:
        return {"refused": error.read().decode()}
    except openai.OpenAIError as error:  # The base class of LiteLLM's errors.
        return {"refused": str(error)}
    return Recorder.bodies[-1]


def compare(name: str, spillway_body: dict, litellm_body: dict) -> int:
    """Prints the differences of a request. Returns 1 if they are not as expected, else 0."""
    # Every Converse call adds the tenant and the request id to Bedrock's invocation log.
    spillway_body.pop("requestMetadata", None)
    spillway_body, litellm_body = dict(leaves(spillway_body)), dict(leaves(litellm_body))
    expected = DIFFERENCES.get(name, {})
    found = {path for path in spillway_body | litellm_body if spillway_body.get(path) != litellm_body.get(path)}
    unexpected = sorted(found - expected.keys())
    missing = sorted(expected.keys() - found)
    for path in sorted(found & expected.keys()):
        print(f"     {name}: {path}: {expected[path]}")
    for path in unexpected:
        print(f"FAIL {name}: {path}: Spillway {spillway_body.get(path)!r}, LiteLLM {litellm_body.get(path)!r}")
    for path in missing:
        print(f"FAIL {name}: {path}: does not differ")
    if not unexpected and not missing:
        print(f"ok   {name}")
    return int(bool(unexpected or missing))


def leaves(value, path=""):
    """Yields the path and the value of every scalar and every empty container of a JSON value."""
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
