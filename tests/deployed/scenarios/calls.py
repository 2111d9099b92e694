"""Calls that are answered at once."""

import http.client
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from scenario import scenario

from .requests import CLAUDE, GPT, GUARDRAIL, NOVA, chat, converse

PACED_TOKENS = 1_000
# Seven seconds at the pace of the simulator. A call becomes known to other processes after three.
SLOW_TOKENS = 14_000
HEAD_START_S = 4.5


@scenario
def models_are_listed(broker):
    """The key's models are listed."""
    listed = broker.call("GET", "/v1/models").expect(200).json()
    assert {GPT, CLAUDE} <= {model["id"] for model in listed["data"]}, listed


@scenario
def a_chat_completion_is_answered(broker):
    """A chat completion is answered, and its tokens are counted."""
    answer = broker.call("POST", "/v1/chat/completions", chat()).expect(200).json()
    assert answer["choices"][0]["message"]["content"] and answer["usage"]["total_tokens"] > 0, answer


@scenario
def a_message_is_answered_by_a_cross_region_profile(broker):
    """A message for Claude is sent to a cross-region profile, for which two permissions are needed."""
    answer = broker.call("POST", "/v1/messages", chat(CLAUDE)).expect(200).json()
    assert answer["content"][0]["text"], answer


@scenario
def converse_is_answered_by_a_cross_region_profile(broker):
    """Converse is answered, whole and as an event stream that arrives byte by byte as it was sent."""
    answer = broker.call("POST", f"/model/{NOVA}/converse", converse()).expect(200).json()
    assert answer["output"]["message"]["content"], answer
    stream = broker.call("POST", f"/model/{NOVA}/converse-stream", converse()).expect(200)
    assert stream.headers["Content-Type"] == "application/vnd.amazon.eventstream", stream.headers
    assert stream.body.count(b":event-type") >= 4 and b"messageStop" in stream.body, stream.body[:300]


@scenario
def a_stream_arrives_while_the_model_speaks(broker):
    """The first event of a stream comes well before the last: nothing between buffers it."""
    body = chat(prompt=f"[[output_tokens={PACED_TOKENS}]] Hello", max_tokens=PACED_TOKENS, stream=True)
    parts = urlsplit(broker.url)
    connection = http.client.HTTPSConnection(parts.netloc, context=broker.tls, timeout=60)
    headers = {"Authorization": f"Bearer {broker.key('roomy')}", "Content-Type": "application/json"}
    connection.request("POST", f"{parts.path}/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    assert response.status == 200, response.status
    times = []
    while response.read1(65536):
        times.append(time.monotonic())
    connection.close()
    assert len(times) > 5 and times[-1] - times[0] > 0.2, f"{len(times)} parts within {times[-1] - times[0]:.2f} s"


@scenario
def embeddings_are_answered(broker):
    """Embeddings are answered."""
    request = {"model": "text-embedding-3-small", "input": ["a river", "a mountain"]}
    answer = broker.call("POST", "/v1/embeddings", request).expect(200).json()
    assert len(answer["data"]) == 2, answer


@scenario
def tokens_are_counted_by_bedrock(broker):
    """Tokens are counted, not estimated, for a model with a cross-region profile, too."""
    request = {"model": CLAUDE, "messages": [{"role": "user", "content": "Hello"}]}
    answer = broker.call("POST", "/v1/messages/count_tokens", request).expect(200)
    assert answer.json()["input_tokens"] > 0 and "x-spillway-estimated" not in answer.headers, answer.headers


@scenario
def provisioned_capacity_comes_first(broker):
    """A model with provisioned throughput is served by it."""
    answer = broker.call("POST", "/v1/chat/completions", chat("provisioned-first")).expect(200)
    assert answer.headers["x-spillway-pool"] == "provisioned", answer.headers


@scenario
def an_application_inference_profile_is_served(broker):
    """A model that is an application inference profile answers, whole and streamed."""
    broker.call("POST", "/v1/chat/completions", chat("application-profile")).expect(200)
    broker.call("POST", "/v1/chat/completions", chat("application-profile", stream=True)).expect(200)


@scenario
def provisioned_capacity_streams(broker):
    """A model with provisioned throughput streams."""
    answer = broker.call("POST", "/v1/chat/completions", chat("provisioned-first", stream=True)).expect(200)
    assert answer.headers["x-spillway-pool"] == "provisioned", answer.headers


@scenario
def a_guardrail_is_applied(broker):
    """A guardrail is applied, alone and within a call."""
    content = {"source": "INPUT", "content": [{"text": {"text": "hello"}}]}
    broker.call("POST", "/guardrail/grrivers1/version/1/apply", content).expect(200)
    broker.call("POST", f"/model/{NOVA}/converse", converse(guardrailConfig=GUARDRAIL)).expect(200)


@scenario
def the_quota_is_reported(broker):
    """The limits of the tenant and their use are reported."""
    assert broker.call("GET", "/v1/quota").expect(200).json()["tenant"] == "roomy"


@scenario
def a_repeated_call_is_answered_once(broker):
    """A second call with the same Idempotency-Key gets the first call's answer, from another process, too."""
    key = str(uuid.uuid4())
    first = broker.call("POST", "/v1/chat/completions", chat(), Idempotency_Key=key).expect(200)
    second = broker.call_function_url("POST", "/v1/chat/completions", chat(), Idempotency_Key=key).expect(200)
    assert second.headers["x-spillway-replayed"] == "true", second.headers
    assert first.json()["id"] == second.json()["id"]


@scenario
def a_retry_joins_the_running_call_that_it_repeats(broker):
    """A retry of an AWS SDK waits for the answer of its first attempt, which still runs in another process."""
    headers = {"Amz_Sdk_Invocation_Id": str(uuid.uuid4())}
    messages = [{"role": "user", "content": [{"text": f"[[output_tokens={SLOW_TOKENS}]] Hello"}]}]
    body = {"messages": messages, "inferenceConfig": {"maxTokens": SLOW_TOKENS}}
    with ThreadPoolExecutor() as pool:
        attempt = "attempt=1; max=2"
        first = pool.submit(broker.call, "POST", f"/model/{GPT}/converse", body, Amz_Sdk_Request=attempt, **headers)
        time.sleep(HEAD_START_S)
        attempt = "attempt=2; max=2"
        second = broker.call("POST", f"/model/{GPT}/converse", body, Amz_Sdk_Request=attempt, **headers).expect(200)
    assert first.result().expect(200).body == second.body
    assert second.headers["x-spillway-replayed"] == "true", second.headers
