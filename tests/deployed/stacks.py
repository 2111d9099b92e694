"""Prints what becomes of the template, as JSON. Runs in the environment of aws-sam-cli.

    python stacks.py NAME=VALUE…              the stack
    python stacks.py --mistakes NAME=VALUE…   the stack with each planted mistake, by mistake
    python stacks.py --problems               what the static checks report for each mistake

The values are parameters of the template.
"""

import copy
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "infra"))

import checks  # noqa: E402
from planted import MISTAKES  # noqa: E402


def main(arguments: list[str]):
    parameters = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    template = checks.template()
    mistaken = {name: copy.deepcopy(template) for name in MISTAKES}
    for name, sam in mistaken.items():
        MISTAKES[name].make(sam)
    if "--problems" in arguments:
        printed = {name: checks.problems(sam) for name, sam in mistaken.items()}
    elif "--mistakes" in arguments:
        printed = {name: checks.transformed(sam, parameters) for name, sam in mistaken.items()}
    else:
        printed = checks.transformed(template, parameters)
    print(json.dumps(printed))


if __name__ == "__main__":
    main(sys.argv[1:])
