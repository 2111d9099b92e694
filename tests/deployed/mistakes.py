"""Deploys the template with each planted mistake, and requires that a scenario notices it.

    python mistakes.py --sam-python PYTHON --clients-python PYTHON --api FILE --drain FILE --spillway FILE

Each mistake is met by the scenarios that `planted.py` names. All of these must pass without a
mistake. Prints a table: what the static checks of `infra/` say, and what the deployed stack shows.
`--only` takes parts of the names of mistakes.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import rights
import run
import scenario
from planted import MISTAKES

MAX_CONCURRENT_STACKS = 2
# Shorter than in a run without mistakes, because most mistakes show as a job that does not end.
END_TIMEOUT_S = 30
NO_MISTAKE = "no mistake"
MAX_REASON_CHARS = 110


def main() -> int:
    options = run.parser(__doc__).parse_args()
    start = time.monotonic()
    stacks = run.stacks(options, "--mistakes")
    names = [name for name in MISTAKES if any(part in name for part in options.only.split(","))]
    with ThreadPoolExecutor(MAX_CONCURRENT_STACKS) as pool, ThreadPoolExecutor() as other:
        problems = other.submit(run.stacks, options, "--problems")
        control = {scenario for name in names for scenario in MISTAKES[name].scenarios}
        runs = {NO_MISTAKE: pool.submit(faults, options, run.stacks(options), sorted(control))}
        for name in names:
            runs[name] = pool.submit(faults, options, stacks[name], MISTAKES[name].scenarios)
        found = {}
        for name, running in runs.items():
            found[name] = running.result()
            print(f"{name}: {shortened(found[name])}", flush=True)
        problems = problems.result()
    print("| Mistake | Static checks | Deployed |\n|---|---|---|")
    for name in names:
        print(f"| {readable(name)} | {shortened(problems[name])} | {shortened(found[name])} |")
    missed = [name for name in names if not found[name]]
    print(f"{len(names) - len(missed)} of {len(names)} mistakes found, after {time.monotonic() - start:.0f} s")
    for name in missed:
        print(f"FAIL nothing notices: {name}")
    for fault in found[NO_MISTAKE]:
        print(f"FAIL without a mistake: {fault}")
    return int(bool(missed or found[NO_MISTAKE]))


def faults(options, stack: dict, names) -> list[str]:
    """Deploys a stack, runs the scenarios, and returns what went wrong."""
    try:
        with run.deployed(options, stack) as broker:
            broker.end_timeout_s = END_TIMEOUT_S
            outcomes = scenario.run(list(names), broker, lambda _: None)
            failed = [f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.error]
            denied = [f"denied: {denial}" for denial in broker.denials()]
            return failed + denied + rights.calls_outside_of_grants(broker) + broker.faults()
    except Exception as error:
        return [f"the deployment: {type(error).__name__}: {error}"]


def readable(name: str) -> str:
    return name.replace("_", " ").replace("api", "API").replace(" arn", " ARN").replace("tls", "TLS")


def shortened(problems: list[str]) -> str:
    if not problems:
        return "**nothing**"
    text = " ".join(problems[0].split()).replace("|", "/")
    return text if len(text) <= MAX_REASON_CHARS else text[:MAX_REASON_CHARS] + "…"


if __name__ == "__main__":
    sys.exit(main())
