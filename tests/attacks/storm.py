"""Sends 500 requests at once at each limit of a tenant, and compares with the simulator's account.

    python tests/attacks/storm.py target/debug/spillway

Each tenant of `storm.toml` has one limit. Its requests come together, so that most of them find the
limit in the same state. The run fails if the simulator has served more than a limit allows, or less
than one request.
"""

import collections
import dataclasses
import pathlib
import sys
import tomllib
import uuid
from collections.abc import Callable

import broker

SETTINGS = pathlib.Path(__file__).with_name("storm.toml")
AT_ONCE = 500
CHAT = {"model": "claude", "max_tokens": 200, "messages": [{"role": "user", "content": "[[output_tokens=150]] Hello"}]}
LONG = [{"role": "user", "content": "[[output_tokens=9000]] Hello"}]


@dataclasses.dataclass
class Storm:
    """Requests at one limit."""

    # Tenants that send them in turns.
    tenants: list[str]
    # Path, body and headers of a request.
    request: Callable[[], tuple]
    # What the limit bounds: a field of the simulator's account, its price, or accepted requests.
    bounded: str
    limit: int
    # Whether each request is wrong in itself, so that none is served.
    is_wrong: bool = False
    # What an accepted request counts for.
    weight: int = 1


def chat(model="claude", headers=()):
    return lambda: ("/v1/chat/completions", {**CHAT, "model": model}, headers)


def invoke(**limits):
    return lambda: ("/model/gpt/invoke", {"messages": LONG, **limits}, ())


def cached():
    # Each prompt is new, so that each is written to the cache and none is read from it.
    text = f"{uuid.uuid4()} " + "word " * 2_000
    block = {"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    return "/v1/messages", {"model": "claude", "max_tokens": 10, "messages": [{"role": "user", "content": [block]}]}, ()


def embeddings():
    return "/v1/embeddings", {"model": "titan", "input": ["a word"] * 20}, ()


def count():
    return "/v1/messages/count_tokens", {"model": "claude", "messages": [{"role": "user", "content": "Hello"}]}, ()


def guardrail():
    return "/guardrail/g1/version/1/apply", {"source": "INPUT", "content": [{"text": {"text": "Hello"}}]}, ()


STORMS = [
    Storm(["in-flight"], chat("slow"), "peak_in_flight", 3),
    Storm(["requests"], chat(), "requests", 6),
    Storm(["tokens"], chat(), "quota_tokens", 20_000),
    Storm(["day"], chat(), "quota_tokens", 20_000),
    Storm(["budget"], chat(), "microusd", 100_000),
    Storm(["member-0", "member-1", "member-2"], chat(), "quota_tokens", 20_000),
    Storm(["pool"], chat("small-pool"), "peak_in_flight", 4),
    Storm(["budget-two-limits"], invoke(max_tokens=1, max_completion_tokens=9000), "microusd", 100_000, is_wrong=True),
    Storm(["tokens-two-limits"], invoke(max_tokens=1, max_completion_tokens=9000), "quota_tokens", 20_000, is_wrong=True),
    Storm(["tokens-many-answers"], invoke(max_tokens=100, n=16), "quota_tokens", 20_000, is_wrong=True),
    Storm(["budget-cache"], cached, "microusd", 100_000),
    Storm(["requests-embeddings"], embeddings, "requests", 60),
    Storm(["jobs"], chat(headers=[("prefer", "respond-async")]), "accepted", 51),
    Storm(["lists"], count, "accepted", 100),
    Storm(["guardrail"], guardrail, "accepted", 2_000, weight=150),
]


def microusd(account, prices):
    """Returns the price of an account; writes to the cache count as writes for an hour."""
    prices = {"cache_read": 0, "cache_write_1h": 0, **prices}
    return round(
        account.get("input_tokens", 0) * prices["input"]
        + account.get("cache_read_input_tokens", 0) * prices["cache_read"]
        + account.get("cache_write_input_tokens", 0) * prices["cache_write_1h"]
        + account.get("output_tokens", 0) * prices["output"]
    )


def used(storm, statuses, accounts, prices):
    """Returns how much of its limit a storm has used."""
    match storm.bounded:
        case "accepted":
            return (statuses[200] + statuses[202]) * storm.weight
        case "microusd":
            return sum(microusd(account, prices) for account in accounts)
        case field:
            return sum(account.get(field, 0) for account in accounts)


def run(spillway, storm, prices):
    """Runs a storm, prints its line, and returns what is wrong."""

    def send(index):
        path, body, headers = storm.request()
        return spillway.post(storm.tenants[index % len(storm.tenants)], path, body, headers)[0]

    statuses = collections.Counter(broker.at_once(AT_ONCE, send))
    model = storm.request()[1].get("model", "gpt")
    amount = used(storm, statuses, [spillway.account(tenant) for tenant in storm.tenants], prices[model])
    answers = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    line = f"{storm.tenants[0]:22}{storm.bounded:16}{storm.limit:>9}{amount:>9}  {answers}"
    print(line, flush=True)
    is_served = statuses[200] + statuses[202] > 0
    is_right = amount <= storm.limit and is_served != storm.is_wrong and set(statuses) <= {200, 202, 400, 402, 429}
    return [] if is_right else [line]


def main():
    settings = SETTINGS.read_text()
    parsed = tomllib.loads(settings)
    prices = {model["name"]: model["ladder"][0].get("prices") for model in parsed["models"]}
    settings += broker.keys_table(tenant["name"] for tenant in parsed["tenants"])
    print(f"{'TENANT':22}{'BOUNDED':16}{'LIMIT':>9}{'USED':>9}  ANSWERS")
    with broker.run(sys.argv[1], settings) as spillway:
        wrong = [line for storm in STORMS for line in run(spillway, storm, prices)]
    print(f"{len(STORMS) - len(wrong)} passed, {len(wrong)} failed")
    sys.exit("\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
    main()
