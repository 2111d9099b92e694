"""Webhooks, as far as they go without a public receiver.

The functions call public addresses only, so the receiver here answers the challenge, which the
command sends, and never gets an event. The message of the event goes through its queue to the
drain, which is refused the address and sends the message again.
"""

import http.server
import json
import threading

from actions import ACCOUNT, REGION
from processes import wait_until
from scenario import scenario

from .requests import response, run_in_background

TENANT = "notified"


@scenario
def the_end_of_a_job_is_sent_through_the_queue_of_webhooks(broker):
    """The end of a job becomes a message for its endpoint, which the drain receives and sends again."""
    add_endpoint(broker, TENANT)
    run_in_background(broker, tenant=TENANT)
    # Once when the job ends, and once after the failed delivery.
    wait_until(lambda: sent(broker, "DrainFunction") >= 2, broker.end_timeout_s, "the drain tries to deliver")


@scenario
def a_cancelled_job_is_sent_through_the_queue_of_webhooks(broker):
    """The function that cancels a job reports its end."""
    before = sent(broker, "ApiFunction")
    created = broker.call("POST", "/v1/responses", response(), TENANT).expect(200).json()
    broker.call("POST", f"/v1/responses/{created['id']}/cancel", tenant=TENANT).expect(200)
    assert sent(broker, "ApiFunction") > before, "nothing was sent"


def add_endpoint(broker, tenant: str):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/hook"
    output = broker.command("webhooks", "add", tenant, url, "--allow-loopback")
    server.shutdown()
    server.server_close()
    assert "\nverified" in output, output


def sent(broker, logical_id: str) -> int:
    """Returns how many messages a function has sent to the queue of webhooks."""
    name = broker.stack.outputs["WebhookQueueUrl"].rpartition("/")[2]
    call = ("sqs:SendMessage", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
    return sum(record.calls.get(call, 0) for record in broker.stack.records[logical_id])


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers the challenge of an endpoint."""

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = event["data"]["challenge"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass
