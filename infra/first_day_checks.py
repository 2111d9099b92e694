"""The eleven checks of `first_day.py`. Each returns a result: passed, failed, or not checked with the reason."""

import json
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from broker_client import Unreachable, chat

MIB = 1024 * 1024
# API Gateway ends a response that is silent for so long.
GATEWAY_IDLE_S = 300
# Largest file that Lambda's 6 MB for an event surely leave room for, and one that is too large.
ACCEPTED_BODY_MIB, LARGE_BODY_MIB = 4.3, 5.9
# A tenant with a higher limit takes too many calls to exceed it.
MAX_REQUESTS_PER_MINUTE = 30
REFUSAL_HEADERS = ("retry-after", "retry-after-ms", "x-spillway-limit")


@dataclass
class Result:
    """The verdict of a check, and what it saw, or why it could not check."""

    verdict: str
    seen: str


def passed(seen):
    return Result("pass", seen)


def failed(seen):
    return Result("FAIL", seen)


def unchecked(reason):
    return Result("----", f"not checked, because {reason}")


@dataclass
class Subject:
    """What is checked: the broker at its base URLs, and the account if it can be asked."""

    broker: object
    model: str
    function_url: str = ""
    account: object = None
    long_tokens: int = 30_000
    long_seconds: float = GATEWAY_IDLE_S
    idle_calls: int = 60
    idle_pause_s: float = 60
    parallel: int = 50
    poll_s: float = 5
    patience_s: float = 600

    def until(self, is_done):
        """Returns whether `is_done` becomes true within the patience."""
        end = time.monotonic() + self.patience_s
        while not (done := is_done()) and time.monotonic() < end:
            time.sleep(self.poll_s)
        return done

    def quota(self):
        return self.broker.request("GET", "/v1/quota").json()

    def requests_per_minute(self):
        """Returns the tenant's limit of requests per minute, or None if it is too high to exceed here."""
        for limit in self.quota().get("limits", []):
            if limit["limit"] == "requests_per_minute" and limit["cap"] <= MAX_REQUESTS_PER_MINUTE:
                return limit["cap"]
        return None

    def burst(self, number, headers=None):
        """Returns the answers to `number` chats that are sent at the same time."""

        def send(_):
            return self.broker.request("POST", "/v1/chat/completions", chat(self.model), headers)

        with ThreadPoolExecutor(min(number, 16)) as threads:
            return list(threads.map(send, range(number)))


NO_SMALL_LIMIT = f"the key's tenant has no limit of at most {MAX_REQUESTS_PER_MINUTE} requests per minute"
NO_ACCOUNT = "the account cannot be asked: it needs boto3, credentials and --stack"


def http2(subject):
    """Each base URL speaks HTTP/2, which the Bedrock client of the AWS SDK for JavaScript needs."""
    seen = {}
    for name, url in [("the API", subject.broker.url), ("the Function URL", subject.function_url)]:
        if url.startswith("https:"):
            seen[name] = negotiated(subject.broker.tls, url)
    if not seen:
        return unchecked("the base URL has no TLS")
    text = "; ".join(f"{name} speaks {protocol}" for name, protocol in seen.items())
    return passed(text) if set(seen.values()) == {"h2"} else failed(text)


def negotiated(tls, url):
    """Returns the protocol that the server of a URL chooses when it is offered both."""
    tls.set_alpn_protocols(["h2", "http/1.1"])
    try:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port or 443), timeout=10) as plain:
            with tls.wrap_socket(plain, server_hostname=address.hostname) as encrypted:
                return encrypted.selected_alpn_protocol() or "no protocol"
    except OSError as error:
        raise Unreachable(str(error)) from error
    finally:
        tls.set_alpn_protocols(["http/1.1"])


def refusals(subject):
    """A 401 and a 429 arrive with the broker's headers and its error."""
    unknown = subject.broker.request("GET", "/v1/models", with_key=False)
    if unknown.status != 401 or not unknown.error():
        return failed(f"without a key: {unknown.shown()}")
    challenge = [name for name in unknown.headers if name.endswith("www-authenticate")]
    seen = f"401 has {', '.join(challenge) or 'no www-authenticate'}"
    limit = subject.requests_per_minute()
    if limit is None:
        return unchecked(f"{NO_SMALL_LIMIT}; {seen}")
    refused = [answer for answer in subject.burst(2 * limit + 1) if answer.status == 429]
    if not refused:
        return failed(f"{2 * limit + 1} calls at a limit of {limit} per minute gave no 429")
    answer = refused[0]
    missing = [name for name in REFUSAL_HEADERS if name not in answer.headers]
    if missing or not answer.error():
        return failed(f"429 lacks {', '.join(missing) or 'an error'}: {answer.shown()}")
    return passed(f"{seen}; 429 has {', '.join(sorted(answer.headers))}")


