"""What the SDKs for Python can ask for and fetch later: OpenAI's background responses, files and batches, and Anthropic's
batches."""

import http.server
import subprocess
import threading
import time

import anthropic
import openai
from standardwebhooks.webhooks import Webhook

from cells import *

PATIENCE_S = 50
# How long the server may not know of a new endpoint, and a little.
REGISTRY_CACHE_S = 2.5
OPENAI = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
ANTHROPIC = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)


def until(is_so, read):
    """Reads until it is so."""
    began = time.monotonic()
    while not is_so(thing := read()):
        assert time.monotonic() - began < PATIENCE_S, thing
        time.sleep(0.3)
    return thing


class Responses:
    def __init__(self, responses):
        self.responses = responses

    def begin(self, content=PROMPT, **more):
        return self.responses.create(model=GPT, input=content, max_output_tokens=MAX_TOKENS, background=True, **more)

    def ended(self, begun):
        return until(
            lambda response: response.status not in ("queued", "in_progress"),
            lambda: self.responses.retrieve(begun.id),
        )

    def background(self):
        begun = self.begin()
        assert begun.status in ("queued", "in_progress") and begun.background, begun
        ended = self.ended(begun)
        assert ended.status in ("completed", "incomplete") and ended.output_text, ended
        same(ended.output_text, self.responses.create(model=GPT, input=PROMPT, max_output_tokens=MAX_TOKENS).output_text)
        self.responses.delete(begun.id)
        raises(openai.NotFoundError, lambda: self.responses.retrieve(begun.id))

    def follow(self):
        events = list(self.begin(stream=True))
        same([event.sequence_number for event in events], list(range(len(events))))
        same((events[0].type, events[1].type), ("response.created", "response.queued"))
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        final = events[-1].response
        assert text and text == final.output_text, final
        middle = len(events) // 2
        rest = list(self.responses.retrieve(final.id, stream=True, starting_after=middle))
        same([event.model_dump() for event in rest], [event.model_dump() for event in events[middle + 1 :]])

    def cancel(self):
        begun = self.begin()
        cancelled = self.responses.cancel(begun.id)
        assert cancelled.status in ("cancelled", "completed", "incomplete"), cancelled
        same(self.ended(begun).status, cancelled.status)


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers a challenge, and keeps every other event with its headers."""

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


def operate(*arguments):
    """Runs the command against the server's own registry; gives what it printed."""
    variables = {"PATH": os.environ["PATH"], **json.loads(os.environ["SPILLWAY_EXPORTS"])}
    command = [os.environ["SPILLWAY_COMMAND"], "webhooks", *arguments]
    return subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout


def webhook():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/hook"
    told = operate("add", "patient", url, "--allow-loopback", "--event", "response.completed").split()
    secret = next(word for word in told if word.startswith("whsec_"))
    time.sleep(REGISTRY_CACHE_S)
    begun = Responses(OPENAI.responses).begin()
    of_this = lambda received: [entry for entry in received if entry[2]["data"]["id"] == begun.id]
    body, headers, _ = until(of_this, lambda: of_this(Receiver.received))[0]
    event = OPENAI.webhooks.unwrap(body, headers, secret=secret)
    same((event.type, event.data.id), ("response.completed", begun.id))
    same(Webhook(secret).verify(body, {name.lower(): value for name, value in headers.items()})["id"], event.id)
    raises(openai.InvalidWebhookSignatureError, lambda: OPENAI.webhooks.unwrap(body + " ", headers, secret=secret))


def lines(ids):
    """A batch of chats; the last asks for a model that does not exist."""
    for number in ids:
        body = {"model": GPT, "messages": [{"role": "user", "content": PROMPT}], "max_completion_tokens": MAX_TOKENS}
        body |= {"model": NO_MODEL} if number == ids[-1] else {}
        line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        yield json.dumps(line) + "\n"


