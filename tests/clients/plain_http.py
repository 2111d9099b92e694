"""Plain HTTP: the broker's features that no SDK covers."""

import time
import urllib.error
import urllib.request

from cells import *

JOB_TIMEOUT_S = 50
POLL_INTERVAL_S = 0.2


def send(method, path, headers, body=None):
    """Sends a request. Returns the status, the headers and the JSON body of the response."""
    headers = {"Content-Type": "application/json", **headers}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, method=method, headers=headers, data=data)
    try:
        with urllib.request.urlopen(request, timeout=CELL_TIMEOUT_S) as response:
            status, headers, content = response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        status, headers, content = error.code, error.headers, error.read()
    return status, headers, json.loads(content) if content else None


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def submit_job(key):
    """Sends requests until one becomes a job. Returns the path of the job."""
    request = {"model": GPT, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]}
    for _ in range(MAX_REQUESTS_UNTIL_REFUSAL):
        async_headers = bearer(key) | {"Prefer": "respond-async"}
        status, headers, body = send("POST", "/v1/chat/completions", async_headers, request)
        if status == 202:
            assert "respond-async" in headers["Preference-Applied"], headers
            return headers["Location"]
        assert status == 200, (status, body)
    raise AssertionError(f"none of {MAX_REQUESTS_UNTIL_REFUSAL} consecutive requests became a job")


def wait_for(key, location, expected_status):
    deadline = time.monotonic() + JOB_TIMEOUT_S
    while True:
        status, _, job = send("GET", location, bearer(key))
        assert status == 200 and time.monotonic() < deadline, (status, job)
        if job["status"] == expected_status:
            return
        assert job["status"] in ("queued", "running"), job
        time.sleep(POLL_INTERVAL_S)


def quota():
    status, _, body = send("GET", "/v1/quota", bearer(KEY))
    assert status == 200 and body["tenant"] == "patient", (status, body)


def x_api_key():
    request = {"model": CLAUDE, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]}
    status, _, body = send("POST", "/v1/messages", {"X-Api-Key": KEY}, request)
    assert_equal((status, body["type"]), (200, "message"))


def cells(impatient_key):
    def job():
        location = submit_job(impatient_key)
        assert_equal(send("GET", location, bearer(KEY))[0], 404)
        wait_for(impatient_key, location, "succeeded")
        status, _, response = send("GET", f"{location}/result", bearer(impatient_key))
        assert status == 200 and response["choices"][0]["message"]["content"], (status, response)

    def cancel():
        location = submit_job(impatient_key)
        status, _, body = send("DELETE", location, bearer(impatient_key))
        # The job may have ended before the request to cancel it.
        assert status in (200, 409), (status, body)
        wait_for(impatient_key, location, "cancelled" if status == 200 else "succeeded")

    return {"quota": quota, "x_api_key": x_api_key, "job": job, "cancel": cancel}


run(Row("plain HTTP", "Spillway", cells))
