"""Measures the memory of `spillway serve` while streams are in flight.

    python tests/in_flight.py --spillway target/fast/spillway 200 1000

Starts `spillway local` as store and models, and the measured broker beside it, which uses the same
stand-ins. Opens the given numbers of streams one after the other, each from a client that sends the
headers of OpenAI's SDK, and prints the broker's resident memory when all of them have begun. An
answer has 600 tokens, one per second.
"""

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

KEY = "sk-spill-t-" + "0123456789abcdef" * 4
SETTINGS = f"""
[[tenants]]
name = "t"
limits = {{ requests_per_minute = 1_000_000, tokens_per_minute = 1_000_000_000, in_flight = 100_000 }}

[[models]]
name = "slow"
timeout_ms = 900_000

[[models.ladder]]
name = "only"
kind = "on_demand"
model_id = "sim.model"

[keys]
t = "{KEY}"

[simulator]
tokens_per_second = 1
"""


def started(command, log, variables, prefix):
    """Starts a process. Returns it and its output lines up to the line with the prefix."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=os.environ | variables, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith(prefix):
            return process, lines
    raise SystemExit(f"{command[0]} ended")


def exported(lines):
    pairs = [line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export ")]
    return dict(pairs)


def rss_kib(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


async def open_stream(port, prompt_bytes):
    """Opens a stream and returns its connection when its first event has arrived."""
    content = "[[output_tokens=600]] " + "x" * prompt_bytes
    body = {"model": "slow", "max_tokens": 600, "stream": True, "messages": [{"role": "user", "content": content}]}
    body = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n"
    head += f"x-stainless-retry-count: 0\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    status = await reader.readline()
    if b" 200 " not in status:
        raise SystemExit(f"a stream was refused: {status!r}")
    while not (await reader.readline()).startswith(b"data: "):
        pass
    return reader, writer


async def measure(process, port, counts, prompt_bytes):
    first = rss_kib(process)
    print(f"{'streams':>8}{'RSS, MiB':>10}{'KiB a stream':>14}")
    print(f"{0:>8}{first / 1024:>10.1f}")
    streams, at_once = [], asyncio.Semaphore(50)

    async def next_stream():
        async with at_once:
            return await open_stream(port, prompt_bytes)

    for count in counts:
        streams += await asyncio.gather(*[next_stream() for _ in range(count - len(streams))])
        await asyncio.sleep(5)
        now = rss_kib(process)
        print(f"{count:>8}{now / 1024:>10.1f}{(now - first) / count:>14.1f}", flush=True)
    for _, writer in streams:
        writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spillway", default="target/fast/spillway")
    parser.add_argument("--prompt-bytes", type=int, default=4096)
    parser.add_argument("counts", type=int, nargs="+", help="numbers of streams, ascending")
    options = parser.parse_args()
    processes = []
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as settings, tempfile.TemporaryFile() as log:
        settings.write(SETTINGS)
        settings.flush()
        try:
            local = [options.spillway, "local", "--port", "0", "--config", settings.name]
            process, lines = started(local, log, {}, "ready ")
            processes.append(process)
            command = [options.spillway, "serve", "--port", "0", "--drain-concurrency", "0"]
            process, lines = started(command, log, exported(lines), "ready ")
            processes.append(process)
            # The events of the calls are not read.
            subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
            port = int(lines[-1].rsplit(":", 1)[1])
            asyncio.run(open_and_close(port))
            time.sleep(1)
            asyncio.run(measure(process, port, options.counts, options.prompt_bytes))
        finally:
            for process in processes:
                process.kill()


async def open_and_close(port):
    """Makes one call, after which all clients are connected."""
    _, writer = await open_stream(port, 10)
    writer.close()


if __name__ == "__main__":
    main()
