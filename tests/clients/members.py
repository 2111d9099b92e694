"""Compares the decisions in docs/members.md with the model of Bedrock Runtime in botocore.

    python members.py

Every member and header of the served operations must be decided, and so must every nested member
whose name or documentation speaks of a resource. Members that are planted in a copy of the model must
be found. The exit code is 1 otherwise.
"""

import copy
import pathlib
import re
import sys

import botocore.loaders

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "members.md"
DECISIONS = {"passed", "checked", "replaced", "refused"}
# The operations, by the heading of their table.
OPERATIONS = {
    "Converse and ConverseStream": ["Converse", "ConverseStream"],
    "InvokeModel and InvokeModelWithResponseStream": ["InvokeModel", "InvokeModelWithResponseStream"],
    "CountTokens": ["CountTokens"],
    "ApplyGuardrail": ["ApplyGuardrail"],
}
NESTED = "Nested members"
# Words that speak of a resource, in a name, in its documentation or in its pattern.
WORDS = "arn identifier uri bucket s3 url key role project account owner".split()
RESOURCE = re.compile(rf"\b({'|'.join(WORDS)})s?\b", re.IGNORECASE)


def main() -> int:
    model = botocore.loaders.Loader().load_service_model("bedrock-runtime", "service-2")
    tables = read_tables(DOCUMENT.read_text())
    problems = undecided(model, tables) + unknown(model, tables)
    for name, planted in PLANTED.items():
        mistaken = copy.deepcopy(model)
        planted(mistaken["shapes"])
        if not undecided(mistaken, tables):
            problems.append(f"not found although planted: {name}")
    decided = sum(len(table) for table in tables.values())
    print("\n".join(problems) or f"{decided} members are decided, {len(PLANTED)} planted ones were found")
    return int(bool(problems))


def read_tables(text: str) -> dict[str, dict[str, str]]:
    """Returns the decision on each member, by heading."""
    tables: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if line.startswith("## "):
            rows = tables.setdefault(line.removeprefix("## "), {})
        elif match := re.match(r"\| `([^`]+)` \| (\w+) \|", line):
            assert match[2] in DECISIONS, line
            rows[match[1]] = match[2]
    return tables


def undecided(model: dict, tables: dict[str, dict[str, str]]) -> list[str]:
    """Returns the members that no table has."""
    found = []
    for heading, operations in OPERATIONS.items():
        for operation in operations:
            shape = model["operations"][operation]["input"]["shape"]
            names = [wire_name(*member) for member in model["shapes"][shape]["members"].items()]
            found += [f"{operation}: {name} is not decided" for name in names if name not in tables[heading]]
            for path, member in nested(model["shapes"], shape):
                is_decided = any(path.endswith(f".{name}") or path == name for name in tables[NESTED])
                if not is_decided and names_resource(path, member, model["shapes"]):
                    found.append(f"{operation}: {path} is not decided")
    return found


def unknown(model: dict, tables: dict[str, dict[str, str]]) -> list[str]:
    """Returns the members that are decided, but are not in the model."""
    found = []
    every_path = set()
    for heading, operations in OPERATIONS.items():
        names = set()
        for operation in operations:
            shape = model["operations"][operation]["input"]["shape"]
            names |= {wire_name(*member) for member in model["shapes"][shape]["members"].items()}
            every_path |= {path for path, _ in nested(model["shapes"], shape)}
        found += [f"{heading} has no {name}" for name in tables[heading] if name not in names]
    for name in tables[NESTED]:
        if not any(path.endswith(f".{name}") or path == name for path in every_path):
            found.append(f"no operation has {name}")
    return found


def wire_name(name: str, member: dict) -> str:
    """Returns the name of a header, or of a member in a path or a body."""
    return member["locationName"] if member.get("location") == "header" else name


def nested(shapes: dict, shape: str, path: str = "", above: frozenset = frozenset()):
    """Yields the path and the description of each member below the members of `shape`."""
    description = shapes[shape]
    match description["type"]:
        case "structure" if shape not in above:
            for name, member in description.get("members", {}).items():
                below = f"{path}.{name}".removeprefix(".")
                if path:
                    yield below, member
                yield from nested(shapes, member["shape"], below, above | {shape})
        case "list":
            yield from nested(shapes, description["member"]["shape"], path, above)
        case "map":
            yield from nested(shapes, description["value"]["shape"], path, above)


def names_resource(path: str, member: dict, shapes: dict) -> bool:
    """Returns whether the name, the documentation or the pattern of a member speaks of a resource."""
    name = " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", path.rpartition(".")[2]))
    documentation = re.sub("<[^>]+>", "", member.get("documentation", ""))
    pattern = shapes[member["shape"]].get("pattern", "")
    return bool(RESOURCE.search(name) or RESOURCE.search(documentation) or re.search("arn:|s3:", pattern))


TEXT = {"shape": "NonEmptyString"}

# Members that Bedrock could add, each with what adds it to the shapes of the model.
PLANTED = {
    "a role of Converse": lambda shapes: shapes["ConverseRequest"]["members"].update(roleArn=TEXT),
    "a member that names nothing": lambda shapes: shapes["ConverseStreamRequest"]["members"].update(flavour=TEXT),
    "a header of InvokeModel": lambda shapes: shapes["InvokeModelRequest"]["members"].update(
        owner=TEXT | {"location": "header", "locationName": "X-Amzn-Bedrock-Owner"}
    ),
    "an access point": lambda shapes: shapes["S3Location"]["members"].update(accessPointArn=TEXT),
    "a source by URL": lambda shapes: shapes["VideoSource"]["members"].update(httpUrl=TEXT),
    "a member whose documentation speaks of a bucket": lambda shapes: shapes["DocumentBlock"]["members"].update(
        place=TEXT | {"documentation": "<p>The bucket with the document.</p>"}
    ),
    "a key of a tool": lambda shapes: shapes["SystemTool"]["members"].update(apiKeyId=TEXT),
}


if __name__ == "__main__":
    sys.exit(main())
