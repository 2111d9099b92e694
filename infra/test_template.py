"""Tests the SAM template: it has none of the known problems, and each problem would be noticed.

Runs in aws-sam-cli's environment, offline:

    python -m unittest discover -s infra -p 'test_*.py'
"""

import unittest

from checks import (
    ANSWERS_ACTIONS,
    CONFIG,
    INDEX_ACTIONS,
    JOBS_ACTIONS,
    LEDGER_ACTIONS,
    OPERATORS_LEDGER_ACTIONS,
    problems,
    store_actions,
    template,
)


def properties(sam, resource):
    return sam["Resources"][resource]["Properties"]


def event(sam, function, name):
    return properties(sam, function)["Events"][name]["Properties"]


def statements(sam, role):
    return properties(sam, role)["Policies"][0]["PolicyDocument"]["Statement"]


def grant(action, target):
    return {"Effect": "Allow", "Action": action, "Resource": {"Fn::GetAtt": [target, "Arn"]}}


# What goes wrong in templates: the mistake, and a part of the sentence that must report it.
MISTAKES = {
    "the CloudFormation word instead of SAM's": (
        lambda sam: event(sam, "ApiFunction", "Everything").update(ResponseTransferMode="STREAM"),
        "streaming: /{proxy+} is buffered",
    ),
    "a path without streaming": (
        lambda sam: event(sam, "ApiFunction", "Root").pop("ResponseTransferMode"),
        "streaming: / is buffered",
    ),
    "the default timeout of an integration": (
        lambda sam: event(sam, "ApiFunction", "Everything").pop("TimeoutInMillis"),
        "ends before 15 minutes",
    ),
    "a method typo": (
        lambda sam: event(sam, "ApiFunction", "Everything").update(Method="PSOT"),
        "streaming: /{proxy+} has the methods",
    ),
    "an edge-optimised endpoint": (
        lambda sam: properties(sam, "Api").pop("EndpointConfiguration"),
        "is not regional",
    ),
    "no partial batches": (
        lambda sam: event(sam, "DrainFunction", "Jobs").pop("FunctionResponseTypes"),
        "one bad message fails its whole batch",
    ),
    "a typo in partial batches": (
        lambda sam: event(sam, "DrainFunction", "Jobs").update(FunctionResponseTypes=["ReportBatchItemFailure"]),
        "lint E3030",
    ),
    "no bound on concurrency": (
        lambda sam: event(sam, "DrainFunction", "Jobs").pop("ScalingConfig"),
        "concurrency of the drain is not bounded",
    ),
    "a typo in the bound": (
        lambda sam: event(sam, "DrainFunction", "Jobs").update(ScalingConfig={"MaxConcurrency": 20}),
        "lint E3002",
    ),
    "provisioned pollers": (
        lambda sam: event(sam, "DrainFunction", "Jobs").update(ProvisionedPollerConfig={"MinimumPollers": 1}),
        "provisioned pollers exclude",
    ),
    "an unknown event property": (
        lambda sam: event(sam, "DrainFunction", "Jobs").update(BatchSizes=1),
        "transform:",
    ),
    "no sweep": (lambda sam: properties(sam, "DrainFunction")["Events"].pop("Sweep"), "sweep: nothing runs it"),
    "another sweep input": (
        lambda sam: event(sam, "DrainFunction", "Sweep").update(Input='{"sweep":1}'),
        "sweep: the drain is not asked",
    ),
    "no dead-letter queue": (lambda sam: properties(sam, "JobsQueue").pop("RedrivePolicy"), "does not hand over"),
    "dead letters that vanish after four days": (
        lambda sam: properties(sam, "DeadLetterQueue").pop("MessageRetentionPeriod"),
        "not kept for 14 days",
    ),
    "a visibility of one timeout": (
        lambda sam: properties(sam, "JobsQueue").update(VisibilityTimeout=900),
        "less than six times",
    ),
    "a visibility below the timeout": (
        lambda sam: properties(sam, "JobsQueue").update(VisibilityTimeout=60),
        "lint E3505",
    ),
    "a queue in plain text": (
        lambda sam: properties(sam, "JobsQueue").update(SqsManagedSseEnabled=False),
        "JobsQueue is not encrypted",
    ),
    "provisioned tables": (
        lambda sam: properties(sam, "Ledger").update(BillingMode="PROVISIONED"),
        "Ledger is not paid per request",
    ),
    "no backups": (
        lambda sam: properties(sam, "Registry").pop("PointInTimeRecoverySpecification"),
        "Registry cannot be restored",
    ),
    "no table encryption": (lambda sam: properties(sam, "Jobs").pop("SSESpecification"), "Jobs is not encrypted"),
    "a registry that goes with the stack": (
        lambda sam: sam["Resources"]["Registry"].pop("DeletionPolicy"),
        "Registry is lost",
    ),
    "no expiry of jobs": (lambda sam: properties(sam, "Jobs").pop("TimeToLiveSpecification"), "never deleted"),
    "expiry by another attribute": (
        lambda sam: properties(sam, "Jobs")["TimeToLiveSpecification"].update(AttributeName="ttl"),
        "never deleted",
    ),
    "no index for the sweep": (
        lambda sam: properties(sam, "Jobs").pop("GlobalSecondaryIndexes"),
        "there is no index `open`",
    ),
    "an index that holds too little": (
        lambda sam: properties(sam, "Jobs")["GlobalSecondaryIndexes"][2].update(Projection={"ProjectionType": "KEYS_ONLY"}),
        "the index `waiting` holds",
    ),
    "a batch of one after the other": (
        lambda sam: event(sam, "DrainFunction", "Jobs").update(BatchSize=1),
        "event source: the drain reads",
    ),
    "a batch without a window": (
        lambda sam: event(sam, "DrainFunction", "Jobs").pop("MaximumBatchingWindowInSeconds"),
        "need a window",
    ),
    "webhooks that nobody sends": (
        lambda sam: properties(sam, "DrainFunction")["Events"].pop("Webhooks"),
        "event source: the drain reads",
    ),
    "webhooks that are lost": (lambda sam: properties(sam, "WebhookQueue").pop("RedrivePolicy"), "WebhookQueue does not hand"),
    "a drain that cannot say why a job failed": (
        lambda sam: statements(sam, "DrainRole").remove(
            next(one for one in statements(sam, "DrainRole") if one.get("Sid") == "BuryFailedJobs")
        ),
        "DrainRole lacks sqs:SendMessage on DeadLetterQueue",
    ),
    "bodies in plain text": (lambda sam: properties(sam, "Bodies").pop("BucketEncryption"), "bodies: they are not encrypted"),
    "bodies for everybody": (
        lambda sam: properties(sam, "Bodies")["PublicAccessBlockConfiguration"].update(BlockPublicPolicy=False),
        "bodies: they can be made public",
    ),
    "bodies for ever": (lambda sam: properties(sam, "Bodies").pop("LifecycleConfiguration"), "bodies: they are kept for ever"),
    "bodies without TLS": (lambda sam: sam["Resources"].pop("BodiesOnlyByTls"), "bodies: they can be asked for in plain"),
    "a bucket that keeps the stack": (
        lambda sam: sam["Resources"]["Bodies"].pop("DeletionPolicy"),
        "bodies: the stack cannot be deleted",
    ),
    "bodies of other buckets": (
        lambda sam: statements(sam, "ApiRole").append({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}),
        "ApiRole has s3:GetObject on *",
    ),
    "a sweep that nobody misses": (lambda sam: sam["Resources"].pop("SweepAlarm"), "nobody watches FailedInvocations"),
    "SAM's own role": (
        lambda sam: properties(sam, "DrainFunction").pop("Role"),
        "roles: DrainFunctionRole has the managed policies",
    ),
    "tracing, which attaches a policy to SAM's own role": (
        lambda sam: (properties(sam, "ApiFunction").pop("Role"), properties(sam, "ApiFunction").update(Tracing="Active")),
        "AWSXrayWriteOnlyAccess",
    ),
    "a managed policy": (
        lambda sam: properties(sam, "ApiRole").update(
            ManagedPolicyArns=["arn:aws:iam::aws:policy/AmazonDynamoDBFullAccess"]
        ),
        "ApiRole has the managed policies",
    ),
    "one role for both": (
        lambda sam: properties(sam, "ApiFunction").update(Role={"Fn::GetAtt": ["DrainRole", "Arn"]}),
        "ApiFunction has another role",
    ),
    "write access to the registry": (
        lambda sam: statements(sam, "ApiRole").append(grant("dynamodb:PutItem", "Registry")),
        "ApiRole has dynamodb:PutItem on Registry",
    ),
    "every action on the registry": (
        lambda sam: statements(sam, "DrainRole").append(grant("dynamodb:*", "Registry")),
        "DrainRole has dynamodb:* on Registry",
    ),
    "access to every table": (
        lambda sam: statements(sam, "ApiRole").append({"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": "*"}),
        "ApiRole has dynamodb:GetItem on *",
    ),
    "a drain that cannot find jobs": (
        lambda sam: statements(sam, "DrainRole").pop(3),
        "DrainRole lacks dynamodb:Query on Jobs/index/open",
    ),
    "an action typo": (
        lambda sam: statements(sam, "DrainRole").append(grant("sqs:RecieveMessage", "JobsQueue")),
        "lint W3037",
    ),
    "an action that does not exist": (
        lambda sam: statements(sam, "ApiRole").append(grant("dynamodb:TransactWriteItems", "Ledger")),
        "lint W3037",
    ),
    "a table that does not exist": (
        lambda sam: statements(sam, "ApiRole").append(grant("dynamodb:GetItem", "Ledgers")),
        "lint E1010",
    ),
    "logs for ever": (lambda sam: properties(sam, "ApiLogs").pop("RetentionInDays"), "ApiFunction are kept for ever"),
    "the default log group": (
        lambda sam: properties(sam, "DrainFunction").pop("LoggingConfig"),
        "DrainFunction are kept for ever",
    ),
    "text logs": (
        lambda sam: properties(sam, "ApiFunction")["LoggingConfig"].update(LogFormat="Text"),
        "ApiFunction are not JSON",
    ),
    "a missing alarm": (lambda sam: sam["Resources"].pop("DeadLettersAlarm"), "nobody watches"),
    "an alarm on the wrong function": (
        lambda sam: properties(sam, "DrainThrottlesAlarm").update(
            Dimensions=[{"Name": "FunctionName", "Value": {"Ref": "ApiFunction"}}]
        ),
        "nobody watches Throttles of DrainFunction",
    ),
    "an alarm nobody hears": (
        lambda sam: properties(sam, "QueueAgeAlarm").pop("AlarmActions"),
        "ApproximateAgeOfOldestMessage notifies nobody",
    ),
    "a missing variable": (
        lambda sam: sam["Globals"]["Function"]["Environment"]["Variables"].pop("SPILLWAY_QUEUE_URL"),
        "lacks SPILLWAY_QUEUE_URL",
    ),
    "a variable nobody reads": (
        lambda sam: sam["Globals"]["Function"]["Environment"]["Variables"].update(SPILLWAY_QUEUE="x"),
        "has SPILLWAY_QUEUE, which nothing reads",
    ),
    "a wrong handler": (lambda sam: sam["Globals"]["Function"].update(Handler="main"), "runs main"),
    "an older runtime": (lambda sam: sam["Globals"]["Function"].update(Runtime="provided.al2"), "on provided.al2"),
    "a runtime that does not exist": (
        lambda sam: sam["Globals"]["Function"].update(Runtime="provided.al2024"),
        "lint E3030",
    ),
    "an architecture typo": (
        lambda sam: sam["Globals"]["Function"].update(Architectures=["arm46"]),
        "has no known architecture",
    ),
    "a timeout beyond Lambda's": (lambda sam: sam["Globals"]["Function"].update(Timeout=3000), "lint E3717"),
    "code at the root, where features of the command are compiled in": (
        lambda sam: properties(sam, "ApiFunction").update(CodeUri=".."),
        "code: ApiFunction is built in ..",
    ),
    "the same binary twice": (
        lambda sam: sam["Resources"]["DrainFunction"]["Metadata"]["BuildProperties"].update(Binary="api"),
        "DrainFunction is not built from the binary drain",
    ),
    "a buffered function url": (
        lambda sam: properties(sam, "ApiFunctionUrl").pop("InvokeMode"),
        "function url: it is buffered",
    ),
    "a function url without the second permission": (
        lambda sam: sam["Resources"].pop("ApiFunctionUrlMayInvoke"),
        "needs both permissions",
    ),
    "a function url that is open where the API is not": (
        lambda sam: properties(sam, "ApiFunctionUrl").update(AuthType="NONE"),
        "function url: it is open where the API is not",
    ),
    "a function url that everybody with an AWS account may call": (
        lambda sam: sam["Resources"]["ApiFunctionUrlMayBeCalled"].update(Condition="HasFunctionUrl"),
        "ApiFunctionUrlMayBeCalled holds without an open one",
    ),
    "a function url that counts as open although it is signed": (
        lambda sam: sam["Conditions"].update(HasOpenFunctionUrl={"Fn::And": [{"Condition": "HasFunctionUrl"}] * 2}),
        "open in other cases",
    ),
    "an API that never asks for signatures": (
        lambda sam: properties(sam, "Api").pop("Auth"),
        "signatures: /{proxy+} does not ask for one",
    ),
    "an API that always asks for signatures": (
        lambda sam: sam["Parameters"]["FrontDoorAuth"].update(Default="AWS_IAM"),
        "signatures: / asks for one",
    ),
    "a function that runs with its caller's rights": (
        lambda sam: properties(sam, "Api").update(Auth={"DefaultAuthorizer": "AWS_IAM"}),
        "calls the function with the caller's rights",
    ),
    "an open Invoke API": (
        lambda sam: properties(sam, "ApiFunctionUrlMayInvoke").pop("InvokedViaFunctionUrl"),
        "everybody may call the Invoke API",
    ),
}


