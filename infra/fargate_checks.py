"""Checks `fargate.yaml`: its timeouts fit each other, and its roles have the rights of the functions."""

import re

from checks import ALLOWED_ACTIONS, CONFIG, INFRA, granted_actions, lint_problems, resources
from samcli.yamlhelper import yaml_parse

# Resources of `template.yaml`, each by the parameter that names it here.
PARAMETERS = {
    "RegistryTable": "Registry",
    "LedgerTable": "Ledger",
    "JobsTable": "Jobs",
    "QueueUrl": "JobsQueue",
    "DeadLetterQueueUrl": "DeadLetterQueue",
    "WebhookQueueUrl": "WebhookQueue",
    "Bucket": "Bodies",
}
# Maxima of Fargate and of a load balancer.
MAX_STOP_TIMEOUT_S, MAX_IDLE_TIMEOUT_S = 120, 4000


def template():
    """Returns the template."""
    return yaml_parse((INFRA / "fargate.yaml").read_text())


def problems(stack, sam, with_lint=True):
    """Returns the problems of the template `stack` beside the template `sam`, a message each."""
    found = [problem for check in CHECKS for problem in check(stack, sam)]
    return found + (lint_problems(stack) if with_lint else [])


def attributes(properties, name):
    return {entry["Key"]: entry["Value"] for entry in properties.get(name, [])}


def container(stack):
    return stack["Resources"]["TaskDefinition"]["Properties"]["ContainerDefinitions"][0]


def option(command, name):
    return int(command[command.index(name) + 1]) if name in command else 0


def check_timeouts(stack, sam):
    longest_call_s = sam["Globals"]["Function"]["Timeout"]
    balancer = attributes(stack["Resources"]["LoadBalancer"]["Properties"], "LoadBalancerAttributes")
    group = attributes(stack["Resources"]["TargetGroup"]["Properties"], "TargetGroupAttributes")
    idle_s = int(balancer.get("idle_timeout.timeout_seconds", 60))
    if not longest_call_s < idle_s <= MAX_IDLE_TIMEOUT_S:
        yield f"timeouts: the load balancer ends a silent call of {longest_call_s} s after {idle_s} s"
    if option(container(stack)["Command"], "--idle-timeout-s") <= idle_s:
        yield "timeouts: a task closes connections that the load balancer still uses"
    if int(group.get("deregistration_delay.timeout_seconds", 300)) < longest_call_s:
        yield "timeouts: a task is stopped before its longest call has ended"
    stop_s = container(stack).get("StopTimeout", 30)
    if not 0 < option(container(stack)["Command"], "--stop-timeout-s") < stop_s <= MAX_STOP_TIMEOUT_S:
        yield f"timeouts: the broker does not stop within the {stop_s} s of its container"


def check_network(stack, _):
    service = stack["Resources"]["Service"]["Properties"]
    if service["NetworkConfiguration"]["AwsvpcConfiguration"].get("AssignPublicIp") != "DISABLED":
        yield "network: tasks have public addresses"
    listeners = list(resources(stack, "AWS::ElasticLoadBalancingV2::Listener").values())
    if any(listener["Protocol"] != "HTTPS" or not listener.get("Certificates") for listener in listeners):
        yield "network: clients may connect without TLS"
    for rule in stack["Resources"]["TaskSecurityGroup"]["Properties"]["SecurityGroupIngress"]:
        if rule.get("SourceSecurityGroupId") != {"Ref": "LoadBalancerSecurityGroup"}:
            yield "network: others than the load balancer reach the tasks"
    ports = {service["LoadBalancers"][0]["ContainerPort"], container(stack)["PortMappings"][0]["ContainerPort"]}
    ports |= {rule["ToPort"] for rule in stack["Resources"]["TaskSecurityGroup"]["Properties"]["SecurityGroupIngress"]}
    if ports | {stack["Resources"]["TargetGroup"]["Properties"]["Port"]} != {8787}:
        yield "network: the ports differ"


def check_health(stack, _):
    if stack["Resources"]["TargetGroup"]["Properties"].get("HealthCheckPath") != "/healthz":
        yield "health: the load balancer does not ask /healthz"
    if container(stack).get("HealthCheck", {}).get("Command") != ["CMD", "/spillway", "health"]:
        yield "health: the container has no health check that works without a shell"


def check_container(stack, _):
    command = container(stack)["Command"]
    if command[:3] != ["serve", "--host", "0.0.0.0"] or "--trust-access-key-ids" in command:
        yield f"container: unexpected command {command}"
    if container(stack).get("ReadonlyRootFilesystem") is not True:
        yield "container: its file system can be written"
    read = set(re.findall(r'"(SPILLWAY_[A-Z0-9_]+)"', CONFIG.read_text()))
    configured = {entry["Name"] for entry in container(stack)["Environment"]}
    for variable in sorted(read - configured):
        yield f"container: it lacks {variable}"
    for variable in sorted(name for name in configured - read if name.startswith("SPILLWAY_")):
        yield f"container: it has {variable}, which config.rs does not read"
    memory, bodies = (stack["Parameters"][name]["Default"] for name in ("MemoryMiB", "BodyMemoryMiB"))
    if bodies * 4 > memory:
        yield "container: bodies may take more than a quarter of its memory"


def check_logs(stack, _):
    logs = container(stack).get("LogConfiguration", {})
    group = stack["Resources"].get(logs.get("Options", {}).get("awslogs-group", {}).get("Ref"), {})
    if logs.get("LogDriver") != "awslogs" or not group.get("Properties", {}).get("RetentionInDays"):
        yield "logs: the events do not reach a log group that expires"


def check_names(stack, sam):
    for name in PARAMETERS:
        if name not in sam["Outputs"] or name not in stack["Parameters"]:
            yield f"names: {name} is no output of the stack"


def check_roles(stack, _):
    """Reports differences from the rights of the functions."""
    api = without_logs(ALLOWED_ACTIONS["ApiRole"])
    task = rights(stack["Resources"]["TaskRole"]["Properties"])
    yield from differences("a task without jobs", task, api)
    policy = {"Policies": [stack["Resources"]["DrainPolicy"]["Properties"]]}
    both = united(task, rights(policy))
    yield from differences("a task with jobs", both, united(api, without_logs(ALLOWED_ACTIONS["DrainRole"])))
    if stack["Resources"]["DrainPolicy"].get("Condition") != "Drains":
        yield "roles: a task without jobs has the rights of the drain"


def differences(subject, granted, allowed):
    for target in sorted(set(granted) | set(allowed)):
        for action in sorted(granted.get(target, set()) ^ allowed.get(target, set())):
            verb = "lacks" if action in allowed.get(target, set()) else "has"
            yield f"roles: {subject} {verb} {action} on {target}"


def without_logs(allowed):
    return {target: actions for target, actions in allowed.items() if not target.endswith("Logs")}


def united(first, second):
    return {target: first.get(target, set()) | second.get(target, set()) for target in set(first) | set(second)}


def rights(role):
    """Returns the actions that a role may perform, by resource of `template.yaml`."""
    found = {}
    for target, actions in granted_actions(role).items():
        found.setdefault(resource(target), set()).update(actions)
    return found


def resource(target):
    """Returns the resource of `template.yaml` that an ARN names through a parameter, or the ARN."""
    name = re.search(r"\$\{(\w+)\}(/[^$]+)?$", target)
    return PARAMETERS[name[1]] + (name[2] or "") if name and name[1] in PARAMETERS else target


CHECKS = [
    check_timeouts,
    check_network,
    check_health,
    check_container,
    check_logs,
    check_names,
    check_roles,
]
