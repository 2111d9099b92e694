"""Eleven checks for the first day on AWS: what only a deployment can show.

    .venv/sam/bin/python infra/first_day.py --stack spillway
    .venv/sam/bin/python infra/first_day.py --only 1,2,9

Needs the outputs of the stack, which it reads itself or takes from `SPILLWAY_API_URL` and
`SPILLWAY_FUNCTION_URL`, and a key in `SPILLWAY_KEY`. The key's tenant should have a limit of about
ten requests per minute and no other user. Checks 3 and 11 also ask Lambda and CloudWatch, and
check 7 signs requests. They need boto3, which the environment of aws-sam-cli has.

Prints pass, FAIL, or why a check could not be made. Exits with 1 if a check failed.
"""

import argparse
import os
import sys
import time
from datetime import datetime, timezone

import first_day_checks as checks
from broker_client import Broker, Unreachable

# Checks by number, each with its duration and its cost besides requests.
CHECKS = {
    1: (checks.http2, "1 s", "none"),
    2: (checks.refusals, "10 s", "two minutes' limit of short calls"),
    3: (checks.resends, "4 min", "three minutes' limit of short calls"),
    4: (checks.idle_calls, "1 h", "60 short calls"),
    5: (checks.long_answer, "10 min", "one answer of --long-tokens"),
    6: (checks.bodies, "30 s", "none"),
    7: (checks.signed_arn, "5 s", "one short call"),
    8: (checks.cut_stream, "30 s", "one answer of 300 tokens"),
    9: (checks.addresses, "4 min", "two minutes' limit of short calls"),
    10: (checks.parallel_calls, "5 s", "none"),
    11: (checks.metrics, "5 min", "one short call"),
}


class Account:
    """The AWS account of the stack."""

    def __init__(self, session, stack):
        self.session, self.stack = session, stack
        self.clients = {}

    def client(self, service):
        return self.clients.setdefault(service, self.session.client(service))

    def outputs(self):
        stacks = self.client("cloudformation").describe_stacks(StackName=self.stack)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}

    def drain(self):
        """Returns the name of the drain function."""
        found = self.client("cloudformation").describe_stack_resource(
            StackName=self.stack, LogicalResourceId="DrainFunction"
        )
        return found["StackResourceDetail"]["PhysicalResourceId"]

    def recursive_loops(self):
        """Returns what Lambda does with the drain's resent jobs: Allow or Terminate."""
        return self.client("lambda").get_function_recursion_config(FunctionName=self.drain())["RecursiveLoop"]

    def dropped_invocations(self, since_s):
        """Returns how many invocations of the drain Lambda dropped as a loop."""
        found = self.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Lambda",
            MetricName="RecursiveInvocationsDropped",
            Dimensions=[{"Name": "FunctionName", "Value": self.drain()}],
            StartTime=datetime.fromtimestamp(since_s, timezone.utc),
            EndTime=datetime.now(timezone.utc),
            Period=60,
            Statistics=["Sum"],
        )
        return sum(point["Sum"] for point in found["Datapoints"])

    def metric_names(self):
        """Returns the names of the broker's metrics of the last hours."""
        namespace = f"Spillway/{self.stack}"
        found = self.client("cloudwatch").list_metrics(Namespace=namespace, RecentlyActive="PT3H")
        return {metric["MetricName"] for metric in found["Metrics"]}


def session():
    """Returns a boto3 session, or None without boto3 or credentials."""
    try:
        import boto3
    except ImportError:
        return None
    found = boto3.Session()
    return found if found.get_credentials() and found.region_name else None


def subject(options):
    """Returns what the options and the environment select."""
    aws = session()
    account = Account(aws, options.stack) if aws and options.stack else None
    try:
        outputs = account.outputs() if account else {}
    except Exception as error:
        raise SystemExit(f"The stack {options.stack} cannot be read: {error}") from error
    url = outputs.get("ApiUrl") or os.environ.get("SPILLWAY_API_URL")
    key = os.environ.get("SPILLWAY_KEY", "")
    if not url:
        raise SystemExit("Set SPILLWAY_API_URL to the base URL, or name the stack with --stack.")
    if options.sign and not aws:
        raise SystemExit("--sign needs boto3, credentials and a region.")
    if not key and not options.sign:
        raise SystemExit("Set SPILLWAY_KEY to a key of the tenant, or sign requests with --sign.")
    credentials = aws.get_credentials().get_frozen_credentials() if options.sign else None
    broker = Broker(url, key, credentials, aws.region_name if aws else None)
    model = options.model or first_model(broker)
    return checks.Subject(
        broker=broker,
        model=model,
        function_url=outputs.get("FunctionUrl") or os.environ.get("SPILLWAY_FUNCTION_URL", ""),
        account=account,
        long_tokens=options.long_tokens,
        idle_calls=options.idle_minutes,
    )


def first_model(broker):
    answer = broker.request("GET", "/v1/models")
    models = answer.json().get("data")
    if not models:
        raise SystemExit(f"The key has no model: GET /v1/models answers {answer.shown()}.")
    return models[0]["id"]


def run(number, target):
    """Runs a check. What the check does not expect is a failure, not the end of the run."""
    try:
        return CHECKS[number][0](target)
    except Unreachable as error:
        return checks.failed(f"the broker cannot be reached: {error}")
    except Exception as error:
        return checks.failed(f"{type(error).__name__}: {error}")


def numbers(text):
    found = [int(number) for number in text.split(",")]
    if unknown := set(found) - set(CHECKS):
        raise argparse.ArgumentTypeError(f"there is no check {min(unknown)}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", help="name of the stack; without it, the SPILLWAY_ variables are used")
    parser.add_argument("--only", type=numbers, default=list(CHECKS), help="numbers of checks, such as 1,2,9")
    parser.add_argument("--model", help="model to call; the key's first model if absent")
    parser.add_argument("--sign", action="store_true", help="sign requests, for FrontDoorAuth=AWS_IAM")
    parser.add_argument("--long-tokens", type=int, default=30_000, help="length of the answer of check 5")
    parser.add_argument("--idle-minutes", type=int, default=60, help="duration of check 4")
    options = parser.parse_args()
    target = subject(options)
    print(f"{target.broker.url}, model {target.model}")
    verdicts = []
    for number in options.only:
        check, duration, cost = CHECKS[number]
        print(f"\n{number:>4}  {check.__doc__}\n      Takes about {duration}; tokens: {cost}.", flush=True)
        start = time.monotonic()
        result = run(number, target)
        print(f"{result.verdict}  {result.seen} ({time.monotonic() - start:.0f} s)", flush=True)
        verdicts.append(result.verdict)
    counts = [verdicts.count(verdict) for verdict in ("pass", "FAIL", "----")]
    print("\n{} passed, {} failed, {} not checked".format(*counts))
    return 1 if "FAIL" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
