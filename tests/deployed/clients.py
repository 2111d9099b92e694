"""Runs the core of the client matrix against the deployed broker."""

import json
import subprocess
from pathlib import Path

from broker import Broker
from settings import CLIENTS

PROGRAMS = [
    "asynchronous_python.py",
    "asynchronous_js.mjs",
    "openai_python.py",
    "anthropic_python.py",
    "boto3_python.py",
    "aws_js.mjs",
]
# Impatient tenants for the clients. The scenarios use higher numbers.
IMPATIENT_TENANTS = [f"impatient-{number}" for number in range(24)]


def run(python: Path, spillway: Path, broker: Broker):
    """Runs the programs, which print their table. Raises an error if a cell fails."""
    file = broker.stack.emulator.processes.folder / "server.json"
    file.write_text(json.dumps(described(broker)))
    command = [python, CLIENTS / "matrix.py", "--server", file, spillway, *PROGRAMS]
    done = subprocess.run(command)
    assert done.returncode == 0, "cells of the client matrix failed; see the table"


def described(broker: Broker) -> dict:
    """Returns what the programs need to know of the server."""
    return {
        "ready": broker.url,
        "ready-tls": broker.url,
        "ca": str(broker.stack.emulator.certificate.file),
        "key patient": broker.key("patient"),
        "impatient-keys": [broker.key(tenant) for tenant in IMPATIENT_TENANTS],
        **broker.command_environment(),
    }
