"""Requests that several scenarios send, and how they wait for jobs."""

from processes import wait_until

GPT = "gpt-5"
CLAUDE = "claude-sonnet-4-5"
NOVA = "nova-lite"
MAX_CALLS_UNTIL_JOB = 8
GUARDRAIL = {"guardrailIdentifier": "grrivers1", "guardrailVersion": "1"}


def chat(model: str = GPT, prompt: str = "Hello", **fields) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 20, **fields}


def converse(**fields) -> dict:
    messages = [{"role": "user", "content": [{"text": "Hello"}]}]
    return {"messages": messages, "inferenceConfig": {"maxTokens": 20}, **fields}


def response(prompt: str = "Hello", **fields) -> dict:
    return {"model": GPT, "input": prompt, "max_output_tokens": 20, "background": True, **fields}


def submit(broker, tenant: str, path: str, body: dict) -> str:
    """Sends requests of an impatient tenant until one becomes a job. Returns the job's `Location`."""
    for _ in range(MAX_CALLS_UNTIL_JOB):
        answer = broker.call("POST", path, body, tenant, Prefer="respond-async")
        if answer.status == 202:
            return answer.headers["Location"]
        answer.expect(200)
    raise AssertionError(f"none of {MAX_CALLS_UNTIL_JOB} calls became a job")


def polled(broker, path: str, tenant: str = "roomy") -> dict | None:
    """Reads what may have ended; None if the broker gave up on a store.

    The emulator can be slower than the broker waits, and a client repeats a poll that gets 503.
    """
    answer = broker.call("GET", path, tenant=tenant)
    return None if answer.status == 503 else answer.expect(200).json()


def ended_job(broker, tenant: str, location: str) -> dict:
    """Waits until a job has ended, and returns it."""

    def read():
        job = polled(broker, "/v1/jobs/" + location.rpartition("/")[2], tenant)
        return job if job and job["status"] not in ("queued", "running") else None

    return wait_until(read, broker.end_timeout_s, f"{location} ends")


def ended_response(broker, response_id: str, tenant: str = "roomy", timeout_s: float = 0) -> dict:
    """Waits until a background response has ended, and returns it."""

    def read():
        found = polled(broker, f"/v1/responses/{response_id}", tenant)
        return found if found and found["status"] not in ("queued", "in_progress") else None

    return wait_until(read, timeout_s or broker.end_timeout_s, f"{response_id} ends")


def run_in_background(broker, prompt: str = "Hello", tenant: str = "roomy", **fields) -> dict:
    """Creates a background response, and returns it when it has ended."""
    created = broker.call("POST", "/v1/responses", response(prompt, **fields), tenant).expect(200).json()
    return ended_response(broker, created["id"], tenant)
