"""The sweep, which the schedule rule starts each minute."""

import time

from scenario import scenario

from .requests import ended_response, response

# Two minutes late, and a minute more until the rule starts the sweep.
LATE_MS = 150_000
SWEEP_TIMEOUT_S = 100


@scenario
def a_job_that_has_lost_its_message_is_sent_again(broker):
    """The sweep sends the message of a job again that should have been received two minutes ago."""
    (mapping,) = jobs_mappings(broker)
    functions = broker.stack.functions
    functions.update_event_source_mapping(UUID=mapping, Enabled=False)
    time.sleep(1.5)
    created = broker.call("POST", "/v1/responses", response()).expect(200).json()
    broker.stack.emulator.client("sqs").purge_queue(QueueUrl=broker.stack.outputs["QueueUrl"])
    make_late(broker)
    functions.update_event_source_mapping(UUID=mapping, Enabled=True)
    yield
    ended = ended_response(broker, created["id"], timeout_s=SWEEP_TIMEOUT_S)
    assert ended["status"] in ("completed", "incomplete"), ended


def jobs_mappings(broker) -> list[str]:
    """Returns the event source mappings of the queue that holds the jobs."""
    name = broker.stack.outputs["QueueUrl"].rpartition("/")[2]
    mappings = broker.stack.functions.list_event_source_mappings()["EventSourceMappings"]
    return [mapping["UUID"] for mapping in mappings if mapping["EventSourceArn"].endswith(f":{name}")]


def make_late(broker):
    """Moves the due time of all open jobs to the past, as if they had waited for their message."""
    dynamodb, table = broker.stack.emulator.client("dynamodb"), broker.stack.outputs["JobsTable"]
    for item in dynamodb.scan(TableName=table)["Items"]:
        if "open" not in item:
            continue
        due_ms = str(int(item["due_ms"]["N"]) - LATE_MS)
        dynamodb.update_item(
            TableName=table,
            Key={"pk": item["pk"]},
            UpdateExpression="SET due_ms = :due_ms",
            ExpressionAttributeValues={":due_ms": {"N": due_ms}},
        )
