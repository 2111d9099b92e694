"""The deployed broker, as callers and operators reach it."""

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from emulator import OPERATOR
from http_client import Response, send
from iam import matches
from processes import plain_environment
from stack import Stack
from web import Loop, serve

API_FUNCTION = "ApiFunction"
# Variables of the `spillway` command, with the outputs of the stack that they hold.
COMMAND_VARIABLES = {
    "SPILLWAY_REGISTRY_TABLE": "RegistryTable",
    "SPILLWAY_LEDGER_TABLE": "LedgerTable",
    "SPILLWAY_JOBS_TABLE": "JobsTable",
    "SPILLWAY_QUEUE_URL": "QueueUrl",
    "SPILLWAY_DEAD_LETTER_QUEUE_URL": "DeadLetterQueueUrl",
    "SPILLWAY_WEBHOOK_QUEUE_URL": "WebhookQueueUrl",
    "SPILLWAY_BUCKET": "Bucket",
}
COMMAND_TIMEOUT_S = 60
ROOT_DOMAIN = "api.example.com"
PREFIX_DOMAIN = "tools.example.com"
PREFIX = "/llm"


class Broker:
    """The broker that a stack deploys.

    `url` is its base URL at the API's own domain, with the stage. The API also has two custom
    domains: one at its root, and one at a path prefix, as with the parameter `PathPrefix`.
    """

    def __init__(self, stack: Stack, spillway: Path, folder: Path):
        self.stack = stack
        self.spillway = spillway
        self.tls = stack.emulator.certificate.for_clients()
        self.loop = Loop()
        self.keys = {}
        self.provoked_denials = []
        # The longest time that a job may take.
        self.end_timeout_s = 90
        self.function = stack.function(API_FUNCTION, folder / "api")
        self.prefixed = stack.function(API_FUNCTION, folder / "prefixed", SPILLWAY_PATH_PREFIX=PREFIX)
        self.api = stack.rest_api({API_FUNCTION: self.function})
        self.api.custom_domains = {ROOT_DOMAIN: ("", self.function), PREFIX_DOMAIN: (PREFIX, self.prefixed)}
        self.door = self.loop.run(serve(self.api.app, stack.emulator.certificate))
        self.url = f"{self.door}/{self.api.stage}"

    def key(self, tenant: str) -> str:
        """Returns a key of the tenant, which is made on first use."""
        if tenant not in self.keys:
            self.keys[tenant] = self.command("keys", "create", tenant).strip()
        return self.keys[tenant]

    def call(self, method: str, path: str, body=None, tenant: str = "roomy", **headers: str) -> Response:
        """Calls the API at its own domain. An underscore in the name of a header is a hyphen."""
        return self.send(method, self.url + path, body, tenant, "", headers)

    def call_custom_domain(self, method: str, domain: str, path: str, body=None) -> Response:
        return self.send(method, self.door + path, body, "roomy", domain, {})

    def call_function_url(self, method: str, path: str, body=None, tenant: str = "roomy", **headers: str) -> Response:
        host = urlsplit(self.stack.outputs["FunctionUrl"]).netloc
        return self.send(method, self.stack.emulator.url + path, body, tenant, host, headers)

    def send(self, method: str, url: str, body, tenant: str, host: str, headers: dict[str, str]) -> Response:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        all_headers = {"Authorization": f"Bearer {self.key(tenant)}", "Content-Type": "application/json"}
        all_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        return send(self.tls, method, url, all_headers, content, host)

    def command(self, *arguments: str) -> str:
        """Runs the `spillway` command with the stack's outputs, and returns its output."""
        command = [str(self.spillway), *arguments]
        done = subprocess.run(
            command, env=self.command_environment(), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
        )
        assert done.returncode == 0, f"spillway {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def command_environment(self) -> dict[str, str]:
        outputs = {name: self.stack.outputs[output] for name, output in COMMAND_VARIABLES.items()}
        return {**plain_environment(), **OPERATOR, **self.stack.emulator.variables, **outputs}

    def called(self, logical_id: str) -> set[tuple[str, str]]:
        """Returns the actions that a function has needed so far, each with its resource."""
        return {call for record in self.stack.records[logical_id] for call in record.calls}

    def denials(self) -> list[str]:
        """Returns the calls that AWS denied a function, except calls that a scenario provokes."""
        return [
            f"{logical_id}: {action} on {resource}"
            for logical_id, records in self.stack.records.items()
            for record in records
            for action, resource in record.denied
            if not any(matches(pattern, resource) for pattern in self.provoked_denials)
        ]

    def faults(self) -> list[str]:
        """Returns what went wrong in the API and in Lambda, and not in a response of the function."""
        return self.api.faults + self.function.faults + self.prefixed.faults

    def log(self) -> list[str]:
        """Returns the log of the API function."""
        return self.function.log + self.prefixed.log

    def stop(self):
        self.loop.run(self.function.stop())
        self.loop.run(self.prefixed.stop())
