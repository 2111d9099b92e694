"""Jobs: requests that wait in the queue until the drain finishes them."""

from actions import ACCOUNT, REGION
from scenario import scenario

from .requests import GUARDRAIL, NOVA, chat, converse, ended_job, ended_response, response, run_in_background, submit

PATH = "/v1/chat/completions"
ENDED = ("completed", "incomplete")


@scenario
def a_burst_becomes_jobs_that_end(broker):
    """What exceeds a tenant's limit becomes a job, which the drain finishes through the queue."""
    tenant = "impatient-80"
    location = submit(broker, tenant, PATH, chat())
    assert ended_job(broker, tenant, location)["status"] == "succeeded"
    result = broker.call("GET", f"/v1/jobs/{location.rpartition('/')[2]}/result", tenant=tenant).expect(200).json()
    assert result["choices"], result


@scenario
def a_job_is_sent_to_the_queue_of_jobs(broker):
    """The message of a job goes to the queue of jobs, and to no other."""
    run_in_background(broker)
    name = broker.stack.outputs["QueueUrl"].rpartition("/")[2]
    sent = {resource for action, resource in broker.called("ApiFunction") if action == "sqs:SendMessage"}
    assert sent == {f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"}, sent
    assert name.startswith(broker.stack.ids["JobsQueue"].rpartition("/")[2]), name


@scenario
def a_waiting_job_is_cancelled(broker):
    """A job that waits for its tenant's limit is cancelled, and costs nothing."""
    location = submit(broker, "seldom", PATH, chat())
    broker.call("DELETE", f"/v1/jobs/{location.rpartition('/')[2]}", tenant="seldom").expect(200)
    assert ended_job(broker, "seldom", location)["status"] == "cancelled"


@scenario
def a_background_response_ends(broker):
    """A background response is finished by the drain, and its answer is read."""
    assert run_in_background(broker)["status"] in ENDED


@scenario
def the_stream_of_a_background_response_is_read(broker):
    """The query `stream=true` reads a background response as a stream, and `starting_after` its rest."""
    created = run_in_background(broker)
    path = f"/v1/responses/{created['id']}?stream=true"
    events = broker.call("GET", path).expect(200).body.decode().split("\n\n")
    rest = broker.call("GET", f"{path}&starting_after=1").expect(200).body.decode().split("\n\n")
    assert len(events) > 4 and rest == events[2:], (len(events), len(rest))


@scenario
def a_streamed_background_response_is_followed(broker):
    """A background response that is created with `stream` sends its events while the drain runs it."""
    body = broker.call("POST", "/v1/responses", response(stream=True)).expect(200).body.decode()
    assert "event: response.completed" in body or "event: response.incomplete" in body, body[-300:]


@scenario
def a_large_request_waits_in_the_bucket(broker):
    """A request over 350 KiB is kept in the bucket until its job runs."""
    before = objects(broker)
    created = broker.call("POST", "/v1/responses", response("word " * 90_000)).expect(200).json()
    assert objects(broker) - before, "no object was added to the bucket"
    assert ended_response(broker, created["id"])["status"] in ENDED


@scenario
def a_large_answer_is_kept_in_the_bucket_and_deleted(broker):
    """An answer over 350 KiB is kept in the bucket, is read from there, and is deleted from there."""
    before = objects(broker)
    prompt = "[[output_tokens=100000]] Hello"
    created = run_in_background(broker, prompt, "roomy", model="talkative", max_output_tokens=100_000)
    assert len(created["output"][0]["content"][0]["text"]) > 350 * 1024, created["status"]
    added = objects(broker) - before
    assert added, "no object was added to the bucket"
    broker.call("DELETE", f"/v1/responses/{created['id']}").expect(200)
    assert not added & objects(broker), "the answer is still in the bucket"


@scenario
def a_background_response_is_cancelled_and_deleted(broker):
    """A background response is cancelled, and is gone when it is deleted."""
    created = broker.call("POST", "/v1/responses", response()).expect(200).json()
    broker.call("POST", f"/v1/responses/{created['id']}/cancel").expect(200)
    ended_response(broker, created["id"])
    broker.call("DELETE", f"/v1/responses/{created['id']}").expect(200)
    broker.call("GET", f"/v1/responses/{created['id']}").expect(404)


@scenario
def a_job_with_a_guardrail_ends(broker):
    """The drain may apply a guardrail, too."""
    tenant = "impatient-82"
    location = submit(broker, tenant, f"/model/{NOVA}/converse", converse(guardrailConfig=GUARDRAIL))
    assert ended_job(broker, tenant, location)["status"] == "succeeded"


@scenario
def jobs_reach_every_kind_of_pool(broker):
    """The drain calls provisioned throughput and application inference profiles, also for streams."""
    models = ("provisioned-first", "application-profile", NOVA)
    for model in models:
        assert run_in_background(broker, model=model)["status"] in ENDED
        streamed = broker.call("POST", "/v1/responses", response(model=model, stream=True)).expect(200)
        assert b"event: response.failed" not in streamed.body, streamed.body[-300:]
    tenants = {f"impatient-{83 + number}": model for number, model in enumerate(models)}
    locations = {tenant: submit(broker, tenant, PATH, chat(model)) for tenant, model in tenants.items()}
    for tenant, location in locations.items():
        assert ended_job(broker, tenant, location)["status"] == "succeeded"


@scenario
def the_lengths_of_answers_are_learned(broker):
    """A tenant with right-sizing reads the lengths of its answers before a call and before a job."""
    broker.call("POST", PATH, chat(), "learning").expect(200)
    assert run_in_background(broker, tenant="learning")["status"] in ENDED


def objects(broker) -> set[str]:
    listed = broker.stack.emulator.client("s3").list_objects_v2(Bucket=broker.stack.outputs["Bucket"])
    return {entry["Key"] for entry in listed.get("Contents", [])}
