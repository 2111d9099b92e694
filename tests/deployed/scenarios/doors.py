"""The doors of the broker: the REST API at its own and at custom domains, and the Function URL."""

import json
from urllib.parse import urljoin, urlsplit

from broker import PREFIX, PREFIX_DOMAIN, ROOT_DOMAIN
from scenario import scenario

from .requests import CLAUDE, GPT, chat, ended_job, submit
from .upload import multipart

TOO_LARGE_BYTES = 6_500_000
LARGE_LINES = 4_000


@scenario
def liveness_needs_no_key(broker):
    """Liveness is answered at the root and at /healthz, also to a HEAD request."""
    broker.call("GET", "/healthz", Authorization="").expect(200)
    broker.call("GET", "/", Authorization="").expect(200)
    broker.call("HEAD", "/healthz", Authorization="").expect(200)


@scenario
def an_unknown_key_is_refused(broker):
    """A request with an unknown key gets 401."""
    broker.call("GET", "/v1/models", Authorization=f"Bearer sk-spill-nobody-{'0' * 64}").expect(401)


@scenario
def a_path_without_the_stage_never_reaches_the_function(broker):
    """The API's own domain serves its stage only: the other scenarios would otherwise prove nothing."""
    answer = broker.send("GET", broker.door + "/v1/models", None, "roomy", "", {})
    assert answer.status == 403, answer


@scenario
def the_location_of_a_job_leads_to_the_job(broker):
    """The `Location` of a 202, resolved against the URL of the call, is the address of the job."""
    path, tenant = "/v1/chat/completions", "impatient-90"
    location = submit(broker, tenant, path, chat())
    address = urljoin(broker.url + path, location)
    job = broker.send("GET", address, None, tenant, "", {}).expect(200).json()
    result = urljoin(address, job["result"]) if job.get("result") else f"{address}/result"
    assert ended_job(broker, tenant, location)["status"] == "succeeded"
    answer = broker.send("GET", result, None, tenant, "", {}).expect(200)
    assert answer.json()["choices"], answer


@scenario
def a_location_at_a_custom_domain_leads_to_the_job(broker):
    """At a custom domain, the `Location` of a 202 has no stage, and has the domain's path prefix."""
    for number, (domain, prefix) in enumerate([(ROOT_DOMAIN, ""), (PREFIX_DOMAIN, PREFIX)]):
        tenant, url = f"impatient-{91 + number}", f"{broker.door}{prefix}/v1/chat/completions"
        for _ in range(8):
            answer = broker.send("POST", url, chat(), tenant, domain, {"Prefer": "respond-async"})
            if answer.status == 202:
                break
        location = answer.expect(202).headers["Location"]
        assert urlsplit(location).path.startswith(f"{prefix}/v1/jobs/"), location
        broker.send("GET", urljoin(url, location), None, tenant, domain, {}).expect(200)


@scenario
def a_custom_domain_with_a_path_prefix_reads_queries(broker):
    """With a path prefix, lists read their query, and a path outside of the prefix is unknown."""
    listed = broker.call_custom_domain("GET", PREFIX_DOMAIN, f"{PREFIX}/v1/models").expect(200).json()
    assert GPT in [model["id"] for model in listed["data"]], listed
    broker.call_custom_domain("GET", PREFIX_DOMAIN, f"{PREFIX}/v1/jobs?limit=abc").expect(400)
    broker.call_custom_domain("GET", ROOT_DOMAIN, f"{PREFIX}/v1/models").expect(404)


@scenario
def the_function_url_answers_a_call_and_a_stream(broker):
    """The Function URL answers a chat completion, whole and streamed."""
    path = "/v1/chat/completions"
    whole = broker.call_function_url("POST", path, chat()).expect(200).json()
    streamed = broker.call_function_url("POST", path, chat(stream=True)).expect(200).body.decode()
    events = [line.removeprefix("data: ") for line in streamed.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"].get("content") or "" for event in events for choice in json.loads(event)["choices"]]
    assert "".join(deltas) == whole["choices"][0]["message"]["content"], streamed
    assert streamed.rstrip().endswith("data: [DONE]"), streamed[-200:]


@scenario
def the_function_url_reads_queries(broker):
    """A list at the Function URL reads its query."""
    broker.call_function_url("GET", "/v1/jobs?limit=abc").expect(400)
    broker.call_function_url("GET", "/v1/jobs?limit=1").expect(200)


@scenario
def a_location_at_the_function_url_leads_to_the_job(broker):
    """At the Function URL, the `Location` of a 202 has no stage."""
    tenant, path = "impatient-93", "/v1/chat/completions"
    for _ in range(8):
        answer = broker.call_function_url("POST", path, chat(), tenant, Prefer="respond-async")
        if answer.status == 202:
            break
    location = answer.expect(202).headers["Location"]
    broker.call_function_url("GET", urlsplit(location).path, tenant=tenant).expect(200)


@scenario
def what_exceeds_lambdas_events_is_refused_as_json(broker):
    """A body that does not fit into an event of Lambda gets 413 with a JSON body, before the function."""
    answer = broker.call("POST", "/v1/messages", chat(CLAUDE, "x" * TOO_LARGE_BYTES)).expect(413)
    assert answer.json(), answer


@scenario
def a_file_just_below_the_limit_is_read(broker):
    """A batch file of 4.5 MB arrives, although its quotes and line ends count twice in the event."""
    line = json.dumps({"custom_id": "n", "method": "POST", "url": "/v1/chat/completions", "body": chat()})
    padded = line[:-1] + " " * (4_500_000 // LARGE_LINES - len(line)) + "}"
    content = "\n".join([padded] * LARGE_LINES).encode()
    body, content_type = multipart({"purpose": "batch"}, content)
    file = broker.call("POST", "/v1/files", body, Content_Type=content_type).expect(200).json()
    assert file["bytes"] == len(content), file
    assert broker.call("GET", f"/v1/files/{file['id']}/content").expect(200).body == content
    broker.call("DELETE", f"/v1/files/{file['id']}").expect(200)
