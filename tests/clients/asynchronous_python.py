"""The asynchronous features of the SDKs for Python.

OpenAI's background responses, files and batches, and Anthropic's batches.
"""

import hashlib
import http.server
import subprocess
import threading
import time
import urllib.request

import anthropic
import openai
from standardwebhooks.webhooks import Webhook

from cells import *

POLL_TIMEOUT_S = 50
# Longer than the time after which the server must know a new webhook endpoint.
REGISTRY_CACHE_S = 2.5
OPENAI = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
ANTHROPIC = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)


def poll_until(condition, read):
    """Reads repeatedly until the condition holds for the value, and returns the value."""
    start = time.monotonic()
    while not condition(value := read()):
        assert time.monotonic() - start < POLL_TIMEOUT_S, value
        time.sleep(0.3)
    return value


def read_pages(created, entries):
    """Reads all pages of a list, which must hold each created ID once, and end."""
    ids = []
    for entry in entries:
        ids.append(entry.id)
        assert len(ids) == len(set(ids)), "an entry is listed twice"
        if created <= set(ids):
            return
    raise AssertionError(f"{created - set(ids)} not listed")


class Responses:
    def __init__(self, responses):
        self.responses = responses

    def create(self, **fields):
        return self.responses.create(
            model=GPT, input=PROMPT, max_output_tokens=MAX_TOKENS, background=True, **fields
        )

    def wait_until_ended(self, created):
        return poll_until(
            lambda response: response.status not in ("queued", "in_progress"),
            lambda: self.responses.retrieve(created.id),
        )

    def background(self):
        created = self.create()
        assert created.status in ("queued", "in_progress") and created.background, created
        ended = self.wait_until_ended(created)
        assert ended.status in ("completed", "incomplete") and ended.output_text, ended
        synchronous = self.responses.create(model=GPT, input=PROMPT, max_output_tokens=MAX_TOKENS)
        assert_equal(ended.output_text, synchronous.output_text)
        self.responses.delete(created.id)
        raises(openai.NotFoundError, lambda: self.responses.retrieve(created.id))

    def follow(self):
        events = list(self.create(stream=True))
        assert_equal([event.sequence_number for event in events], list(range(len(events))))
        assert_equal((events[0].type, events[1].type), ("response.created", "response.queued"))
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        final = events[-1].response
        assert text and text == final.output_text, final
        middle = len(events) // 2
        rest = list(self.responses.retrieve(final.id, stream=True, starting_after=middle))
        assert_equal([event.model_dump() for event in rest], [event.model_dump() for event in events[middle + 1 :]])

    def cancel(self):
        created = self.create()
        cancelled = self.responses.cancel(created.id)
        assert cancelled.status in ("cancelled", "completed", "incomplete"), cancelled
        assert_equal(self.wait_until_ended(created).status, cancelled.status)


class Receiver(http.server.BaseHTTPRequestHandler):
    """Responds to challenges, and records events with their headers."""

    received = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        event = json.loads(body)
        challenge = event["data"].get("challenge")
        if challenge is None:
            self.received.append((body.decode(), dict(self.headers), event))
        self.send_response(200)
        self.end_headers()
        self.wfile.write((challenge or "").encode())

    def log_message(self, *_):
        pass


def run_webhooks_command(*arguments):
    """Runs `spillway webhooks` on the server's registry and returns its output."""
    variables = {"PATH": os.environ["PATH"], **json.loads(os.environ["SPILLWAY_EXPORTS"])}
    command = [os.environ["SPILLWAY_COMMAND"], "webhooks", *arguments]
    return subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout


