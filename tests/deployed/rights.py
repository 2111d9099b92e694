"""Checks of all calls of a run against the roles of the functions."""

from explained import UNUSED_GRANTS
from iam import as_list, covers, matches

# Shorter physical IDs, such as a stage's, are no names of resources in ARNs.
MIN_NAME_LENGTH = 8


def problems(broker, is_whole: bool) -> list[str]:
    """Returns the denied calls and the calls that no grant covers.

    After a whole run, also returns the grants that nothing used and nothing explains, and prints
    the explained ones.
    """
    found = [f"denied: {denial}" for denial in broker.denials()]
    found += [f"outside of the grants: {call}" for call in calls_outside_of_grants(broker)]
    if not is_whole:
        return found
    unused = unused_grants(broker)
    for pattern, reason in UNUSED_GRANTS.items():
        explained = [grant for grant in unused if matches(pattern, grant)]
        if not explained:
            found.append(f"explained as unused, but used or not granted: {pattern}")
        for grant in explained:
            print(f"unused grant {grant}: {reason}")
    return found + [f"granted, but used by no scenario: {grant}" for grant in unused if not is_explained(grant)]


def is_explained(grant: str) -> bool:
    return any(matches(pattern, grant) for pattern in UNUSED_GRANTS)


def calls_outside_of_grants(broker) -> list[str]:
    return [
        f"{logical_id}: {action} on {resource}"
        for logical_id, statements in broker.stack.roles.items()
        for action, resource in sorted(broker.called(logical_id))
        if not any(covers(statement, action, resource) for statement in statements)
        and not any(matches(pattern, resource) for pattern in broker.provoked_denials)
    ]


def unused_grants(broker) -> list[str]:
    """Returns the pairs of an action and a resource pattern that a role has and no call needed."""
    return [
        f"{logical_id}: {action} on {readable(broker, resource)}"
        for logical_id, statements in broker.stack.roles.items()
        for statement in statements
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
        if not is_used(broker.called(logical_id), action, resource)
    ]


def is_used(calls: set[tuple[str, str]], action: str, resource: str) -> bool:
    return any(matches(action.lower(), called.lower()) and matches(resource, on) for called, on in calls)


def readable(broker, resource: str) -> str:
    """Returns a resource with the logical ID of the stack instead of the physical one."""
    name = resource.split(":", 5)[-1]
    for logical_id, physical_id in broker.stack.ids.items():
        physical_name = physical_id.rpartition("/")[2]
        if len(physical_name) >= MIN_NAME_LENGTH:
            name = name.replace(physical_name, logical_id)
    return name
