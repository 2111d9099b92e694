"""The registry of scenarios.

The name of a scenario is a claim, and its docstring says it as a sentence. A scenario takes the
`Broker`. If it is a generator, then it yields once: the part before the `yield` runs before all
other scenarios, and the rest runs after them.
"""

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass

SCENARIOS: dict[str, Callable] = {}


def scenario(function):
    """Registers a scenario. Scenarios run in the order of their registration."""
    assert function.__doc__, f"{function.__name__} has no docstring"
    SCENARIOS[function.__name__] = function
    return function


@dataclass
class Outcome:
    name: str
    error: str
    seconds: float

    def __str__(self):
        text = f"{'FAIL' if self.error else 'ok  '} {self.name} ({self.seconds:.1f} s)"
        return f"{text}: {self.error}" if self.error else text


def run(names: list[str], broker, report: Callable[[Outcome], None], last: Callable | None = None) -> list[Outcome]:
    """Runs scenarios, and `last` before the rest of the generators. Reports each outcome when it is known."""
    outcomes, started = [], []

    def finish(name: str, step: Callable, seconds: float = 0.0):
        outcome = attempt(name, step)
        outcome.seconds += seconds
        outcomes.append(outcome)
        report(outcome)

    for name in names:
        if inspect.isgeneratorfunction(SCENARIOS[name]):
            generator = SCENARIOS[name](broker)
            start = attempt(name, lambda: next(generator))
            started.append((name, generator, start))
    for name in names:
        if not inspect.isgeneratorfunction(SCENARIOS[name]):
            finish(name, lambda: SCENARIOS[name](broker))
    if last:
        finish("the_clients_work", last)
    for name, generator, start in started:
        if start.error:
            outcomes.append(start)
            report(start)
        else:
            finish(name, lambda: next(generator, None), start.seconds)
    return outcomes


def attempt(name: str, step: Callable) -> Outcome:
    start = time.monotonic()
    try:
        step()
        error = ""
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"[:1500]
    return Outcome(name, error, time.monotonic() - start)