class Batches:
    def __init__(self, client):
        self.client = client

    def upload(self, count=5):
        content = "".join(lines(range(count))).encode()
        return self.client.files.create(file=("batch.jsonl", content), purpose="batch"), content

    def submit(self, count=5):
        file, _ = self.upload(count)
        return self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"run": "1"}
        )

    def ended(self, batch):
        final = ("completed", "failed", "expired", "cancelled")
        return until(lambda batch: batch.status in final, lambda: self.client.batches.retrieve(batch.id))

    def files(self):
        file, content = self.upload()
        same((file.object, file.purpose, file.bytes, file.filename), ("file", "batch", len(content), "batch.jsonl"))
        same(self.client.files.content(file.id).read(), content)
        same(self.client.files.retrieve(file.id).id, file.id)
        assert file.id in [other.id for other in self.client.files.list(purpose="batch")]
        assert self.client.files.delete(file.id).deleted
        raises(openai.NotFoundError, lambda: self.client.files.retrieve(file.id))

    def batch(self):
        begun = self.submit()
        ended = self.ended(begun)
        counts = ended.request_counts
        same((ended.status, counts.total, counts.completed, counts.failed), ("completed", 5, 4, 1))
        same((ended.metadata, ended.input_file_id), ({"run": "1"}, begun.input_file_id))
        read = lambda file: [json.loads(line) for line in self.client.files.content(file).text.splitlines()]
        answers = {line["custom_id"]: line["response"] for line in read(ended.output_file_id)}
        same(sorted(answers), [f"line-{number}" for number in range(4)])
        assert all(answer["body"]["choices"][0]["message"]["content"] for answer in answers.values())
        errors = read(ended.error_file_id)
        same([(line["custom_id"], line["response"]["status_code"]) for line in errors], [("line-4", 404)])
        assert ended.id in [batch.id for batch in self.client.batches.list()]

    def b_cancel(self):
        begun = self.submit(40)
        cancelled = self.client.batches.cancel(begun.id)
        assert cancelled.status in ("cancelling", "cancelled", "completed"), cancelled.status
        ended = self.ended(begun)
        assert ended.status in ("cancelled", "completed"), ended.status
        assert ended.request_counts.completed + ended.request_counts.failed <= 40, ended


class MessageBatches:
    def __init__(self, batches):
        self.batches = batches

    def submit(self, count):
        params = {"max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]}
        models = [CLAUDE] * (count - 1) + [NO_MODEL]
        requests = [{"custom_id": f"line-{n}", "params": {"model": model, **params}} for n, model in enumerate(models)]
        return self.batches.create(requests=requests)

    def ended(self, batch):
        return until(lambda batch: batch.processing_status == "ended", lambda: self.batches.retrieve(batch.id))

    def batch(self):
        begun = self.submit(5)
        same((begun.type, begun.processing_status), ("message_batch", "in_progress"))
        ended = self.ended(begun)
        same((ended.request_counts.succeeded, ended.request_counts.errored), (4, 1))
        results = {line.custom_id: line.result for line in self.batches.results(begun.id)}
        assert all(results[f"line-{number}"].message.content[0].text for number in range(4)), results
        same((results["line-4"].type, results["line-4"].error.error.type), ("errored", "not_found_error"))
        assert begun.id in [batch.id for batch in self.batches.list(limit=5)]
        same(self.batches.delete(begun.id).id, begun.id)
        raises(anthropic.NotFoundError, lambda: self.batches.retrieve(begun.id))

    def b_cancel(self):
        begun = self.submit(40)
        assert self.batches.cancel(begun.id).processing_status in ("canceling", "ended")
        counts = self.ended(begun).request_counts
        same(counts.succeeded + counts.errored + counts.canceled + counts.expired + counts.processing, 40)


def of_openai(_):
    responses, batches = Responses(OPENAI.responses), Batches(OPENAI)
    return {
        "background": responses.background,
        "follow": responses.follow,
        "cancel": responses.cancel,
        "files": batches.files,
        "batch": batches.batch,
        "b_cancel": batches.b_cancel,
        "webhook": webhook,
    }


def of_anthropic(_):
    batches = MessageBatches(ANTHROPIC.messages.batches)
    return {"batch": batches.batch, "b_cancel": batches.b_cancel}


NO_RESPONSES = "the API has batches only"
run(
    Row("openai python", "Later", of_openai),
    Row("anthropic python", "Later", of_anthropic, dict.fromkeys(("background", "follow", "cancel", "files", "webhook"), NO_RESPONSES)),
)
