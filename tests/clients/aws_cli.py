"""The AWS command-line interface, version 1."""

import sys
import uuid

from commands import *

COMMAND = pathlib.Path(sys.executable).parent / "aws"
TOOLS = {"tools": [{"toolSpec": {"name": TOOL_NAME, "inputSchema": {"json": TOOL_SCHEMA}}}]}

sandbox = Sandbox()


def signed(key):
    return {"AWS_ACCESS_KEY_ID": "unused", "AWS_SECRET_ACCESS_KEY": "unused", "AWS_SESSION_TOKEN": key}


def bearer(key):
    return {"AWS_BEARER_TOKEN_BEDROCK": key}


def call(command, *arguments, key=KEY, auth=signed, attempts=1):
    """What the command answers, or its complaint."""
    variables = {
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": URL,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": str(attempts),
        "AWS_RETRY_MODE": "standard",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    arguments = [part if isinstance(part, str) else json.dumps(part) for part in arguments]
    ended = sandbox.run([COMMAND, "bedrock-runtime", command, *arguments, "--output", "json"], variables | auth(key))
    if ended.returncode:
        raise ChildProcessError(ended.stderr.strip())
    return json.loads(ended.stdout)


def ask(*content, model=CLAUDE_ON_BEDROCK, messages=None, more=(), **how):
    messages = messages or [{"role": "user", "content": [{"text": PROMPT}, *content]}]
    limit = {"maxTokens": MAX_TOKENS}
    arguments = ["--model-id", model, "--messages", messages, "--inference-config", limit, *more]
    return call("converse", *arguments, **how)


def plain():
    for auth in (signed, bearer):
        answer = ask(auth=auth)
        assert answer["output"]["message"]["content"][0]["text"] and answer["usage"]["outputTokens"] > 0, answer


def tools():
    question = {"role": "user", "content": [{"text": TOOL_PROMPT}]}
    first = ask(messages=[question], more=["--tool-config", TOOLS])
    call = first["output"]["message"]["content"][-1]["toolUse"]
    same((first["stopReason"], call["input"]), ("tool_use", TOOL_INPUT))
    result = {"toolResult": {"toolUseId": call["toolUseId"], "content": [{"text": TOOL_RESULT}]}}
    turns = [question, first["output"]["message"], {"role": "user", "content": [result]}]
    same(ask(messages=turns, more=["--tool-config", TOOLS])["stopReason"], "end_turn")


def image():
    answer = ask({"image": {"format": "png", "source": {"bytes": PNG_BASE64}}})
    assert answer["usage"]["inputTokens"] > ask()["usage"]["inputTokens"], "the image costs nothing"


def error():
    assert "(ResourceNotFoundException)" in str(raises(ChildProcessError, lambda: ask(model=NO_MODEL)))
    robot = [{"role": "robot", "content": [{"text": PROMPT}]}]
    assert "(ValidationException)" in str(raises(ChildProcessError, lambda: ask(messages=robot)))


def retry(key):
    exhaust(key)
    # A command takes longer to start than some refusals last.
    ask(key=key, attempts=10)


def cache():
    system = [{"text": f"{uuid.uuid4()} {LONG_TEXT}"}, {"cachePoint": {"type": "default"}}]
    written = ask(more=["--system", system])["usage"]
    read = ask(more=["--system", system])["usage"]
    assert written["cacheWriteInputTokens"] > 1_000, written
    same(read["cacheReadInputTokens"], written["cacheWriteInputTokens"])


def count():
    converse = {"converse": {"messages": [{"role": "user", "content": [{"text": PROMPT}]}]}}
    counted = call("count-tokens", "--model-id", CLAUDE_ON_BEDROCK, "--input", converse)
    same(counted["inputTokens"], ask()["usage"]["inputTokens"])


def guardrail():
    guardrail = ["--guardrail-identifier", "grrivers1", "--guardrail-version", "1", "--source", "INPUT"]
    answer = call("apply-guardrail", *guardrail, "--content", [{"text": {"text": PROMPT}}])
    assert answer["action"] in ("NONE", "GUARDRAIL_INTERVENED"), answer


def invoke():
    messages = [{"role": "user", "content": PROMPT}]
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": MAX_TOKENS, "messages": messages}
    file = sandbox.home / f"{uuid.uuid4()}.json"
    call("invoke-model", "--model-id", CLAUDE_ON_BEDROCK, "--body", body, str(file))
    assert json.loads(file.read_text())["content"][0]["text"]


def embed():
    file = sandbox.home / f"{uuid.uuid4()}.json"
    body = {"inputText": "a river", "dimensions": 256}
    call("invoke-model", "--model-id", TITAN, "--body", body, str(file))
    same(len(json.loads(file.read_text())["embedding"]), 256)


def cells(impatient_key):
    named = [plain, tools, image, error, cache, count, guardrail, invoke, embed]
    return {cell.__name__: cell for cell in named} | {"retry": lambda: retry(impatient_key)}


WITHOUT = {column: "the command has no streaming operations" for column in ("stream", "i_stream")}
WITHOUT |= {column: "the command only passes it on, as boto3 does" for column in ("schema", "thinking")}
run(Row("aws cli", "Bedrock", cells, WITHOUT))
