"""What every client's program has in common: its rows and cells, where the server is, and the prompts of the simulator.

A program names its rows, each with the cells that apply to its client, and calls `run`. The cells run at once, each within
a time of its own, and each outcome is printed as one line of JSON, which `matrix.py` puts into its place in the tables.
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
CA_FILE = os.environ["SPILLWAY_CA_FILE"]
KEY = os.environ["SPILLWAY_KEY"]
# Tenants that are refused after a few requests and answered again within seconds; each row has one to itself.
IMPATIENT_KEYS = os.environ["SPILLWAY_IMPATIENT_KEYS"].split(",")
UNKNOWN_KEY = "sk-spill-nobody-" + "0" * 64

CLAUDE = "claude-sonnet-4-5"
CLAUDE_ON_BEDROCK = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
GPT = "gpt-5"
NOVA = "us.amazon.nova-lite-v1:0"
TITAN = "amazon.titan-embed-text-v2:0"
COHERE = "cohere.embed-english-v3"
NO_MODEL = "no-such-model"

PROMPT = "Name three rivers, one per line."
# The simulator calls the tool that a prompt names in this way, if the request offers it.
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
# Longer than what a prompt must be to be cached.
LONG_TEXT = "The river rises in the mountains and flows through the plain. " * 200
# A red dot.
PNG_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg=="
)
MAX_TOKENS = 64

CELL_TIMEOUT_S = 60
# How many cells of one program run at a time.
AT_ONCE = 4
# An impatient tenant is refused within so many requests in a row.
BURST = 8
ATTEMPTS = 3

Cell = Callable[[], None]


@dataclass
class Row:
    """A client in one of the tables: its cells, made with the key of an impatient tenant, and what does not apply to it,
    each with the reason."""

    name: str
    table: str
    cells: Callable[[str], dict[str, Cell]]
    without: dict[str, str] = field(default_factory=dict)


def run(*rows: Row):
    """Runs all cells and prints their outcomes. Ends the process, whatever a cell still waits for."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for row, impatient_key in zip(rows, IMPATIENT_KEYS):
            for column, reason in row.without.items():
                tell(row, column, "-", reason)
            for column, cell in row.cells(impatient_key).items():
                if column not in row.without:
                    pool.submit(check, row, column, cell)
    os._exit(0)


def check(row: Row, column: str, cell: Cell):
    outcome = {}

    def attempt():
        try:
            cell()
            outcome["told"] = ""
        except Exception as error:
            outcome["told"] = f"{type(error).__name__}: {error}" + at(error)

    started = time.monotonic()
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(CELL_TIMEOUT_S)
    told = outcome.get("told", f"no outcome after {CELL_TIMEOUT_S} s")
    tell(row, column, "FAIL" if told else "ok", told, time.monotonic() - started)


def at(error: Exception) -> str:
    """Where in its own program a cell failed."""
    traceback, line = error.__traceback__, None
    while traceback:
        if os.path.dirname(traceback.tb_frame.f_code.co_filename) == os.path.dirname(__file__):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f" (line {line})"


def tell(row: Row, column: str, outcome: str, told: str, seconds: float = 0):
    line = {"table": row.table, "row": row.name, "column": column, "outcome": outcome, "told": told, "s": seconds}
    print(json.dumps(line), flush=True)


def same(actual, expected):
    assert actual == expected, f"{actual!r} instead of {expected!r}"


def raises(kind, call):
    """Calls and returns the error of that kind, which must be raised."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


def refused(kind, call):
    """Calls until it is refused with an error of that kind, and returns the error."""
    for _ in range(BURST):
        try:
            call()
        except kind as error:
            return error
    raise AssertionError(f"{BURST} requests in a row found room")


def soon(happens):
    """Tries until it happens: between a refusal and the next request a limit may have room again by itself."""
    assert any(happens() for _ in range(ATTEMPTS)), f"did not happen in {ATTEMPTS} attempts"
