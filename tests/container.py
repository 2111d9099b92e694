"""Runs the image as a container service does, and checks what the service relies on.

    python tests/container.py --docker "docker -H unix:///run/docker.sock" --image spillway

The container uses the stand-ins at the `AWS_ENDPOINT_URL_…` and `SPILLWAY_…` variables, which
`spillway local` prints, and takes its credentials from an endpoint of this program, as a task on
Fargate does. `SPILLWAY_KEY` is a key of a tenant. Checks that

- the image runs without root and has a health check, which the broker passes;
- a call is answered, with the credentials of the task;
- at SIGTERM, a stream ends as usual, new connections are refused, and the exit code is 0;
- what runs longer than the stop timeout is cut off, and the exit code is 1.
"""

import argparse
import http.client
import http.server
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time

TIMEOUT_S = 60
STREAM = "Write 200 words. [[output_tokens=200]]"


class CredentialsEndpoint:
    """The endpoint from which a task gets the credentials of its role."""

    def __init__(self):
        endpoint, self.requests = self, 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                endpoint.requests += 1
                body = {"AccessKeyId": "task", "SecretAccessKey": "secret", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/role"


class Container:
    """A container of the image, on the network of this machine."""

    def __init__(self, docker, image, variables, stop_timeout_s):
        self.docker, self.port = docker, free_port()
        options = [option for name, value in variables.items() for option in ("-e", f"{name}={value}")]
        command = ["serve", "--port", str(self.port), "--drain-concurrency", "0"]
        command += ["--stop-timeout-s", str(stop_timeout_s)]
        self.id = self.run("run", "--detach", "--network=host", *options, image, *command)

    def run(self, *arguments):
        return subprocess.run([*self.docker, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    def inspect(self, field):
        return json.loads(self.run("inspect", "--format", f"{{{{json {field}}}}}", self.id))

    def wait_until_healthy(self):
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if subprocess.run([*self.docker, "exec", self.id, "/spillway", "health", "--port", str(self.port)]).returncode == 0:
                return
            require(self.inspect(".State.Running"), f"the container ended:\n{self.logs()}")
            time.sleep(0.25)
        raise SystemExit(f"the broker is not healthy:\n{self.logs()}")

    def logs(self):
        found = subprocess.run([*self.docker, "logs", self.id], capture_output=True, text=True)
        return (found.stdout + found.stderr)[-4000:]

    def chat(self, body):
        """Sends a chat. Returns the response, whose body has not been read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        headers = {"authorization": f"Bearer {os.environ['SPILLWAY_KEY']}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        return connection.getresponse()

    def is_refused(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) != 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def require(holds, message):
    if not holds:
        raise SystemExit(message)


def chat(model, text, **more):
    return {"model": model, "max_tokens": 300, "messages": [{"role": "user", "content": text}], **more}


def check_graceful_stop(container, credentials, model):
    require(container.inspect(".Config.User") not in ("", "0", "root"), "the image runs as root")
    require(container.inspect(".Config.Healthcheck"), "the image has no health check")
    answer = container.chat(chat(model, "Say hello."))
    body = answer.read()
    require(answer.status == 200, f"{answer.status} {body[:400]!r}\n{container.logs()}")
    require(credentials.requests > 0, "the broker did not ask for the credentials of its task")

    stream = container.chat(chat(model, STREAM, stream=True))
    first = stream.readline()
    require(first.startswith(b"data: "), f"the stream did not begin: {stream.status} {first!r}")
    container.run("kill", "--signal", "TERM", container.id)
    deadline = time.monotonic() + TIMEOUT_S
    while not container.is_refused():
        require(time.monotonic() < deadline, "connections are still accepted after SIGTERM")
        time.sleep(0.05)
    require(container.inspect(".State.Running"), "the container ended before its stream; make the stream longer")
    rest = stream.read()
    require(rest.rstrip().endswith(b"data: [DONE]"), f"the stream was cut off: …{rest[-200:]!r}")
    code = container.run("wait", container.id)
    require(code == "0", f"the exit code is {code}:\n{container.logs()}")


def check_stop_timeout(container, _, model):
    stream = container.chat(chat(model, STREAM, stream=True))
    require(stream.readline(), f"the stream did not begin: {stream.status}")
    container.run("kill", "--signal", "TERM", container.id)
    code = container.run("wait", container.id)
    require(code == "1", f"the exit code is {code} although a stream was cut off:\n{container.logs()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docker", type=shlex.split, default=["docker"], help="command of the Docker client")
    parser.add_argument("--image", default="spillway")
    parser.add_argument("--model", default="slow", help="a model that takes some seconds for a stream")
    options = parser.parse_args()
    credentials = CredentialsEndpoint()
    variables = {name: value for name, value in os.environ.items() if name.startswith(("AWS_ENDPOINT", "SPILLWAY_"))}
    del variables["SPILLWAY_KEY"]
    variables |= {"AWS_REGION": "us-east-1", "AWS_CONTAINER_CREDENTIALS_FULL_URI": credentials.url}
    for check, stop_timeout_s in [(check_graceful_stop, TIMEOUT_S), (check_stop_timeout, 1)]:
        container = Container(options.docker, options.image, variables, stop_timeout_s)
        try:
            container.wait_until_healthy()
            check(container, credentials, options.model)
        finally:
            container.run("rm", "--force", container.id)
    print("the container answers without root, finishes its stream after SIGTERM, and keeps its stop timeout")


if __name__ == "__main__":
    sys.exit(main())
