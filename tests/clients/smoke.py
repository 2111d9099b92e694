"""Calls a running Spillway with the SDKs that its users have: openai, anthropic, boto3, and plain HTTP for jobs.

    SPILLWAY_URL=http://127.0.0.1:8787 SPILLWAY_KEY=sk-spill-roomy-… SPILLWAY_TINY_KEY=sk-spill-tiny-… python smoke.py

The first key belongs to a tenant with room, the second to one so small that a burst overflows.
Prints a line for each check and ends with `N passed, M failed`; the exit code is 1 if any failed.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

import anthropic
import boto3
import openai
from botocore.config import Config
from botocore.exceptions import ClientError

URL = os.environ["SPILLWAY_URL"].rstrip("/")
KEY = os.environ["SPILLWAY_KEY"]
TINY_KEY = os.environ["SPILLWAY_TINY_KEY"]
MODEL = os.environ.get("SPILLWAY_MODEL", "demo-chat")
UNKNOWN_KEY = "sk-spill-nobody-" + "0" * 64
PROMPT = "Name three rivers, one per line."
MAX_TOKENS = 64
REQUEST_TIMEOUT_S = 60
# A tiny tenant's minute has to pass before its job can run.
JOB_TIMEOUT_S = 150
# More than a tiny tenant can be answered at once.
BURST = 100

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def openai_client(key=KEY, max_retries=0, timeout=REQUEST_TIMEOUT_S):
    return openai.OpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=max_retries, timeout=timeout)


def anthropic_client(key=KEY, max_retries=0, timeout=REQUEST_TIMEOUT_S):
    return anthropic.Anthropic(base_url=URL, api_key=key, max_retries=max_retries, timeout=timeout)


def bedrock_client(key=KEY, config=Config(retries={"total_max_attempts": 1}, read_timeout=REQUEST_TIMEOUT_S)):
    # botocore refuses bearer tokens over plain http, so the key travels as the session token of dummy credentials.
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=URL,
        region_name="us-east-1",
        aws_access_key_id="unused",
        aws_secret_access_key="unused",
        aws_session_token=key,
        config=config,
    )


def chat(client, **more):
    messages = [{"role": "user", "content": PROMPT}]
    return client.chat.completions.create(model=MODEL, messages=messages, max_tokens=MAX_TOKENS, **more)


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


@check
def openai_answers():
    answer = chat(openai_client())
    assert answer.choices[0].message.content, "the answer is empty"
    assert answer.choices[0].finish_reason in ("stop", "length"), answer.choices[0].finish_reason
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= MAX_TOKENS, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


@check
def openai_streams_the_same_answer():
    whole = chat(openai_client())
    chunks = list(chat(openai_client(), stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content, "the stream says something else than the whole answer"
    assert chunks[-1].usage == whole.usage, f"{chunks[-1].usage} instead of {whole.usage}"


@check
def openai_responds():
    answer = openai_client().responses.create(model=MODEL, input=PROMPT, max_output_tokens=MAX_TOKENS)
    openai.types.responses.Response.model_validate(answer.model_dump())
    assert answer.output_text, "the answer is empty"
    assert answer.status in ("completed", "incomplete"), answer.status
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens, answer.usage


@check
def openai_streams_the_same_response():
    whole = openai_client().responses.create(model=MODEL, input=PROMPT)
    with openai_client().responses.stream(model=MODEL, input=PROMPT) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == whole.output_text, "the stream says something else"
    assert final.usage == whole.usage, final.usage


@check
def openai_carries_a_tool_through_a_conversation():
    parameters = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    tools = [{"type": "function", "name": "clock", "parameters": parameters, "strict": True}]
    question = [{"role": "user", "content": PROMPT}]
    ask = openai_client().responses.create
    output = ask(model=MODEL, input=question, tools=tools, tool_choice="required").output
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "noon"} for call in output]
    answer = ask(model=MODEL, input=[*question, *output, *results], tools=tools)
    assert output[0].name == "clock" and answer.output_text, answer


@check
def openai_takes_tools():
    tool = {
        "type": "function",
        "function": {
            "name": "river_length",
            "description": "The length of a river in kilometres.",
            "parameters": {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]},
        },
    }
    message = chat(openai_client(), tools=[tool]).choices[0].message
    assert message.content or message.tool_calls, "neither text nor a tool call"


@check
def openai_lists_the_model():
    assert MODEL in [model.id for model in openai_client().models.list()]


@check
def openai_hears_of_an_unknown_model():
    error = raises(
        openai.NotFoundError,
        lambda: openai_client().chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "x"}]),
    )
    assert "no-such-model" in error.message, error.message


@check
def openai_hears_of_a_bad_key():
    error = raises(openai.AuthenticationError, lambda: chat(openai_client(UNKNOWN_KEY)))
    assert "0" * 64 not in str(error), "the error repeats the key"


@check
def openai_hears_of_a_bad_field():
    raises(openai.BadRequestError, lambda: chat(openai_client(), temperature="warm"))


def anthropic_request(model=MODEL):
    return {"model": model, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]}


@check
def anthropic_answers():
    answer = anthropic_client().messages.create(**anthropic_request())
    assert answer.content[0].text, "the answer is empty"
    assert answer.stop_reason in ("end_turn", "max_tokens"), answer.stop_reason
    assert answer.usage.input_tokens > 0 and 0 < answer.usage.output_tokens <= MAX_TOKENS, answer.usage


@check
def anthropic_streams_the_same_answer():
    whole = anthropic_client().messages.create(**anthropic_request())
    with anthropic_client().messages.stream(**anthropic_request()) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text, "the stream says something else than the whole answer"
    assert final.usage.output_tokens == whole.usage.output_tokens, f"{final.usage} instead of {whole.usage}"


@check
def anthropic_takes_the_older_key_header():
    status, _, body = http("POST", "/v1/messages", None, anthropic_request(), {"X-Api-Key": KEY})
    assert (status, body["type"]) == (200, "message"), (status, body)


@check
def anthropic_hears_of_an_unknown_model():
    raises(anthropic.NotFoundError, lambda: anthropic_client().messages.create(**anthropic_request("no-such-model")))


@check
def anthropic_hears_of_a_bad_key():
    raises(anthropic.AuthenticationError, lambda: anthropic_client(UNKNOWN_KEY).messages.create(**anthropic_request()))


def converse_request(model=MODEL):
    messages = [{"role": "user", "content": [{"text": PROMPT}]}]
    return {"modelId": model, "messages": messages, "inferenceConfig": {"maxTokens": MAX_TOKENS}}


@check
def boto3_converses():
    answer = bedrock_client().converse(**converse_request())
    assert answer["output"]["message"]["content"][0]["text"], "the answer is empty"
    usage = answer["usage"]
    assert usage["inputTokens"] > 0 and 0 < usage["outputTokens"] <= MAX_TOKENS, usage
    assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"], usage


@check
def boto3_streams_the_same_answer():
    whole = bedrock_client().converse(**converse_request())
    events = list(bedrock_client().converse_stream(**converse_request())["stream"])
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    text = "".join(delta.get("text", "") for delta in deltas)
    assert text == whole["output"]["message"]["content"][0]["text"], "the stream says something else"
    assert "messageStart" in events[0] and events[-1]["metadata"]["usage"] == whole["usage"], events[-1]


@check
def boto3_hears_of_an_unknown_model():
    error = raises(ClientError, lambda: bedrock_client().converse(**converse_request("no-such-model")))
    assert error.response["Error"]["Code"] == "ResourceNotFoundException", error.response["Error"]


@check
def boto3_hears_of_a_bad_key():
    error = raises(ClientError, lambda: bedrock_client(UNKNOWN_KEY).converse(**converse_request()))
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (401, 403), error.response


@check
def quota_is_told():
    status, _, body = http("GET", "/v1/quota", KEY)
    assert status == 200 and isinstance(body, dict), (status, body)


@check
def a_client_that_loses_patience_pays_once():
    # Answered in 1.7 s by the simulator of `spillway local`, so that the first attempt is given up and the second joins it.
    prompt = {"role": "user", "content": f"{PROMPT} [[output_tokens=300]]"}
    impatient = {"max_retries": 2, "timeout": 1}
    bedrock = bedrock_client(config=Config(read_timeout=1))
    messages = [{"role": "user", "content": [{"text": prompt["content"]}]}]
    limit = {"maxTokens": 300}
    for ask in (
        lambda: bedrock.converse(modelId=MODEL, messages=messages, inferenceConfig=limit),
        lambda: openai_client(**impatient).chat.completions.create(model=MODEL, messages=[prompt], max_tokens=300),
        lambda: anthropic_client(**impatient).messages.create(model=MODEL, messages=[prompt], max_tokens=300),
    ):
        before = settled()
        started = time.monotonic()
        ask()
        assert time.monotonic() - started > 1, "no attempt was given up"
        after = settled()
        assert after["requests"] - before["requests"] == 1, (before, after)
        assert after["output_tokens"] - before["output_tokens"] == 300, (before, after)


def settled():
    status, _, quota = http("GET", "/v1/quota", KEY)
    assert status == 200, (status, quota)
    return quota["settled"]


@check
def a_burst_overflows_into_a_job_that_is_finished():
    location = overflow()
    status, _, body = http("GET", location, KEY)
    assert status == 404, f"another tenant sees the job: {status}"
    status, _, job = http("GET", location, TINY_KEY)
    assert status == 200 and job["status"] in ("queued", "running", "succeeded"), (status, job)
    job = wait_for(location, "succeeded")
    status, _, answer = http("GET", f"{location}/result", TINY_KEY)
    assert status == 200, (status, answer)
    assert answer["object"] == "chat.completion" and answer["choices"][0]["message"]["content"], answer


@check
def a_waiting_job_is_cancelled():
    location = overflow()
    status, _, body = http("DELETE", location, TINY_KEY)
    assert 200 <= status < 300, (status, body)
    wait_for(location, "cancelled")


def overflow():
    """Sends requests of the tiny tenant until one becomes a job; returns where that job is."""
    request = {"model": MODEL, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]}
    for _ in range(BURST):
        status, headers, body = http("POST", "/v1/chat/completions", TINY_KEY, request, {"Prefer": "respond-async"})
        if status == 202:
            assert "respond-async" in headers["Preference-Applied"], headers
            return headers["Location"]
        assert status == 200, (status, body)
    raise AssertionError(f"{BURST} requests in a row found room")


def wait_for(location, wanted):
    deadline = time.monotonic() + JOB_TIMEOUT_S
    while True:
        status, _, job = http("GET", location, TINY_KEY)
        assert status == 200, (status, job)
        if job["status"] == wanted:
            return job
        assert job["status"] in ("queued", "running"), f"the job is {job['status']}"
        assert time.monotonic() < deadline, f"still {job['status']} after {JOB_TIMEOUT_S} s"
        time.sleep(0.25)


def http(method, path, key, body=None, headers=None):
    """One request by plain HTTP: its status, headers and JSON body."""
    url = path if path.startswith("http") else URL + path
    request = urllib.request.Request(url, method=method, headers=headers or {})
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as response:
            status, answered, content = response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        status, answered, content = error.code, error.headers, error.read()
    return status, answered, json.loads(content) if content else None


def main():
    failed = 0
    for function in CHECKS:
        claim = function.__name__.replace("_", " ")
        started = time.monotonic()
        try:
            function()
            outcome = "ok  "
        except Exception as error:
            failed += 1
            outcome = "FAIL"
            claim += f": {type(error).__name__}: {error}"
        print(f"{outcome} {claim} ({time.monotonic() - started:.2f} s)", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
