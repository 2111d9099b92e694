"""The AWS command-line interface, version 1."""

import sys
import uuid

from commands import *

COMMAND = pathlib.Path(sys.executable).parent / "aws"
TOOLS = {"tools": [{"toolSpec": {"name": TOOL_NAME, "inputSchema": {"json": TOOL_SCHEMA}}}]}

sandbox = Sandbox()


def signing_variables(key):
    return {"AWS_ACCESS_KEY_ID": "unused", "AWS_SECRET_ACCESS_KEY": "unused", "AWS_SESSION_TOKEN": key}


def bearer_variables(key):
    return {"AWS_BEARER_TOKEN_BEDROCK": key}


def call(command, *arguments, key=KEY, auth=signing_variables, attempts=1):
    """Runs the command and returns its output. Raises an error with its message if it fails."""
    variables = {
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": URL,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": str(attempts),
        "AWS_RETRY_MODE": "standard",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    arguments = [argument if isinstance(argument, str) else json.dumps(argument) for argument in arguments]
    process = sandbox.run([COMMAND, "bedrock-runtime", command, *arguments, "--output", "json"], variables | auth(key))
    if process.returncode:
        raise ChildProcessError(process.stderr.strip())
    return json.loads(process.stdout)


def ask(*content, model=CLAUDE_ON_BEDROCK, messages=None, options=(), **call_options):
    messages = messages or [{"role": "user", "content": [{"text": PROMPT}, *content]}]
    inference_config = {"maxTokens": MAX_TOKENS}
    arguments = ["--model-id", model, "--messages", messages, "--inference-config", inference_config, *options]
    return call("converse", *arguments, **call_options)


def plain():
    for auth in (signing_variables, bearer_variables):
        response = ask(auth=auth)
        assert response["output"]["message"]["content"][0]["text"] and response["usage"]["outputTokens"] > 0, response


def tools():
    question = {"role": "user", "content": [{"text": TOOL_PROMPT}]}
    first = ask(messages=[question], options=["--tool-config", TOOLS])
    call = first["output"]["message"]["content"][-1]["toolUse"]
    assert_equal((first["stopReason"], call["input"]), ("tool_use", TOOL_INPUT))
    result = {"toolResult": {"toolUseId": call["toolUseId"], "content": [{"text": TOOL_RESULT}]}}
    messages = [question, first["output"]["message"], {"role": "user", "content": [result]}]
    assert_equal(ask(messages=messages, options=["--tool-config", TOOLS])["stopReason"], "end_turn")


def image():
    response = ask({"image": {"format": "png", "source": {"bytes": PNG_BASE64}}})
    assert response["usage"]["inputTokens"] > ask()["usage"]["inputTokens"], "the image costs nothing"


def error():
    assert "(ResourceNotFoundException)" in str(raises(ChildProcessError, lambda: ask(model=UNKNOWN_MODEL)))
    bad_messages = [{"role": "robot", "content": [{"text": PROMPT}]}]
    assert "(ValidationException)" in str(raises(ChildProcessError, lambda: ask(messages=bad_messages)))


def retry(key):
    exhaust(key)
    # The command takes so long to start that the refusal may be over by then.
    ask(key=key, attempts=10)


def cache():
    system = [{"text": f"{uuid.uuid4()} {LONG_TEXT}"}, {"cachePoint": {"type": "default"}}]
    written = ask(options=["--system", system])["usage"]
    read = ask(options=["--system", system])["usage"]
    assert written["cacheWriteInputTokens"] > 1_000, written
    assert_equal(read["cacheReadInputTokens"], written["cacheWriteInputTokens"])


def count():
    converse = {"converse": {"messages": [{"role": "user", "content": [{"text": PROMPT}]}]}}
    counted = call("count-tokens", "--model-id", CLAUDE_ON_BEDROCK, "--input", converse)
    assert_equal(counted["inputTokens"], ask()["usage"]["inputTokens"])


def guardrail():
    guardrail = ["--guardrail-identifier", "grrivers1", "--guardrail-version", "1", "--source", "INPUT"]
    response = call("apply-guardrail", *guardrail, "--content", [{"text": {"text": PROMPT}}])
    assert response["action"] in ("NONE", "GUARDRAIL_INTERVENED"), response


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
    assert_equal(len(json.loads(file.read_text())["embedding"]), 256)


def cells(impatient_key):
    functions = [plain, tools, image, error, cache, count, guardrail, invoke, embed]
    return {function.__name__: function for function in functions} | {"retry": lambda: retry(impatient_key)}


NOT_APPLICABLE = {column: "the command has no streaming operations" for column in ("stream", "i_stream")}
NOT_APPLICABLE |= {column: "the command passes it to botocore: see boto3" for column in ("schema", "thinking")}
run(Row("aws cli", "Bedrock", cells, NOT_APPLICABLE))
