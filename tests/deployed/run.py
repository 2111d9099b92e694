"""Deploys the template on an emulator that enforces IAM, and calls what it deploys.

    python run.py --sam-python PYTHON --clients-python PYTHON --api FILE --drain FILE --spillway FILE

Fails if a scenario fails, if AWS denies a call, if a function calls what no grant covers, or if a
role has a grant that nothing uses and `explained.py` does not explain. `--only` takes parts of the
names of scenarios; then only these run, without the clients and without the check for unused grants.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import clients
import rights
import scenario
import scenarios  # noqa: F401
from broker import Broker
from emulator import Emulator
from processes import Processes
from settings import write_settings
from stack import Stack
from tls import Certificate

HERE = Path(__file__).resolve().parent
PARAMETERS = {"Architecture": "x86_64", "EnableFunctionUrl": "true", "Guardrails": "grrivers1"}


def parser(description: str) -> argparse.ArgumentParser:
    parsed = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("sam-python", "clients-python", "api", "drain", "spillway"):
        # Not resolved: the Python of a virtual environment is a symbolic link.
        parsed.add_argument(f"--{name}", type=lambda text: Path(text).absolute(), required=True)
    parsed.add_argument("--only", default="", help="parts of names, separated by commas")
    parsed.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    return parsed


def stacks(options, *arguments: str) -> dict:
    """Returns what `stacks.py` prints in the environment of aws-sam-cli."""
    parameters = [f"{name}={value}" for name, value in PARAMETERS.items()]
    command = [options.sam_python, HERE / "stacks.py", *arguments, *parameters]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


@contextmanager
def deployed(options, template: dict):
    """Deploys a template until the block ends. Yields the broker with tenants and models."""
    folder = Path(tempfile.mkdtemp(prefix="deployed-"))
    processes, broker = Processes(folder), None
    try:
        settings = write_settings(folder)
        emulator = Emulator(processes, Certificate(folder))
        emulator.start(Path(sys.executable).with_name("ministack"), options.spillway, settings)
        stack = Stack(emulator)
        stack.deploy(template, PARAMETERS, {"api": options.api, "drain": options.drain})
        broker = Broker(stack, options.spillway, folder)
        broker.command("tenants", "apply", str(settings))
        broker.command("models", "apply", str(settings))
        yield broker
    finally:
        if broker:
            broker.stop()
        processes.stop()
        if options.keep:
            print(f"the logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    options = parser(__doc__).parse_args()
    start = time.monotonic()
    names = [name for name in scenario.SCENARIOS if any(part in name for part in options.only.split(","))]
    with deployed(options, stacks(options)) as broker:
        print(f"deployed {len(broker.stack.ids)} resources after {time.monotonic() - start:.0f} s", flush=True)
        between = None if options.only else lambda: clients.run(options.clients_python, options.spillway, broker)
        outcomes = scenario.run(names, broker, lambda outcome: print(outcome, flush=True), between)
        failed = [outcome for outcome in outcomes if outcome.error]
        problems = rights.problems(broker, is_whole=not options.only)
        problems += [f"broken: {fault}" for fault in broker.faults()]
    for problem in problems:
        print(f"FAIL {problem}")
    print(f"{len(outcomes) - len(failed)} scenarios passed, {len(failed)} failed, {len(problems)} problems")
    print(f"{time.monotonic() - start:.0f} s")
    return int(bool(failed or problems))


if __name__ == "__main__":
    sys.exit(main())
