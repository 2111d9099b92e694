"""Sends mixed traffic of well-behaved and hostile clients for minutes, and watches the process.

    python tests/attacks/soak.py target/debug/spillway --minutes 10

Five tenants send calls, streams, embeddings, retries, jobs and files. One client in ten hangs up,
and some have a wrong key or send a body that is not complete. The run fails if a response is a
server error, if memory or descriptors keep growing, or if the tokens that the ledger has settled
differ from the simulator's account.
"""

import argparse
import collections
import http.client
import json
import pathlib
import random
import sys
import threading
import time
import tomllib
import urllib.parse
import uuid

import broker

SETTINGS = pathlib.Path(__file__).with_name("soak.toml")
TENANTS = ["large", "small", "poor", "member-0", "member-1"]
CLIENTS = 12
# The process may grow by this much between the first third of the run and its end.
MAX_GROWTH_KIB = 16 * 1024
MAX_MORE_DESCRIPTORS = 32


def prompt(chance):
    words = " ".join(str(chance.random()) for _ in range(chance.randint(1, 200)))
    return [{"role": "user", "content": f"[[output_tokens={chance.randint(1, 300)}]] {words}"}]


def call(spillway, tenant, chance):
    return spillway.post(tenant, "/v1/chat/completions", {"model": "claude", "max_tokens": 400, "messages": prompt(chance)})[0]


def messages(spillway, tenant, chance):
    return spillway.post(tenant, "/v1/messages", {"model": "claude", "max_tokens": 400, "messages": prompt(chance)})[0]


def embeddings(spillway, tenant, chance):
    return spillway.post(tenant, "/v1/embeddings", {"model": "titan", "input": ["some words"] * chance.randint(1, 5)})[0]


def stream(spillway, tenant, chance):
    """Reads a stream; one client in ten hangs up after the first bytes."""
    body = {"model": "claude", "max_tokens": 400, "stream": True, "messages": prompt(chance)}
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(spillway.url).netloc, timeout=broker.TIMEOUT_S)
    try:
        headers = {"authorization": f"Bearer {broker.key(tenant)}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        response.read(100 if chance.random() < 0.1 else None)
        return response.status
    finally:
        connection.close()


def hang_up(spillway, tenant, chance):
    """Sends a call and closes the connection before the answer."""
    body = json.dumps({"model": "claude", "max_tokens": 400, "messages": prompt(chance)})
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(spillway.url).netloc, timeout=broker.TIMEOUT_S)
    connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {broker.key(tenant)}"})
    time.sleep(chance.random() / 20)
    connection.close()
    return "hung up"


def incomplete(spillway, tenant, chance):
    """Announces a body and closes the connection before its end."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(spillway.url).netloc, timeout=broker.TIMEOUT_S)
    connection.putrequest("POST", "/v1/messages")
    connection.putheader("authorization", f"Bearer {broker.key(tenant)}")
    connection.putheader("content-length", "1000")
    connection.endheaders(b"{" * chance.randint(0, 999))
    connection.close()
    return "incomplete"


def retry(spillway, tenant, chance):
    """Sends the same call twice with one idempotency key."""
    body, headers = {"model": "claude", "max_tokens": 400, "messages": prompt(chance)}, {"idempotency-key": str(uuid.uuid4())}
    first = spillway.post(tenant, "/v1/chat/completions", body, headers)
    second = spillway.post(tenant, "/v1/chat/completions", body, headers)
    return f"{first[0]}, then {second[0]}"


def job(spillway, tenant, chance):
    body = {"model": "claude", "max_tokens": 400, "messages": prompt(chance)}
    return spillway.post(tenant, "/v1/chat/completions", body, {"prefer": "respond-async"})[0]


def nested(spillway, tenant, chance):
    depth = chance.randint(1, 50_000)
    return broker.send(
        spillway.url, "POST", "/v1/messages", b"[" * depth, {"authorization": f"Bearer {broker.key(tenant)}"}
    )[0]


def wrong_key(spillway, _, chance):
    return broker.send(spillway.url, "POST", "/v1/messages", b"{}", {"x-api-key": broker.key(str(chance.random()))})[0]


def listing(spillway, tenant, chance):
    return spillway.get(tenant, chance.choice(["/v1/jobs", "/v1/files", "/v1/models", "/v1/quota"]))[0]


ACTIONS = [call, call, call, messages, messages, embeddings, stream, stream, hang_up, incomplete, retry, job, nested, wrong_key, listing]


def client(spillway, seed, until, counts, failures):
    chance = random.Random(seed)
    while time.monotonic() < until:
        action, tenant = chance.choice(ACTIONS), chance.choice(TENANTS)
        try:
            outcome = action(spillway, tenant, chance)
        except Exception as error:
            failures.append(f"{action.__name__}: {error!r}")
            continue
        counts[f"{action.__name__}: {outcome}"] += 1
        if any(f"{status}" in f"{outcome}" for status in (500, 502, 503, 504)):
            failures.append(f"{action.__name__}: {outcome}")


def differences(spillway):
    """Returns the tenants whose settled tokens differ from the simulator's account."""
    found = []
    for tenant in TENANTS:
        settled, account = spillway.settled(tenant), spillway.account(tenant)
        read = sum(account.get(name, 0) for name in ("input_tokens", "cache_read_input_tokens", "cache_write_input_tokens"))
        if (settled["input_tokens"], settled["output_tokens"]) != (read, account.get("output_tokens", 0)):
            found.append(f"{tenant}: settled {settled}, the simulator served {account}")
    return found


def wait_until_settled(spillway):
    """Waits until the accounts agree: the last jobs and settlements follow the last responses."""
    deadline = time.monotonic() + 240
    while (found := differences(spillway)) and time.monotonic() < deadline:
        time.sleep(2)
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("--minutes", type=float, default=10)
    arguments = parser.parse_args()
    settings = SETTINGS.read_text()
    settings += broker.keys_table(tenant["name"] for tenant in tomllib.loads(settings)["tenants"])
    counts, failures, samples = collections.Counter(), [], []
    with broker.run(arguments.command, settings) as spillway:
        until = time.monotonic() + arguments.minutes * 60
        clients = [
            threading.Thread(target=client, args=(spillway, seed, until, counts, failures)) for seed in range(CLIENTS)
        ]
        for thread in clients:
            thread.start()
        while time.monotonic() < until:
            time.sleep(min(10, arguments.minutes * 6))
            samples.append((spillway.memory_kib(), spillway.descriptors()))
        for thread in clients:
            thread.join()
        failures += wait_until_settled(spillway)
        total = json.loads(broker.send(spillway.simulator, "GET", "/_sim/stats", None, {})[1])["total"]
    for outcome, count in sorted(counts.items()):
        print(f"{count:>7}  {outcome}")
    print(f"{sum(counts.values())} requests; the simulator served {total}")
    for name, values, growth in (
        ("memory in KiB", [memory for memory, _ in samples], MAX_GROWTH_KIB),
        ("descriptors", [descriptors for _, descriptors in samples], MAX_MORE_DESCRIPTORS),
    ):
        settled_in = values[len(values) // 3:]
        print(f"{name}: {values[0]} at the start, then {min(settled_in)} to {max(settled_in)}, {values[-1]} at the end")
        if values[-1] > settled_in[0] + growth:
            failures.append(f"{name} grew from {settled_in[0]} to {values[-1]}")
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