def webhook():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/hook"
    output = run_webhooks_command("add", "patient", url, "--allow-loopback", "--event", "response.completed")
    secret = next(word for word in output.split() if word.startswith("whsec_"))
    time.sleep(REGISTRY_CACHE_S)
    created = Responses(OPENAI.responses).create()
    matching = lambda: [entry for entry in Receiver.received if entry[2]["data"]["id"] == created.id]
    body, headers, _ = poll_until(bool, matching)[0]
    event = OPENAI.webhooks.unwrap(body, headers, secret=secret)
    assert_equal((event.type, event.data.id), ("response.completed", created.id))
    assert_equal(Webhook(secret).verify(body, {name.lower(): value for name, value in headers.items()})["id"], event.id)
    raises(openai.InvalidWebhookSignatureError, lambda: OPENAI.webhooks.unwrap(body + " ", headers, secret=secret))


def batch_lines(numbers):
    """Yields the lines of a batch of chat completions. The last line names an unknown model."""
    for number in numbers:
        body = {"model": GPT, "messages": [{"role": "user", "content": PROMPT}], "max_completion_tokens": MAX_TOKENS}
        body |= {"model": UNKNOWN_MODEL} if number == numbers[-1] else {}
        line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        yield json.dumps(line) + "\n"


class Batches:
    def __init__(self, client):
        self.client = client

    def upload(self, count=5):
        content = "".join(batch_lines(range(count))).encode()
        return self.client.files.create(file=("batch.jsonl", content), purpose="batch"), content

    def submit(self, count=5):
        file, _ = self.upload(count)
        return self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"run": "1"}
        )

    def wait_until_ended(self, batch):
        final = ("completed", "failed", "expired", "cancelled")
        return poll_until(lambda batch: batch.status in final, lambda: self.client.batches.retrieve(batch.id))

    def files(self):
        file, content = self.upload()
        assert_equal((file.object, file.purpose), ("file", "batch"))
        assert_equal((file.bytes, file.filename), (len(content), "batch.jsonl"))
        assert_equal(self.client.files.content(file.id).read(), content)
        assert_equal(self.client.files.retrieve(file.id).id, file.id)
        assert file.id in [listed.id for listed in self.client.files.list(purpose="batch")]
        assert self.client.files.delete(file.id).deleted
        raises(openai.NotFoundError, lambda: self.client.files.retrieve(file.id))

    def uploads(self):
        _, content = self.upload()
        fields = {"mime_type": "application/jsonl", "purpose": "batch"}
        parts = {"file": content, "filename": "batch.jsonl", "bytes": len(content), "part_size": 300}
        digest = hashlib.md5(content).hexdigest()
        completed = self.client.uploads.upload_file_chunked(**parts, **fields, md5=digest)
        assert_equal((completed.status, completed.file.bytes, completed.file.filename), ("completed", len(content), "batch.jsonl"))
        assert_equal(self.client.files.content(completed.file.id).read(), content)
        created = self.client.uploads.create(bytes=len(content), filename="whole.jsonl", **fields)
        put = urllib.request.Request(created.put_url, data=content, method="PUT")
        with urllib.request.urlopen(put) as response:
            assert_equal(response.status, 200)
        whole = self.client.uploads.complete(created.id, part_ids=[])
        assert_equal(self.client.files.content(whole.file.id).read(), content)
        batch = self.client.batches.create(
            input_file_id=completed.file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert_equal(self.wait_until_ended(batch).request_counts.total, 5)
        pending = self.client.uploads.create(bytes=5, filename="a", **fields)
        self.client.uploads.parts.create(pending.id, data=b"12345")
        assert_equal(self.client.uploads.cancel(pending.id).status, "cancelled")
        raises(openai.BadRequestError, lambda: self.client.uploads.parts.create(pending.id, data=b"12345"))

    def pages(self):
        read_pages({self.upload()[0].id for _ in range(3)}, self.client.files.list(limit=1))
        read_pages({self.submit(1).id for _ in range(3)}, self.client.batches.list(limit=1))

    def batch(self):
        created = self.submit()
        ended = self.wait_until_ended(created)
        counts = ended.request_counts
        assert_equal((ended.status, counts.total, counts.completed, counts.failed), ("completed", 5, 4, 1))
        assert_equal((ended.metadata, ended.input_file_id), ({"run": "1"}, created.input_file_id))
        read = lambda file: [json.loads(line) for line in self.client.files.content(file).text.splitlines()]
        responses = {line["custom_id"]: line["response"] for line in read(ended.output_file_id)}
        assert_equal(sorted(responses), [f"line-{number}" for number in range(4)])
        assert all(response["body"]["choices"][0]["message"]["content"] for response in responses.values())
        errors = read(ended.error_file_id)
        assert_equal([(line["custom_id"], line["response"]["status_code"]) for line in errors], [("line-4", 404)])
        assert ended.id in [batch.id for batch in self.client.batches.list()]

    def b_cancel(self):
        created = self.submit(40)
        cancelled = self.client.batches.cancel(created.id)
        assert cancelled.status in ("cancelling", "cancelled", "completed"), cancelled.status
        ended = self.wait_until_ended(created)
        assert ended.status in ("cancelled", "completed"), ended.status
        assert ended.request_counts.completed + ended.request_counts.failed <= 40, ended


class MessageBatches:
    def __init__(self, batches):
        self.batches = batches

    def submit(self, count):
        params = {"max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]}
        models = [CLAUDE] * (count - 1) + [UNKNOWN_MODEL]
        requests = [{"custom_id": f"line-{n}", "params": {"model": model, **params}} for n, model in enumerate(models)]
        return self.batches.create(requests=requests)

    def wait_until_ended(self, batch):
        return poll_until(lambda batch: batch.processing_status == "ended", lambda: self.batches.retrieve(batch.id))

    def batch(self):
        created = self.submit(5)
        assert_equal((created.type, created.processing_status), ("message_batch", "in_progress"))
        ended = self.wait_until_ended(created)
        assert_equal((ended.request_counts.succeeded, ended.request_counts.errored), (4, 1))
        results = {line.custom_id: line.result for line in self.batches.results(created.id)}
        assert all(results[f"line-{number}"].message.content[0].text for number in range(4)), results
        assert_equal((results["line-4"].type, results["line-4"].error.error.type), ("errored", "not_found_error"))
        assert created.id in [batch.id for batch in self.batches.list(limit=5)]
        assert_equal(self.batches.delete(created.id).id, created.id)
        raises(anthropic.NotFoundError, lambda: self.batches.retrieve(created.id))

    def pages(self):
        read_pages({self.submit(1).id for _ in range(3)}, self.batches.list(limit=1))

    def b_cancel(self):
        created = self.submit(40)
        assert self.batches.cancel(created.id).processing_status in ("canceling", "ended")
        counts = self.wait_until_ended(created).request_counts
        assert_equal(counts.succeeded + counts.errored + counts.canceled + counts.expired + counts.processing, 40)


def openai_cells(_):
    responses, batches = Responses(OPENAI.responses), Batches(OPENAI)
    return {
        "background": responses.background,
        "follow": responses.follow,
        "cancel": responses.cancel,
        "files": batches.files,
        "uploads": batches.uploads,
        "pages": batches.pages,
        "batch": batches.batch,
        "b_cancel": batches.b_cancel,
        "webhook": webhook,
    }


def anthropic_cells(_):
    batches = MessageBatches(ANTHROPIC.messages.batches)
    return {"pages": batches.pages, "batch": batches.batch, "b_cancel": batches.b_cancel}


ONLY_BATCHES = "the API has only batches"
NO_WEBHOOK = {} if IS_LOCAL else {"webhook": "the receiver is on loopback, which a deployed server does not call"}
run(
    Row("openai python", "Asynchronous", openai_cells, NO_WEBHOOK),
    Row(
        "anthropic python",
        "Asynchronous",
        anthropic_cells,
        dict.fromkeys(("background", "follow", "cancel", "files", "uploads", "webhook"), ONLY_BATCHES),
    ),
)
