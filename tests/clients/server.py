"""Runs `spillway local` with the settings in `matrix.toml` and the tenants of the `retry` cells."""

import contextlib
import hashlib
import pathlib
import subprocess
import tempfile
import threading

SETTINGS = pathlib.Path(__file__).with_name("matrix.toml")
IMPATIENT_TENANTS = 96

# Admits a single request, and then none for up to four seconds.
IMPATIENT_TENANT = """
[[tenants]]
name = "{name}"
limits = {{ requests_per_minute = 15 }}
guardrails = [{{ id = "grrivers1" }}]
burst = {{ requests_s = 0 }}
"""


def impatient_keys() -> dict[str, str]:
    """Returns the keys of the impatient tenants, by tenant name."""
    names = [f"impatient-{number}" for number in range(IMPATIENT_TENANTS)]
    return {name: f"sk-spill-{name}-{hashlib.sha256(name.encode()).hexdigest()}" for name in names}


def settings() -> str:
    """Returns the settings as TOML."""
    keys_by_name = impatient_keys()
    tenants = "".join(IMPATIENT_TENANT.format(name=name) for name in keys_by_name)
    keys = "".join(f'{name} = "{key}"\n' for name, key in keys_by_name.items())
    ids = "".join(f'{name} = "{access_key_id(key)}"\n' for name, key in keys_by_name.items())
    text = SETTINGS.read_text().replace("[keys]\n", f"[keys]\n{keys}")
    return tenants + text.replace("[access_keys]\n", f"[access_keys]\n{ids}")


def access_key_id(key: str) -> str:
    """Returns the access key id that AWS SDKs send instead of this key."""
    return "local-" + key.removeprefix("sk-spill-").rpartition("-")[0]


@contextlib.contextmanager
def run_local(command: str):
    """Runs `spillway local`. Yields the values that it prints on start, by name."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "settings.toml")
        file.write_text(settings())
        with run_server([command, "local", "--port", "0", "--tls=0", "--config", str(file)]) as printed:
            yield printed


@contextlib.contextmanager
def run_server(command: list[str], variables: dict[str, str] | None = None):
    """Runs a server until the block ends. Yields the values that it prints on start, by name."""
    server = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True)
    try:
        printed = read_until_ready(server)
        # Reads the rest of the output, so that the server does not block on a full pipe.
        threading.Thread(target=server.stdout.read, daemon=True).start()
        yield printed
    finally:
        server.terminate()
        server.wait()


def read_until_ready(server: subprocess.Popen) -> dict[str, str]:
    printed = {}
    for line in server.stdout:
        # `export NAME=value`, `key TENANT KEY`, `ca FILE`, `ready-tls URL`, finally `ready URL`.
        name, _, value = line.rstrip().removeprefix("export ").replace("=", " ", 1).rpartition(" ")
        printed[name] = value
        if name == "ready":
            return printed
    raise RuntimeError("spillway did not start")
