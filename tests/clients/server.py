"""One `spillway local` with the settings in `matrix.toml`, and the tenants that the cells named `retry` need."""

import contextlib
import hashlib
import pathlib
import subprocess
import tempfile
import threading

SETTINGS = pathlib.Path(__file__).with_name("matrix.toml")
IMPATIENT_TENANTS = 96

# One request at a time, and then none for up to four seconds.
IMPATIENT = """
[[tenants]]
name = "{name}"
limits = {{ requests_per_minute = 15 }}
burst = {{ requests_s = 0 }}
"""


def impatient() -> dict[str, str]:
    """Tenants by name, each with its key."""
    names = [f"impatient-{number}" for number in range(IMPATIENT_TENANTS)]
    return {name: f"sk-spill-{name}-{hashlib.sha256(name.encode()).hexdigest()}" for name in names}


def settings() -> str:
    """The settings as TOML."""
    tenants = impatient()
    entries = "".join(IMPATIENT.format(name=name) for name in tenants)
    keys = "".join(f'{name} = "{key}"\n' for name, key in tenants.items())
    ids = "".join(f'{name} = "{access_key_id(key)}"\n' for name, key in tenants.items())
    told = SETTINGS.read_text().replace("[keys]\n", f"[keys]\n{keys}")
    return entries + told.replace("[access_keys]\n", f"[access_keys]\n{ids}")


def access_key_id(key: str) -> str:
    """The id by which AWS SDKs without a key say that they are the tenant of this key."""
    return "local-" + key.removeprefix("sk-spill-").rpartition("-")[0]


@contextlib.contextmanager
def started(command: str):
    """Runs the server; gives what it printed on start, by what each line begins with."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "settings.toml")
        file.write_text(settings())
        with running([command, "local", "--port", "0", "--tls=0", "--config", str(file)]) as told:
            yield told


@contextlib.contextmanager
def running(command: list[str], variables: dict[str, str] | None = None):
    """Runs a command that serves, until the block ends; gives what it printed until it was ready."""
    server = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True)
    try:
        told = printed(server)
        # What else it prints must go somewhere, or it waits for a reader.
        threading.Thread(target=server.stdout.read, daemon=True).start()
        yield told
    finally:
        server.terminate()
        server.wait()


def printed(server: subprocess.Popen) -> dict[str, str]:
    told = {}
    for line in server.stdout:
        # `export NAME=value`, `key TENANT KEY`, `ca FILE`, `ready-tls URL`, and at last `ready URL`.
        name, _, value = line.rstrip().removeprefix("export ").replace("=", " ", 1).rpartition(" ")
        told[name] = value
        if name == "ready":
            return told
    raise RuntimeError("spillway did not start")