def resends(subject):
    """Jobs over the tenant's limit end, and Lambda drops none of their messages as a loop."""
    limit = subject.requests_per_minute()
    if limit is None:
        return unchecked(NO_SMALL_LIMIT)
    start = time.time()
    body = {"model": subject.model, "input": "Say hello.", "max_output_tokens": 16, "background": True}
    answers = [subject.broker.request("POST", "/v1/responses", body) for _ in range(3 * limit)]
    waiting = {answer.json().get("id") for answer in answers}
    if not all(waiting) or any(answer.status >= 300 for answer in answers):
        return failed(f"a background response was not accepted: {answers[-1].shown()}")
    states = Counter()

    def have_ended():
        for job in sorted(waiting):
            status = subject.broker.request("GET", f"/v1/responses/{job}").json().get("status")
            if status not in ("queued", "in_progress"):
                states[status] += 1
                waiting.discard(job)
        return not waiting

    # An answer that reaches its output limit is incomplete.
    if not subject.until(have_ended) or not set(states) <= {"completed", "incomplete"}:
        return failed(f"{len(waiting)} of {len(answers)} jobs have not ended; the others: {dict(states)}")
    jobs = f"{len(answers)} jobs at {limit} per minute ended in {time.time() - start:.0f} s"
    if subject.account is None:
        return unchecked(f"{NO_ACCOUNT}; {jobs}")
    loops, dropped = subject.account.recursive_loops(), subject.account.dropped_invocations(start)
    seen = f"{jobs}; the drain's RecursiveLoop is {loops}; {dropped:.0f} invocations dropped"
    return passed(seen) if loops == "Allow" and dropped == 0 else failed(seen)


def idle_calls(subject):
    """A call now and then never fails, although the function was frozen before it."""
    seen = Counter()
    for number in range(subject.idle_calls):
        if number:
            time.sleep(subject.idle_pause_s)
        try:
            answer = subject.broker.patient("POST", "/v1/chat/completions", chat(subject.model))
            seen[str(answer.status)] += 1
        except Unreachable as error:
            seen[str(error)] += 1
    return passed(str(dict(seen))) if set(seen) == {"200"} else failed(str(dict(seen)))


def long_answer(subject):
    """A whole answer of more than five minutes arrives, or is refused with the broker's error."""
    limits = [limit["cap"] for limit in subject.quota().get("limits", []) if "tokens" in limit["limit"]]
    if min(limits, default=subject.long_tokens) < subject.long_tokens:
        return unchecked(f"the tenant's token limits are below --long-tokens {subject.long_tokens}")
    count = subject.long_tokens // 2
    prompt = f"Count from 1 to {count}, one number per line. Leave no number out. [[output_tokens={subject.long_tokens}]]"
    body = chat(subject.model, subject.long_tokens, prompt=prompt)
    start = time.monotonic()
    try:
        answer = subject.broker.patient("POST", "/v1/chat/completions", body, timeout_s=1000)
    except Unreachable as error:
        return failed(f"the answer was cut off after {time.monotonic() - start:.0f} s: {error}")
    seen = f"{answer.status} after {answer.seconds:.0f} s"
    if answer.status == 200 and answer.json().get("choices"):
        if answer.seconds < subject.long_seconds:
            return unchecked(f"the model answered in {answer.seconds:.0f} s; choose a slower one, or more --long-tokens")
        return passed(seen)
    if answer.status == 504 and is_from_broker(answer) and answer.seconds < subject.long_seconds:
        return unchecked(f"the model's timeout_ms ended the call after {answer.seconds:.0f} s")
    return passed(f"{seen}: {answer.error()}") if is_from_broker(answer) else failed(f"{seen}: {answer.shown()}")


def is_from_broker(answer):
    return bool(answer.error()) and "x-request-id" in answer.headers


def bodies(subject):
    """A file of 4.3 MiB is accepted. One of 5.9 MiB is accepted, or refused with an error that SDKs can read."""
    seen = []
    for size_mib in (ACCEPTED_BODY_MIB, LARGE_BODY_MIB):
        try:
            answer = upload(subject.broker, int(size_mib * MIB))
        except Unreachable as error:
            return failed(f"{size_mib} MiB: {error}")
        if answer.status == 200:
            subject.broker.request("DELETE", f"/v1/files/{answer.json().get('id')}")
        elif size_mib == ACCEPTED_BODY_MIB or answer.status != 413 or not answer.error():
            return failed(f"{size_mib} MiB: {answer.shown()}")
        seen.append(f"{size_mib} MiB: {answer.status}")
    return passed("; ".join(seen))


