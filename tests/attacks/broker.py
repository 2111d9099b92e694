"""Runs `spillway local` and calls it over plain HTTP."""

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import urllib.parse

sys.path.append(str(pathlib.Path(__file__).parent.parent / "clients"))
from server import read_until_ready

TIMEOUT_S = 120


class Broker:
    """A running broker with its stand-ins."""

    def __init__(self, process, printed):
        self.process = process
        self.url = printed["ready"]
        self.environment = {name: value for name, value in printed.items() if name.isupper()}
        self.simulator = self.environment["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"]

    def post(self, tenant, path, body, headers=()):
        """Posts JSON as `tenant`. Returns the status and the body."""
        return send(self.url, "POST", path, json.dumps(body).encode(), {"authorization": f"Bearer {key(tenant)}", **dict(headers)})

    def get(self, tenant, path):
        """Returns the status and the body of a path."""
        return send(self.url, "GET", path, None, {"authorization": f"Bearer {key(tenant)}"})

    def account(self, tenant):
        """Returns the simulator's account of a tenant."""
        stats = json.loads(send(self.simulator, "GET", "/_sim/stats", None, {})[1])
        return stats["tenants"].get(tenant, {})

    def settled(self, tenant):
        """Returns what the ledger has settled for a tenant."""
        return json.loads(self.get(tenant, "/v1/quota")[1])["settled"]

    def memory_kib(self):
        """Returns the resident memory of the process."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise RuntimeError("the process has no VmRSS")

    def descriptors(self):
        """Returns the number of open descriptors of the process."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def key(tenant):
    """Returns the key of a tenant of these tests."""
    return f"sk-spill-{tenant}-{hashlib.sha256(tenant.encode()).hexdigest()}"


def keys_table(tenants):
    """Returns the table `[keys]` of a settings file."""
    return "[keys]\n" + "".join(f'{tenant} = "{key(tenant)}"\n' for tenant in tenants)


def send(url, method, path, body, headers):
    """Sends one request on a new connection. Returns the status and the body."""
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextlib.contextmanager
def run(command, settings):
    """Runs `spillway local` with the TOML `settings` until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "settings.toml")
        file.write_text(settings)
        process = subprocess.Popen(
            [command, "local", "--port", "0", "--tls=0", "--config", str(file)], stdout=subprocess.PIPE, text=True
        )
        try:
            printed = read_until_ready(process)
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield Broker(process, printed)
        finally:
            process.terminate()
            process.wait()


def at_once(number, task):
    """Runs `task(index)` in `number` threads that start together. Returns the results."""
    results, barrier = [None] * number, threading.Barrier(number)

    def one(index):
        barrier.wait()
        results[index] = task(index)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
