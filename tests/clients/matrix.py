"""Calls one Spillway with the clients that its users have, and prints what works for each: a table for each API.

    python matrix.py target/debug/spillway [PROGRAM…]

Each client family is a program of its own beside this file, which prints the outcomes of its cells (see `cells.py` and
`cells.mjs`). A cell is `ok`, `FAIL`, or `-` where it does not apply; the reasons are told below the tables. The exit code
is 1 if a cell failed or a program did not report one.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import server

HERE = pathlib.Path(__file__).parent
COMMON = ["plain", "stream", "tools", "image", "error", "retry"]
COLUMNS = {
    "OpenAI": [*COMMON, "schema", "models", "embed", "respond", "r_stream", "r_tools", "r_schema"],
    "Anthropic": [*COMMON, "schema", "models", "count", "thinking", "cache"],
    "Bedrock": [*COMMON, "schema", "thinking", "cache", "count", "guardrail", "invoke", "i_stream", "embed"],
    "Later": ["background", "follow", "cancel", "files", "batch", "b_cancel", "webhook"],
    "Beside them": ["quota", "old_key", "job", "cancel"],
}
LEGEND = {
    "plain": "an answer and its usage",
    "stream": "the same answer in pieces",
    "tools": "the model calls a tool, the client answers, the model ends; streamed as well",
    "image": "an image in the question",
    "error": "an unknown model, a bad field and an unknown key raise the client's own errors",
    "retry": "429 with the time to come back, after which the client's own retry succeeds",
    "schema": "an answer that is held to a JSON schema",
    "models": "the list of models",
    "embed": "embeddings: floats and Base64, or Titan's and Cohere's bodies",
    "respond, r_…": "the Responses API: plain, streamed, tools, held to a schema",
    "count": "tokens are counted as they are charged",
    "thinking": "reasoning, streamed and sent back",
    "cache": "a prompt is written to the cache and read from it",
    "guardrail": "ApplyGuardrail",
    "invoke, i_stream": "InvokeModel, whole and streamed",
    "background": "a background response: begun, fetched, deleted",
    "follow": "the stream of one, and the rest of it from its middle",
    "files": "a file is stored, read, listed, deleted",
    "batch, b_cancel": "a batch with a bad line and its results; a batch that is taken back",
    "webhook": "the SDK's own unwrap, and standardwebhooks, take the event that tells the end",
    "old_key": "the key in x-api-key",
    "job, cancel": "a request that may wait becomes a job, which is finished or cancelled",
}
# The longest first, since they run side by side.
PROGRAMS = [
    "aws_cli.py",
    "later_python.py",
    "later_js.mjs",
    "claude_code.py",
    "litellm_python.py",
    "codex_cli.py",
    "langchain_python.py",
    "ai_sdk.mjs",
    "anthropic_python.py",
    "anthropic_js.mjs",
    "aws_js.mjs",
    "aws_rust",
    "boto3_python.py",
    "plain_http.py",
    "openai_python.py",
    "openai_js.mjs",
]
AT_ONCE = 3
PROGRAM_TIMEOUT_S = 240
IMPATIENT_TENANTS_EACH = 6


def main(command: str, programs: list[str]) -> int:
    with server.started(command) as told:
        tenants = iter(server.impatient().values())
        calls = []
        for program in programs:
            keys = [next(tenants) for _ in range(IMPATIENT_TENANTS_EACH)]
            calls.append((program, call_of(program, command), environment(told, keys, command)))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            outcomes = [line for lines in pool.map(lambda call: outcomes_of(*call), calls) for line in lines]
    return show(outcomes)


def environment(told: dict[str, str], impatient_keys: list[str], command: str) -> dict[str, str]:
    """What a program is started with: nothing of the caller's own AWS or API settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "SPILLWAY_URL": told["ready"],
        "SPILLWAY_TLS_URL": told["ready-tls"],
        "SPILLWAY_CA_FILE": told["ca"],
        "NODE_EXTRA_CA_CERTS": told["ca"],
        "SPILLWAY_KEY": told["key patient"],
        "SPILLWAY_IMPATIENT_KEYS": ",".join(impatient_keys),
        # What leads the command to the server's own services, which no client may use.
        "SPILLWAY_COMMAND": str(pathlib.Path(command).resolve()),
        "SPILLWAY_EXPORTS": json.dumps({name: value for name, value in told.items() if name.isupper()}),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }


def call_of(program: str, command: str) -> list:
    """How to start a program; the one in Rust is beside the server."""
    if program.endswith(".py"):
        return [sys.executable, HERE / program]
    if program.endswith(".mjs"):
        return [shutil.which("node") or "node", HERE / program]
    return [pathlib.Path(command).parent / "examples" / program]


def outcomes_of(program: str, call: list, variables: dict[str, str]) -> list[dict]:
    """Runs a program; what it reports, and a failure of its own if it ends otherwise than it should."""
    began = time.monotonic()
    try:
        process = subprocess.Popen(call, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        return [failure(program, str(error))]
    try:
        output, complaints = process.communicate(timeout=PROGRAM_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, complaints = process.communicate()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    print(f"{program}: {len(lines)} cells in {time.monotonic() - began:.1f} s", flush=True)
    if process.returncode == 0 and lines:
        return lines
    return [*lines, failure(program, f"ended with {process.returncode}: {complaints[-2000:]}")]


def failure(row: str, told: str, table: str = "", column: str = "") -> dict:
    return {"table": table, "row": row, "column": column, "outcome": "FAIL", "told": told}


def show(outcomes: list[dict]) -> int:
    """Prints the tables, and below them what was told of the cells; 1 if something failed."""
    for table, columns in COLUMNS.items():
        rows = defaultdict(dict)
        for line in outcomes:
            if line["table"] == table:
                rows[line["row"]][line["column"]] = line
        for row, cells in rows.items():
            missing = [column for column in columns if column not in cells]
            outcomes += [failure(row, "was not reported", table, column) for column in missing]
        if rows:
            print_table(table, columns, rows)
    for column, meaning in LEGEND.items():
        print(f"{column}: {meaning}")
    failed = [line for line in outcomes if line["outcome"] == "FAIL"]
    reasons = defaultdict(list)
    for line in outcomes:
        if line["outcome"] == "-" and line["column"] in COLUMNS[line["table"]]:
            reasons[line["row"], line["told"]].append(line["column"])
    for (row, reason), columns in reasons.items():
        print(f"-    {row}, {' '.join(columns)}: {reason}")
    for line in failed:
        print(f"FAIL {line['row']}, {line['column']}: {line['told'][:2000]}")
    print(f"{sum(line['outcome'] == 'ok' for line in outcomes)} passed, {len(failed)} failed")
    return int(bool(failed))


def print_table(table: str, columns: list[str], rows: dict[str, dict]):
    width = max(map(len, rows))
    print(f"\n{table:{width}} " + " ".join(f"{column:>8}" for column in columns))
    for row, cells in rows.items():
        shown = [cells[column]["outcome"] if column in cells else "FAIL" for column in columns]
        print(f"{row:{width}} " + " ".join(f"{outcome:>8}" for outcome in shown))
    print()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:] or PROGRAMS))