def upload(broker, size):
    """Uploads a batch file of `size` bytes, made of long lines."""
    request = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": chat("a", prompt="x" * 100_000)}
    line = json.dumps(request).encode() + b"\n"
    part = b'--b\r\ncontent-disposition: form-data; name="'
    head = part + b'purpose"\r\n\r\nbatch\r\n' + part + b'file"; filename="a.jsonl"\r\n\r\n'
    body = head + line * (size // len(line)) + b"\r\n--b--\r\n"
    return broker.request("POST", "/v1/files", body, {"content-type": "multipart/form-data; boundary=b"})


def signed_arn(subject):
    """boto3 reaches a model by its ARN through the IAM front door."""
    broker = subject.broker
    if not broker.credentials:
        return unchecked("requests are not signed: deploy with FrontDoorAuth=AWS_IAM and run with --sign")
    unsigned = broker.without_signature().request("GET", "/v1/models")
    if unsigned.status != 403:
        return failed(f"an unsigned request is not refused: {unsigned.shown()}")
    profiles = broker.request("GET", "/inference-profiles").json().get("inferenceProfileSummaries")
    if not profiles:
        return failed("/inference-profiles lists no model")
    arn = profiles[0]["inferenceProfileArn"]
    text = broker.converse(arn)
    return passed(f"{arn} answers {text[:40]!r}")


def cut_stream(subject):
    """A stream that its client cuts off is settled, and its in-flight slot is free again."""
    before = subject.quota()["settled"]["requests"]
    body = chat(subject.model, 300, stream=True, prompt="Write 200 words about rivers. [[output_tokens=200]]")
    connection, response = subject.broker.stream("/v1/chat/completions", body)
    first = response.readline()
    # Closes the socket at once, whatever is unread.
    response.close()
    connection.close()
    if response.status != 200:
        return failed(f"the stream did not begin: {response.status} {first[:160]!r}")
    start = time.monotonic()

    def is_settled():
        quota = subject.quota()
        in_flight = [limit["used"] for limit in quota["limits"] if limit["limit"] == "in_flight"]
        return quota["settled"]["requests"] > before and not any(in_flight)

    if not subject.until(is_settled):
        return failed(f"the call is not settled after {time.monotonic() - start:.0f} s")
    return passed(f"settled within {time.monotonic() - start:.0f} s")


def addresses(subject):
    """The addresses in answers work as they are: `Location`, `result` and `results_url`."""
    limit = subject.requests_per_minute()
    if limit is None:
        return unchecked(NO_SMALL_LIMIT)
    accepted = [answer for answer in subject.burst(2 * limit + 1, {"prefer": "respond-async"}) if answer.status == 202]
    if not accepted:
        return failed("no call with Prefer: respond-async became a job")
    location = accepted[0].headers.get("location", "")
    job_url, job = subject.broker.resolve("/v1/chat/completions", location), {}

    def has_ended():
        answer = subject.broker.request("GET", job_url)
        job.update(answer.json(), http=answer.status)
        return answer.status != 200 or job["status"] not in ("queued", "running")

    if not subject.until(has_ended) or job["http"] != 200:
        return failed(f"Location {location}: HTTP {job['http']}, the job is {job.get('status')}")
    result = subject.broker.request("GET", subject.broker.resolve("/v1/chat/completions", job["result"] or ""))
    if result.status != 200:
        return failed(f"result {job['result']}: {result.shown()}")
    return results_url(subject, f"Location {location}, result {job['result']}")


def results_url(subject, seen):
    params = {"model": subject.model, "max_tokens": 16, "messages": [{"role": "user", "content": "Say hello."}]}
    batch = {"requests": [{"custom_id": "a", "params": params}]}
    batch = subject.broker.request("POST", "/v1/messages/batches", batch).json()

    def has_ended():
        batch.update(subject.broker.request("GET", f"/v1/messages/batches/{batch.get('id')}").json())
        return batch.get("processing_status") == "ended"

    if not subject.until(has_ended):
        return failed(f"the batch has not ended: {json.dumps(batch)[:160]}")
    url = subject.broker.resolve("/v1/messages/batches", batch["results_url"])
    results = subject.broker.request("GET", url)
    seen = f"{seen}, results_url {batch['results_url']}"
    has_line = results.status == 200 and b'"custom_id"' in results.body
    return passed(seen) if has_line else failed(f"{seen}: {results.shown()}")


def parallel_calls(subject):
    """Calls that arrive together are all served: the account has enough Lambda concurrency."""
    start_together, seen = threading.Barrier(subject.parallel), Counter()

    def call():
        start_together.wait()
        try:
            return str(subject.broker.request("GET", "/v1/models").status)
        except Unreachable as error:
            return str(error)

    with ThreadPoolExecutor(subject.parallel) as threads:
        for future in [threads.submit(call) for _ in range(subject.parallel)]:
            seen[future.result()] += 1
    return passed(str(dict(seen))) if set(seen) == {"200"} else failed(str(dict(seen)))


def metrics(subject):
    """The metrics of the calls appear in CloudWatch."""
    if subject.account is None:
        return unchecked(NO_ACCOUNT)
    subject.broker.patient("POST", "/v1/chat/completions", chat(subject.model))
    if not subject.until(subject.account.metric_names):
        return failed(f"the broker has no metric after {subject.patience_s:.0f} s")
    return passed(f"the broker has {', '.join(sorted(subject.account.metric_names()))}")
