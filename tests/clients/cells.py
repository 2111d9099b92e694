"""Common code of the client programs: rows and cells, the server's address, and test prompts.

A program defines a row for each client, with the cells that apply to it, and calls `run`. The cells
run concurrently, each with a timeout. `run` prints each outcome as a line of JSON, and `matrix.py`
puts it into the tables.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

URL = os.environ["SPILLWAY_URL"].rstrip("/")
TLS_URL = os.environ["SPILLWAY_TLS_URL"]
# Only `spillway local` speaks plain HTTP. It also knows callers by their access key id, and sends
# webhooks to loopback.
IS_LOCAL = URL.startswith("http:")
CA_FILE = os.environ["SPILLWAY_CA_FILE"]
KEY = os.environ["SPILLWAY_KEY"]
# Keys of tenants that are refused after a few requests and admitted again within seconds, for a row
# each.
IMPATIENT_KEYS = os.environ["SPILLWAY_IMPATIENT_KEYS"].split(",")
UNKNOWN_KEY = "sk-spill-nobody-" + "0" * 64

CLAUDE = "claude-sonnet-4-5"
CLAUDE_ON_BEDROCK = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
GPT = "gpt-5"
NOVA = "us.amazon.nova-lite-v1:0"
TITAN = "amazon.titan-embed-text-v2:0"
COHERE = "cohere.embed-english-v3"
UNKNOWN_MODEL = "no-such-model"

PROMPT = "Name three rivers, one per line."
# The simulator calls the tool that a prompt names in this syntax, if the request defines it.
TOOL_PROMPT = '[[tool=river_length {"river": "Elbe"}]] How long is it?'
TOOL_NAME = "river_length"
TOOL_DESCRIPTION = "The length of a river in kilometres."
TOOL_INPUT = {"river": "Elbe"}
TOOL_RESULT = "1094 km"
TOOL_SCHEMA = {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]}
RIVER_SCHEMA = {
    "type": "object",
    "properties": {"river": {"type": "string"}, "length_km": {"type": "integer"}},
    "required": ["river", "length_km"],
    "additionalProperties": False,
}
# Longer than the minimum length of a cached prompt.
LONG_TEXT = "The river rises in the mountains and flows through the plain. " * 200
# A red dot.
PNG_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg=="
)
MAX_TOKENS = 64

CELL_TIMEOUT_S = 60
# Maximum number of cells of a program that run concurrently.
MAX_CONCURRENT_CELLS = 4
# Maximum number of consecutive requests until an impatient tenant is refused.
MAX_REQUESTS_UNTIL_REFUSAL = 8
MAX_ATTEMPTS = 3

Cell = Callable[[], None]


@dataclass
class Row:
    """A client in a table.

    `cells` takes the key of an impatient tenant and returns the cells by column. `not_applicable`
    holds the columns that do not apply to the client, with the reason.
    """

    name: str
    table: str
    cells: Callable[[str], dict[str, Cell]]
    not_applicable: dict[str, str] = field(default_factory=dict)


def run(*rows: Row):
    """Runs all cells and prints their outcomes. Exits the process even if a cell still hangs."""
    with ThreadPoolExecutor(MAX_CONCURRENT_CELLS) as pool:
        for row, impatient_key in zip(rows, IMPATIENT_KEYS):
            for column, reason in row.not_applicable.items():
                report(row, column, "-", reason)
            for column, cell in row.cells(impatient_key).items():
                if column not in row.not_applicable:
                    pool.submit(check, row, column, cell)
    os._exit(0)


def check(row: Row, column: str, cell: Cell):
    messages = []

    def attempt():
        try:
            cell()
            messages.append("")
        except Exception as error:
            messages.append(f"{type(error).__name__}: {error}{location(error)}")

    start = time.monotonic()
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(CELL_TIMEOUT_S)
    message = messages[0] if messages else f"no outcome after {CELL_TIMEOUT_S} s"
    report(row, column, "FAIL" if message else "ok", message, time.monotonic() - start)


def location(error: Exception) -> str:
    """Returns the line of the client program that raised the error."""
    traceback, line = error.__traceback__, None
    while traceback:
        if os.path.dirname(traceback.tb_frame.f_code.co_filename) == os.path.dirname(__file__):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f" (line {line})"


def report(row: Row, column: str, outcome: str, message: str, seconds: float = 0):
    line = {"table": row.table, "row": row.name, "column": column, "outcome": outcome, "message": message, "s": seconds}
    print(json.dumps(line), flush=True)


def assert_equal(actual, expected):
    assert actual == expected, f"{actual!r} instead of {expected!r}"


def raises(kind, call):
    """Requires that the call raises an error of the kind, and returns the error."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


def call_until_refused(kind, call):
    """Repeats the call until it raises an error of the kind, and returns the error."""
    for _ in range(MAX_REQUESTS_UNTIL_REFUSAL):
        try:
            call()
        except kind as error:
            return error
    raise AssertionError(f"none of {MAX_REQUESTS_UNTIL_REFUSAL} consecutive requests was refused")


def eventually(condition):
    """Requires that the condition holds in one of a few attempts.

    A limit may have capacity again between a refusal and the next request.
    """
    assert any(condition() for _ in range(MAX_ATTEMPTS)), f"condition not met in {MAX_ATTEMPTS} attempts"
