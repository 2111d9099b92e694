"""Calls a Spillway server with common clients, and prints which features work for each of them.

    python matrix.py [--server FILE] target/debug/spillway [PROGRAM…]

The server is a `spillway local`, or one that runs already: then FILE holds the values that `spillway
local` would print, as a JSON object, and the keys of impatient tenants as `impatient-keys`.

Prints a table for each API. Each family of clients has a program in this folder, which prints the
outcomes of its cells (see `cells.py` and `cells.mjs`). A cell is `ok`, `FAIL`, or `-` if it does
not apply; the reasons are below the tables. The exit code is 1 if a cell failed or was not
reported.
"""

import argparse
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
    "Asynchronous": ["background", "follow", "cancel", "files", "uploads", "pages", "batch", "b_cancel", "webhook"],
    "API Gateway": ["4xx", "5xx", "large", "unsigned", "throttled", "timeout"],
    "Spillway": ["quota", "x_api_key", "job", "cancel"],
}
LEGEND = {
    "plain": "a response and its usage",
    "stream": "the same response as a stream",
    "tools": "the model calls a tool, the client returns the result, the model ends; also streamed",
    "image": "an image in the prompt",
    "error": "an unknown model, a bad field and an unknown key raise the client's error classes",
    "retry": "429 with Retry-After, after which the client's automatic retry succeeds",
    "schema": "a response constrained by a JSON schema",
    "models": "the list of models",
    "embed": "embeddings: floats and Base64, or Titan's and Cohere's bodies",
    "respond, r_…": "the Responses API: plain, streamed, with tools, with a schema",
    "count": "the counted tokens equal the charged tokens",
    "thinking": "reasoning, streamed and sent back",
    "cache": "a prompt is written to the cache and read from it",
    "guardrail": "ApplyGuardrail",
    "invoke, i_stream": "InvokeModel and InvokeModelWithResponseStream",
    "background": "a background response is created, retrieved and deleted",
    "follow": "a background response is streamed, and the stream resumed from its middle",
    "files": "a file is uploaded, read, listed and deleted",
    "uploads": "a file is uploaded in parts, and as a whole to the bucket; an upload is cancelled",
    "pages": "the client reads a list of files or batches page by page, each entry once",
    "batch, b_cancel": "a batch with a bad line returns its results; a batch is cancelled",
    "webhook": "the SDK's unwrap and standardwebhooks accept the event for an ended response",
    "4xx … timeout": "the SDK reads the errors that API Gateway itself returns",
    "x_api_key": "the key in x-api-key",
    "job, cancel": "a request with Prefer: respond-async becomes a job, which ends or is cancelled",
}
# Slowest first, because they run concurrently.
PROGRAMS = [
    "aws_cli.py",
    "asynchronous_python.py",
    "asynchronous_js.mjs",
    "claude_code.py",
    "litellm_python.py",
    "codex_cli.py",
    "langchain_python.py",
    "ai_sdk.mjs",
    "anthropic_python.py",
    "gateway_errors.py",
    "anthropic_js.mjs",
    "aws_js.mjs",
    "aws_rust",
    "boto3_python.py",
    "plain_http.py",
    "openai_python.py",
    "openai_js.mjs",
]
MAX_CONCURRENT_PROGRAMS = 3
PROGRAM_TIMEOUT_S = 240


def main(command: str, programs: list[str], server_file: str | None) -> int:
    if server_file:
        printed = json.loads(pathlib.Path(server_file).read_text())
        return show(run_programs(command, programs, printed, printed.pop("impatient-keys")))
    with server.run_local(command) as printed:
        outcomes = run_programs(command, programs, printed, list(server.impatient_keys().values()))
    return show(outcomes)


def run_programs(command: str, programs: list[str], printed: dict[str, str], impatient_keys: list[str]) -> list[dict]:
    """Runs the programs, each with its own share of the impatient keys, and returns their outcomes."""
    share = len(impatient_keys) // len(programs)
    runs = []
    for number, program in enumerate(programs):
        keys = impatient_keys[number * share : (number + 1) * share]
        runs.append((program, program_command(program, command), environment(printed, keys, command)))
    with ThreadPoolExecutor(MAX_CONCURRENT_PROGRAMS) as pool:
        return [line for lines in pool.map(lambda run: run_program(*run), runs) for line in lines]


def environment(printed: dict[str, str], impatient_keys: list[str], command: str) -> dict[str, str]:
    """Returns the environment of a program, without the caller's AWS and API settings."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return inherited | {
        "SPILLWAY_URL": printed["ready"],
        "SPILLWAY_TLS_URL": printed["ready-tls"],
        "SPILLWAY_CA_FILE": printed["ca"],
        # For the clients that take no other certificates as an argument.
        "NODE_EXTRA_CA_CERTS": printed["ca"],
        "SSL_CERT_FILE": printed["ca"],
        "AWS_CA_BUNDLE": printed["ca"],
        "SPILLWAY_KEY": printed["key patient"],
        "SPILLWAY_IMPATIENT_KEYS": ",".join(impatient_keys),
        # For the command, which needs the server's DynamoDB and SQS. The variables are not set
        # directly, because the clients must not use these services.
        "SPILLWAY_COMMAND": str(pathlib.Path(command).resolve()),
        "SPILLWAY_EXPORTS": json.dumps({name: value for name, value in printed.items() if name.isupper()}),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }


def program_command(program: str, command: str) -> list:
    """Returns the command line of a program. The Rust program is in the server's build folder."""
    if program.endswith(".py"):
        return [sys.executable, HERE / program]
    if program.endswith(".mjs"):
        return [shutil.which("node") or "node", HERE / program]
    return [pathlib.Path(command).parent / "examples" / program]


def run_program(program: str, arguments: list, variables: dict[str, str]) -> list[dict]:
    """Runs a program and returns its outcomes, with an additional failure if the program failed."""
    start = time.monotonic()
    try:
        process = subprocess.Popen(arguments, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        return [failure(program, str(error))]
    try:
        output, errors = process.communicate(timeout=PROGRAM_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    print(f"{program}: {len(lines)} cells in {time.monotonic() - start:.1f} s", flush=True)
    if process.returncode == 0 and lines:
        return lines
    return [*lines, failure(program, f"exited with {process.returncode}: {errors[-2000:]}")]


def failure(row: str, message: str, table: str = "", column: str = "") -> dict:
    return {"table": table, "row": row, "column": column, "outcome": "FAIL", "message": message}


def show(outcomes: list[dict]) -> int:
    """Prints the tables, the legend, and the messages. Returns 1 if a cell failed, else 0."""
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
            reasons[line["row"], line.get("message", "")].append(line["column"])
    for (row, reason), columns in reasons.items():
        print(f"-    {row}, {' '.join(columns)}: {reason}")
    for line in failed:
        print(f"FAIL {line['row']}, {line['column']}: {line.get('message', '')[:2000]}")
    print(f"{sum(line['outcome'] == 'ok' for line in outcomes)} passed, {len(failed)} failed")
    return int(bool(failed))


def print_table(table: str, columns: list[str], rows: dict[str, dict]):
    width = max(map(len, rows))
    print(f"\n{table:{width}} " + " ".join(f"{column:>8}" for column in columns))
    for row, cells in rows.items():
        outcomes = [cells[column]["outcome"] if column in cells else "FAIL" for column in columns]
        print(f"{row:{width}} " + " ".join(f"{outcome:>8}" for outcome in outcomes))
    print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server")
    parser.add_argument("command")
    parser.add_argument("programs", nargs="*", default=PROGRAMS)
    options = parser.parse_args()
    sys.exit(main(options.command, options.programs, options.server))
