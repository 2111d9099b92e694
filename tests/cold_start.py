"""Measures the cold start of a Lambda binary: the time from exec to the first poll, and the cost
of the first calls.

    python tests/cold_start.py --bootstrap target/lambda/api/bootstrap --runs 15

Emulates the Lambda Runtime API and invokes the binary twice with an event, in a new process for
each run. The binary uses the services at `AWS_ENDPOINT_URL_DYNAMODB` and
`AWS_ENDPOINT_URL_BEDROCK_RUNTIME`, which `spillway local` prints. The services are put behind TLS,
as on AWS, because handshakes dominate the first call; `--plain` disables that. `SPILLWAY_KEY`
replaces `${KEY}` in the event.

Prints medians next to the goals. The wall time of a call includes the latency of the simulated
model. A missed goal is not a failure. A missing response, or a status other than 200, is.

With `--emulator COMMAND`, the binary is started through this command, which emulates its processor.
Times are then not printed, because they are the emulator's:

    python tests/cold_start.py --emulator "qemu-aarch64-static -L SYSROOT" --bootstrap BOOTSTRAP --runs 1
"""

import argparse
import asyncio
import http.server
import json
import os
import queue
import shlex
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
INVOCATION = "/2018-06-01/runtime/invocation/"
TIMEOUT_S = 30
MIB = 1024 * 1024
# Measurements with their goals, in the unit that the name ends with.
GOALS = {
    "start to first poll, ms": 8,
    "start, CPU ms": None,
    "RSS after start, MiB": None,
    "first call, CPU ms": 8,
    "first call, ms": None,
    "second call, CPU ms": 2,
    "second call, ms": None,
    "RSS after calls, MiB": 15,
    "binary, MiB": None,
    "zip, MiB": 5,
}


class FunctionError(Exception):
    """The binary violates the contract of a Lambda function."""


class RuntimeApi:
    """The Lambda Runtime API of a process: serves events, and records polls and responses."""

    def __init__(self):
        self.events = queue.Queue()
        self.polls = queue.Queue()
        self.responses = queue.Queue()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.server.server_port}"

    def close(self):
        self.events.put(None)
        self.server.shutdown()
        self.server.server_close()

    def handler(api):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # A response is a single packet, and acknowledgements are not delayed. Otherwise they
            # would add 40 ms to each call.
            wbufsize = -1
            disable_nagle_algorithm = True

            def setup(self):
                super().setup()
                self.disable_delayed_ack()

            def disable_delayed_ack(self):
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

            def do_GET(self):
                if self.path != f"{INVOCATION}next":
                    self.reply(404)
                    return
                api.polls.put(time.perf_counter())
                event = api.events.get()
                if event is None:
                    self.close_connection = True
                    return
                number, body = event
                deadline_ms = int((time.time() + TIMEOUT_S) * 1000)
                headers = {
                    "Lambda-Runtime-Aws-Request-Id": f"00000000-0000-4000-8000-{number:012d}",
                    "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:api",
                    "Lambda-Runtime-Trace-Id": f"Root=1-6b03a800-{number:024x};Sampled=0",
                    "Content-Type": "application/json",
                }
                self.reply(200, body, headers)

            def do_POST(self):
                body = self.read_body()
                if self.path.endswith("/response"):
                    api.responses.put((time.perf_counter(), body))
                else:
                    api.responses.put((time.perf_counter(), f"{self.path}: {body.decode(errors='replace')}"))
                self.reply(202, b'{"status":"OK"}')

            def read_body(self):
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.disable_delayed_ack()
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return body

            def reply(self, status, body=b"", headers=None):
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler


