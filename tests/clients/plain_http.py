"""Plain HTTP: what the broker has beside the APIs that SDKs know."""

import time
import urllib.error
import urllib.request

from cells import *

JOB_TIMEOUT_S = 50
POLL_S = 0.2


def http(method, path, headers, body=None):
    """One request: its status, headers and JSON body."""
    headers = {"Content-Type": "application/json", **headers}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, method=method, headers=headers, data=data)
    try:
        with urllib.request.urlopen(request, timeout=CELL_TIMEOUT_S) as response:
            status, answered, content = response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        status, answered, content = error.code, error.headers, error.read()
    return status, answered, json.loads(content) if content else None


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def overflow(key):
    """Sends requests until one becomes a job; returns where that job is."""
    request = {"model": GPT, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]}
    for _ in range(BURST):
        status, headers, body = http("POST", "/v1/chat/completions", bearer(key) | {"Prefer": "respond-async"}, request)
        if status == 202:
            assert "respond-async" in headers["Preference-Applied"], headers
            return headers["Location"]
        assert status == 200, (status, body)
    raise AssertionError(f"{BURST} requests in a row found room")


def wait_for(key, location, wanted):
    deadline = time.monotonic() + JOB_TIMEOUT_S
    while True:
        status, _, job = http("GET", location, bearer(key))
        assert status == 200 and time.monotonic() < deadline, (status, job)
        if job["status"] == wanted:
            return
        assert job["status"] in ("queued", "running"), job
        time.sleep(POLL_S)


def quota():
    status, _, body = http("GET", "/v1/quota", bearer(KEY))
    assert status == 200 and body["tenant"] == "patient", (status, body)


def old_key():
    request = {"model": CLAUDE, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]}
    status, _, body = http("POST", "/v1/messages", {"X-Api-Key": KEY}, request)
    same((status, body["type"]), (200, "message"))


def cells(impatient_key):
    def job():
        location = overflow(impatient_key)
        same(http("GET", location, bearer(KEY))[0], 404)
        wait_for(impatient_key, location, "succeeded")
        status, _, answer = http("GET", f"{location}/result", bearer(impatient_key))
        assert status == 200 and answer["choices"][0]["message"]["content"], (status, answer)

    def cancel():
        location = overflow(impatient_key)
        status, _, body = http("DELETE", location, bearer(impatient_key))
        # The drain may have been faster.
        assert status in (200, 409), (status, body)
        wait_for(impatient_key, location, "cancelled" if status == 200 else "succeeded")

    return {"quota": quota, "old_key": old_key, "job": job, "cancel": cancel}


run(Row("plain HTTP", "Beside them", cells))
