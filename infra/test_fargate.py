"""Tests of `fargate.yaml`: it has no problems, and mistakes in it are found."""

import unittest

import checks
from fargate_checks import container, problems, template


def properties(stack, name):
    return stack["Resources"][name]["Properties"]


def attribute(stack, resource, name, key, value):
    for entry in properties(stack, resource)[name]:
        if entry["Key"] == key:
            entry["Value"] = value


def statements(stack, name):
    found = properties(stack, name)
    return found["Policies"][0]["PolicyDocument"]["Statement"] if "Policies" in found else found["PolicyDocument"]["Statement"]


def without_option(stack, name):
    command = container(stack)["Command"]
    start = command.index(name)
    del command[start : start + 2]


def variables(stack):
    return container(stack)["Environment"]


# Mistakes, each with a part of the message that reports it.
MISTAKES = {
    "a load balancer that ends long calls": (
        lambda stack: attribute(stack, "LoadBalancer", "LoadBalancerAttributes", "idle_timeout.timeout_seconds", "60"),
        "ends a silent call of 900 s after 60 s",
    ),
    "an idle timeout that no load balancer has": (
        lambda stack: attribute(stack, "LoadBalancer", "LoadBalancerAttributes", "idle_timeout.timeout_seconds", "5000"),
        "after 5000 s",
    ),
    "a broker that closes idle connections first": (
        lambda stack: without_option(stack, "--idle-timeout-s"),
        "a task closes connections that the load balancer still uses",
    ),
    "a task that is stopped during its calls": (
        lambda stack: attribute(
            stack, "TargetGroup", "TargetGroupAttributes", "deregistration_delay.timeout_seconds", "30"
        ),
        "stopped before its longest call has ended",
    ),
    "a broker without a stop timeout": (
        lambda stack: without_option(stack, "--stop-timeout-s"),
        "does not stop within the 120 s",
    ),
    "a stop timeout above Fargate's maximum": (
        lambda stack: container(stack).update(StopTimeout=300),
        "does not stop within the 300 s",
    ),
    "public addresses": (
        lambda stack: properties(stack, "Service")["NetworkConfiguration"]["AwsvpcConfiguration"].update(
            AssignPublicIp="ENABLED"
        ),
        "tasks have public addresses",
    ),
    "HTTP": (lambda stack: properties(stack, "Listener").update(Protocol="HTTP", Port=80), "without TLS"),
    "tasks that every address reaches": (
        lambda stack: properties(stack, "TaskSecurityGroup")["SecurityGroupIngress"][0].update(
            SourceSecurityGroupId=None, CidrIp="0.0.0.0/0"
        ),
        "others than the load balancer reach the tasks",
    ),
    "a wrong port": (lambda stack: properties(stack, "TargetGroup").update(Port=80), "the ports differ"),
    "a health check that needs a key": (
        lambda stack: properties(stack, "TargetGroup").update(HealthCheckPath="/v1/models"),
        "does not ask /healthz",
    ),
    "a health check that needs a shell": (
        lambda stack: container(stack)["HealthCheck"].update(Command=["CMD-SHELL", "curl -f http://127.0.0.1:8787"]),
        "no health check that works without a shell",
    ),
    "a broker on loopback": (
        lambda stack: container(stack).update(Command=["serve", *container(stack)["Command"][3:]]),
        "unexpected command",
    ),
    "callers without verified signatures": (
        lambda stack: container(stack)["Command"].append("--trust-access-key-ids"),
        "unexpected command",
    ),
    "a missing variable": (lambda stack: variables(stack).pop(2), "lacks SPILLWAY_REGISTRY_TABLE"),
    "a task whose bodies do not fit": (
        lambda stack: stack["Parameters"]["MemoryMiB"].update(Default=512),
        "bodies may take more than a quarter of its memory",
    ),
    "an unknown variable": (
        lambda stack: variables(stack).append({"Name": "SPILLWAY_QUEUE", "Value": "x"}),
        "has SPILLWAY_QUEUE, which config.rs does not read",
    ),
    "a file system that can be written": (
        lambda stack: container(stack).pop("ReadonlyRootFilesystem"),
        "its file system can be written",
    ),
    "no logs": (lambda stack: container(stack).pop("LogConfiguration"), "do not reach a log group"),
    "logs that never expire": (lambda stack: properties(stack, "Logs").pop("RetentionInDays"), "do not reach a log group"),
    "a parameter that is no output": (
        lambda stack: stack["Parameters"].update(JobTable=stack["Parameters"].pop("JobsTable")),
        "JobsTable is no output of the stack",
    ),
    "a task that cannot write jobs": (
        lambda stack: statements(stack, "TaskRole").pop(2),
        "a task without jobs lacks dynamodb:PutItem on Jobs",
    ),
    "a task that may write the registry": (
        lambda stack: statements(stack, "TaskRole")[0]["Action"].append("dynamodb:PutItem"),
        "a task without jobs has dynamodb:PutItem on Registry",
    ),
    "a task with jobs that cannot receive them": (
        lambda stack: statements(stack, "DrainPolicy").pop(1),
        "a task with jobs lacks sqs:ReceiveMessage on JobsQueue",
    ),
    "rights of the drain for every task": (
        lambda stack: stack["Resources"]["DrainPolicy"].pop("Condition"),
        "a task without jobs has the rights of the drain",
    ),
    "an unknown resource": (
        lambda stack: properties(stack, "Service").update(TaskDefinition={"Ref": "Tasks"}),
        "lint E1020",
    ),
    "a task size that Fargate does not have": (
        lambda stack: stack["Parameters"]["Cpu"].update(Default=1000),
        "lint E2015",
    ),
}


class FargateTest(unittest.TestCase):
    maxDiff = None

    def test_the_template_has_no_problems(self):
        self.assertEqual([], problems(template(), checks.template()))

    def test_every_mistake_is_reported(self):
        sam = checks.template()
        for mistake, (make, message) in MISTAKES.items():
            with self.subTest(mistake):
                stack = template()
                make(stack)
                found = problems(stack, sam, with_lint=message.startswith("lint"))
                self.assertTrue(any(message in problem for problem in found), f"not reported; found only {found}")


if __name__ == "__main__":
    unittest.main()
