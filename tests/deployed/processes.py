"""Child processes, each with a log file, and waiting for what they do."""

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path

STOP_TIMEOUT_S = 10


class Processes:
    """The processes of a run. Their logs are in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.running = []

    def start(self, name: str, command: list, variables: dict[str, str]) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=variables)
        self.running.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self):
        for process in self.running:
            process.terminate()
        for process in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
            process.kill()


def plain_environment() -> dict[str, str]:
    """Returns the variables of this process that no deployed function could notice."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_open(port: int) -> bool:
    """Says whether something listens on the port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_until(condition, timeout_s: float, description: str, interval_s: float = 0.25):
    """Repeats `condition` until it returns something true, and returns that."""
    end = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s:.0f} s: {description}")
        time.sleep(interval_s)
