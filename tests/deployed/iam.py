"""The evaluation of IAM policies, as far as the template's roles need it: actions and resources."""

import re


def as_list(value) -> list:
    return value if isinstance(value, list) else [value]


def matches(pattern: str, value: str) -> bool:
    """Says whether a pattern with `*` and `?` matches the value."""
    wildcards = {"*": ".*", "?": "."}
    expression = "".join(wildcards.get(character) or re.escape(character) for character in pattern)
    return re.fullmatch(expression, value, re.DOTALL) is not None


def covers(statement: dict, action: str, resource: str) -> bool:
    actions = [pattern.lower() for pattern in as_list(statement["Action"])]
    has_action = any(matches(pattern, action.lower()) for pattern in actions)
    return has_action and any(matches(pattern, resource) for pattern in as_list(statement["Resource"]))


def allows(statements: list[dict], action: str, resource: str) -> bool:
    """Says whether an identity with these statements may do this: a denial precedes a permission."""
    effects = [statement["Effect"] for statement in statements if covers(statement, action, resource)]
    return "Allow" in effects and "Deny" not in effects