class TlsFront:
    """Puts loopback services behind TLS. Only the measured binary trusts the certificate."""

    def __init__(self, folder):
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        command += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
        subprocess.run(
            [*command.split(), "-keyout", self.key, "-out", self.certificate],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.trust = folder / "trust.pem"
        # Includes the system's certificates, because loading them is part of a cold start.
        system = Path(ssl.get_default_verify_paths().openssl_cafile)
        self.trust.write_text((system.read_text() if system.exists() else "") + self.certificate.read_text())
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def add(self, endpoint):
        """Starts a TLS proxy for `endpoint` and returns its address."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        target = urlsplit(endpoint)

        async def forward(reader, writer):
            upstream_reader, upstream_writer = await asyncio.open_connection(target.hostname, target.port)
            await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer))

        async def listen():
            server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
            return server.sockets[0].getsockname()[1]

        port = asyncio.run_coroutine_threadsafe(listen(), self.loop).result()
        return f"https://localhost:{port}"


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


def environment(options, folder):
    """Returns this process's environment, and the variables that Lambda adds, for the binary."""
    variables = dict(os.environ)
    variables.update(
        AWS_LAMBDA_FUNCTION_NAME="api",
        AWS_LAMBDA_FUNCTION_VERSION="$LATEST",
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="256",
        AWS_LAMBDA_LOG_FORMAT="JSON",
    )
    for name, value in [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local")]:
        variables.setdefault(name, value)
    if not options.plain:
        front = TlsFront(folder)
        variables["SSL_CERT_FILE"] = str(front.trust)
        for name, value in variables.items():
            if name.startswith("AWS_ENDPOINT_URL") and value.startswith("http://"):
                variables[name] = front.add(value)
    return variables


def take(entries, process, description):
    """Returns the next entry of a queue. Fails if the process ends or takes too long."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            return entries.get(timeout=0.25)
        except queue.Empty:
            if process.poll() is not None:
                raise FunctionError(f"the process exited with {process.returncode} before {description}") from None
    raise FunctionError(f"{description} did not come within {TIMEOUT_S} s")


def cpu_ms(process):
    """Returns the process's CPU time so far, over all threads (clock_getcpuclockid)."""
    return time.clock_gettime((~process.pid << 3) | 2) * 1000


def rss_mib(process):
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise FunctionError("the process has no resident memory")


def call(api, process, event):
    """Invokes the function.

    Returns the milliseconds until the response was complete, and the CPU milliseconds until the
    next poll.
    """
    cpu_before, start = cpu_ms(process), time.perf_counter()
    api.events.put(event)
    end, body = take(api.responses, process, "the response")
    take(api.polls, process, "the poll after the response")
    verify(body, is_http=b"requestContext" in event[1])
    return (end - start) * 1000, cpu_ms(process) - cpu_before


def verify(body, is_http):
    """Requires a result. Of an HTTP event, it is a streamed 200 response: a JSON head, eight zero
    bytes, then the body."""
    if isinstance(body, str):
        raise FunctionError(f"the function reported an error at {body}")
    if not is_http:
        return
    head, separator, rest = body.partition(b"\0" * 8)
    try:
        status = json.loads(head).get("statusCode")
    except (ValueError, AttributeError):
        raise FunctionError(f"the result is not an HTTP response: {body[:200]!r}") from None
    if status != 200:
        raise FunctionError(f"the response has status {status}: {rest[:400] or head[:400]!r}")
    if not separator:
        raise FunctionError("the response is not streamed")


def measure(command, event, variables, log):
    """Measures a cold start and two calls."""
    api = RuntimeApi()
    variables = {**variables, "AWS_LAMBDA_RUNTIME_API": api.address}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        first_poll = take(api.polls, process, "the first poll")
        figures = {"start to first poll, ms": (first_poll - start) * 1000}
        figures["start, CPU ms"] = cpu_ms(process)
        figures["RSS after start, MiB"] = rss_mib(process)
        figures["first call, ms"], figures["first call, CPU ms"] = call(api, process, (1, event))
        figures["second call, ms"], figures["second call, CPU ms"] = call(api, process, (2, event))
        figures["RSS after calls, MiB"] = rss_mib(process)
        return figures
    finally:
        process.kill()
        process.wait()
        api.close()


def report(runs, bootstrap):
    binary = bootstrap.read_bytes()
    figures = {name: [run[name] for run in runs] for name in runs[0]}
    figures["binary, MiB"] = [len(binary) / MIB]
    figures["zip, MiB"] = [len(zlib.compress(binary, 6)) / MIB]
    print(f"{'median of ' + str(len(runs)):<24}{'':>9}{'goal':>8}")
    for name, goal in GOALS.items():
        median = statistics.median(figures[name])
        verdict = "" if goal is None else "met" if median <= goal else "missed"
        print(f"{name:<24}{median:>9.2f}{goal if goal is not None else '':>8} {verdict}".rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", type=Path, default=ROOT / "target/lambda/api/bootstrap")
    parser.add_argument("--event", type=Path, default=ROOT / "events/rest-chat-completions.json")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--emulator", type=shlex.split, default=[], help="command that runs the binary")
    parser.add_argument("--plain", action="store_true", help="reach the services without TLS")
    options = parser.parse_args()
    event = options.event.read_text().replace("${KEY}", os.environ.get("SPILLWAY_KEY", "")).encode()
    command = [*options.emulator, options.bootstrap]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        try:
            variables = environment(options, Path(folder))
            runs = [measure(command, event, variables, log) for _ in range(max(options.runs, 1))]
        except FunctionError as error:
            log.seek(0)
            print(f"{error}\n{log.read()[-4000:].decode(errors='replace')}", file=sys.stderr)
            return 1
    if options.emulator:
        print(f"{options.bootstrap} starts and answers two calls")
    else:
        report(runs, options.bootstrap)
    return 0


if __name__ == "__main__":
    sys.exit(main())
