"""Batches of OpenAI and of Anthropic."""

import json
from urllib.parse import urlsplit

from broker import ROOT_DOMAIN
from processes import wait_until
from scenario import scenario

from .requests import CLAUDE, polled
from .upload import create_batch, upload

LINES = 25
PATH = "/v1/messages/batches"


@scenario
def a_batch_is_finished(broker):
    """All lines of a batch are finished, and its output file has an answer for each."""
    batch = ended_batch(broker, create_batch(broker, LINES)["id"])
    assert batch["status"] == "completed" and batch["request_counts"]["completed"] == LINES, batch
    output = broker.call("GET", f"/v1/files/{batch['output_file_id']}/content").expect(200).body
    answers = [json.loads(line) for line in output.splitlines()]
    assert len(answers) == LINES and all(answer["response"]["status_code"] == 200 for answer in answers), answers[0]


@scenario
def a_batch_is_cancelled(broker):
    """A batch is cancelled, and what it had not started never runs."""
    batch = create_batch(broker, LINES, "seldom")
    cancelled = broker.call("POST", f"/v1/batches/{batch['id']}/cancel", tenant="seldom").expect(200).json()
    assert cancelled["status"] in ("cancelling", "cancelled"), cancelled
    batch = ended_batch(broker, batch["id"], "seldom")
    assert batch["status"] == "cancelled" and batch["request_counts"]["completed"] < LINES, batch


@scenario
def the_results_url_of_a_batch_leads_to_its_results(broker):
    """The `results_url` of an Anthropic batch is below the URL that the stack names, and leads to the results."""
    batch = ended_message_batch(broker, 3)
    api_url = broker.stack.outputs["ApiUrl"]
    at_stage = broker.call("GET", f"{PATH}/{batch['id']}", Host=urlsplit(api_url).netloc).expect(200).json()
    assert at_stage["results_url"].startswith(f"{api_url}/v1/"), at_stage
    path = at_stage["results_url"].removeprefix(api_url)
    results = broker.call("GET", path).expect(200).body.splitlines()
    assert len(results) == 3 and all(b'"succeeded"' in line for line in results), results
    at_domain = broker.call_custom_domain("GET", ROOT_DOMAIN, f"{PATH}/{batch['id']}").expect(200).json()
    assert urlsplit(at_domain["results_url"])[:3] == ("https", ROOT_DOMAIN, path), at_domain
    host = urlsplit(broker.stack.outputs["FunctionUrl"]).netloc
    at_function_url = broker.call_function_url("GET", f"{PATH}/{batch['id']}").expect(200).json()
    assert urlsplit(at_function_url["results_url"])[:3] == ("https", host, path), at_function_url


@scenario
def a_message_batch_is_deleted(broker):
    """An ended Anthropic batch is deleted."""
    batch = ended_message_batch(broker, 1)
    broker.call("DELETE", f"{PATH}/{batch['id']}").expect(200)
    broker.call("GET", f"{PATH}/{batch['id']}").expect(404)


@scenario
def a_file_that_the_bucket_has_lost_is_not_found(broker):
    """The content of a file that is gone from the bucket is 404, not an internal error."""
    s3, bucket = broker.stack.emulator.client("s3"), broker.stack.outputs["Bucket"]
    before = {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])}
    file = upload(broker, 1)
    added = {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]} - before
    assert added, "the file is not in the bucket"
    for key in added:
        s3.delete_object(Bucket=bucket, Key=key)
    broker.call("GET", f"/v1/files/{file['id']}/content").expect(404)


def ended_batch(broker, batch_id: str, tenant: str = "roomy") -> dict:
    def read():
        batch = polled(broker, f"/v1/batches/{batch_id}", tenant)
        return batch if batch and batch["status"] in ("completed", "failed", "expired", "cancelled") else None

    return wait_until(read, broker.end_timeout_s, f"{batch_id} ends")


def ended_message_batch(broker, count: int) -> dict:
    """Creates an Anthropic batch, and returns it when it has ended."""
    params = {"model": CLAUDE, "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}
    requests = [{"custom_id": f"line-{number}", "params": params} for number in range(count)]
    created = broker.call("POST", PATH, {"requests": requests}).expect(200).json()

    def read():
        batch = polled(broker, f"{PATH}/{created['id']}")
        return batch if batch and batch["processing_status"] == "ended" else None

    return wait_until(read, broker.end_timeout_s, f"{created['id']} ends")