class TheTemplate(unittest.TestCase):
    maxDiff = None

    def test_deploys_what_the_design_names(self):
        self.assertEqual([], problems(template()))

    def test_no_mistake_goes_unnoticed(self):
        config = CONFIG.read_text()
        for mistake, (make, report) in MISTAKES.items():
            with self.subTest(mistake):
                sam = template()
                make(sam)
                found = problems(sam, config, with_lint=report.startswith("lint"))
                self.assertTrue(any(report in problem for problem in found), f"not reported; found only {found}")

    def test_a_variable_that_the_code_begins_to_read_is_noticed(self):
        found = problems(template(), CONFIG.read_text() + 'const NEW: &str = "SPILLWAY_NEW_THING";', with_lint=False)
        self.assertIn("environment: ApiFunction lacks SPILLWAY_NEW_THING", found)
        self.assertIn("environment: DrainFunction lacks SPILLWAY_NEW_THING", found)

    def test_the_functions_may_do_what_the_stores_call_and_no_more(self):
        self.assertEqual(JOBS_ACTIONS | INDEX_ACTIONS, store_actions("jobs"))
        self.assertEqual(ANSWERS_ACTIONS, store_actions("answers"))
        self.assertEqual(LEDGER_ACTIONS | OPERATORS_LEDGER_ACTIONS, store_actions("ledger"))


if __name__ == "__main__":
    unittest.main()
