"""Tests that the SAM template has no known problem, and that `checks.py` reports known mistakes.

Runs offline in the environment of aws-sam-cli:

    python -m unittest discover -s infra -p 'test_*.py'
"""

import unittest

from checks import (
    CONFIG,
    IDEMPOTENCY_ACTIONS,
    INDEX_ACTIONS,
    INFRA,
    JOBS_ACTIONS,
    LEDGER_ACTIONS,
    OPERATOR_LEDGER_ACTIONS,
    problems,
    store_actions,
    template,
)
from samcli.yamlhelper import yaml_parse


def properties(sam, resource):
    return sam["Resources"][resource]["Properties"]


def event(sam, function, name):
    return properties(sam, function)["Events"][name]["Properties"]


def statements(sam, role):
    return properties(sam, role)["Policies"][0]["PolicyDocument"]["Statement"]


def grant(action, target):
    return {"Effect": "Allow", "Action": action, "Resource": {"Fn::GetAtt": [target, "Arn"]}}


# Mistakes in templates: how to make each of them, and a part of the message that must report it.
MISTAKES = {
    "CloudFormation's value instead of SAM's": (
        lambda sam: event(sam, "ApiFunction", "Everything").update(ResponseTransferMode="STREAM"),
        "streaming: /{proxy+} is buffered",
    ),
    "a path without streaming": (
        lambda sam: event(sam, "ApiFunction", "Root").pop("ResponseTransferMode"),
        "streaming: / is buffered",
    ),
    "an integration with the default timeout": (
        lambda sam: event(sam, "ApiFunction", "Everything").pop("TimeoutInMillis"),
        "the timeout of /{proxy+} is not 15 minutes",
    ),
    "a typo in a method": (
        lambda sam: event(sam, "ApiFunction", "Everything").update(Method="PSOT"),
        "streaming: unexpected methods of /{proxy+}",
    ),
    "an edge-optimised endpoint": (
        lambda sam: properties(sam, "Api").pop("EndpointConfiguration"),
        "is not regional",
    ),
    "bodies as text": (
        lambda sam: properties(sam, "Api").pop("BinaryMediaTypes"),
        "front door: bodies that are no text are destroyed",
    ),
    "an error in the shape of API Gateway": (
        lambda sam: properties(sam, "Api")["GatewayResponses"].pop("DEFAULT_5XX"),
        "front door: DEFAULT_5XX has a body that SDKs do not read",
    ),
    "an error that is not JSON": (
        lambda sam: properties(sam, "Api")["GatewayResponses"]["THROTTLED"]["ResponseTemplates"].update(
            {"application/json": '{"type":"error","message":$context.error.message}'}
        ),
        "front door: THROTTLED is not an error of all APIs",
    ),
    "a throttled caller without a time": (
        lambda sam: properties(sam, "Api")["GatewayResponses"]["THROTTLED"].pop("ResponseParameters"),
        "front door: a throttled caller does not learn",
    ),
    "no throttling": (
        lambda sam: properties(sam, "Api").pop("MethodSettings"),
        "front door: a flood of requests is not throttled",
    ),
    "throttling of one path": (
        lambda sam: properties(sam, "Api")["MethodSettings"][0].update(ResourcePath="/"),
        "front door: a flood of requests is not throttled",
    ),
    "an API that can take all executions": (
        lambda sam: properties(sam, "ApiFunction").pop("ReservedConcurrentExecutions"),
        "front door: the API function can take all executions",
    ),
    "no partial batch responses": (
        lambda sam: event(sam, "DrainFunction", "Jobs").pop("FunctionResponseTypes"),
        "a single bad message fails its whole batch",
    ),
    "a typo in partial batch responses": (
        lambda sam: event(sam, "DrainFunction", "Jobs").update(FunctionResponseTypes=["ReportBatchItemFailure"]),
        "lint E3030",
    ),
    "no maximum concurrency": (
        lambda sam: event(sam, "DrainFunction", "Jobs").pop("ScalingConfig"),
        "concurrency of the drain is not bounded",
    ),
    "a typo in the maximum concurrency": (
        lambda sam: event(sam, "DrainFunction", "Jobs").update(ScalingConfig={"MaxConcurrency": 20}),
        "lint E3002",
    ),
    "provisioned pollers": (
        lambda sam: event(sam, "DrainFunction", "Jobs").update(ProvisionedPollerConfig={"MinimumPollers": 1}),
        "provisioned pollers and a maximum concurrency are exclusive",
    ),
    "an unknown event property": (
        lambda sam: event(sam, "DrainFunction", "Jobs").update(BatchSizes=1),
        "transform:",
    ),
    "no sweep": (lambda sam: properties(sam, "DrainFunction")["Events"].pop("Sweep"), "sweep: no rule runs it"),
    "a wrong sweep input": (
        lambda sam: event(sam, "DrainFunction", "Sweep").update(Input='{"sweep":1}'),
        "sweep: the rule does not send",
    ),
    "no dead-letter queue": (lambda sam: properties(sam, "JobsQueue").pop("RedrivePolicy"), "JobsQueue does not redrive"),
    "dead letters with the default retention": (
        lambda sam: properties(sam, "DeadLetterQueue").pop("MessageRetentionPeriod"),
        "not kept for 14 days",
    ),
    "a visibility timeout of a single function timeout": (
        lambda sam: properties(sam, "JobsQueue").update(VisibilityTimeout=900),
        "less than six times",
    ),
    "a visibility timeout below the function timeout": (
        lambda sam: properties(sam, "JobsQueue").update(VisibilityTimeout=60),
        "lint E3505",
    ),
    "a queue without encryption": (
        lambda sam: properties(sam, "JobsQueue").update(SqsManagedSseEnabled=False),
        "JobsQueue is not encrypted",
    ),
    "a provisioned table": (
        lambda sam: properties(sam, "Ledger").update(BillingMode="PROVISIONED"),
        "Ledger is not billed per request",
    ),
    "no backups": (
        lambda sam: properties(sam, "Registry").pop("PointInTimeRecoverySpecification"),
        "Registry cannot be restored",
    ),
    "no table encryption": (lambda sam: properties(sam, "Jobs").pop("SSESpecification"), "Jobs is not encrypted"),
    "a registry that is deleted with the stack": (
        lambda sam: sam["Resources"]["Registry"].pop("DeletionPolicy"),
        "Registry is deleted",
    ),
    "no expiry of jobs": (lambda sam: properties(sam, "Jobs").pop("TimeToLiveSpecification"), "never deleted"),
    "expiry by a wrong attribute": (
        lambda sam: properties(sam, "Jobs")["TimeToLiveSpecification"].update(AttributeName="ttl"),
        "never deleted",
    ),
    "no index for the sweep": (
        lambda sam: properties(sam, "Jobs").pop("GlobalSecondaryIndexes"),
        "no index `open`",
    ),
    "an index with a wrong projection": (
        lambda sam: properties(sam, "Jobs")["GlobalSecondaryIndexes"][2].update(
            Projection={"ProjectionType": "KEYS_ONLY"}
        ),
        "unexpected projection of the index `waiting`",
    ),
    "a batch size of 1": (
        lambda sam: event(sam, "DrainFunction", "Jobs").update(BatchSize=1),
        "event source: unexpected batch sizes",
    ),
    "a batch without a window": (
        lambda sam: event(sam, "DrainFunction", "Jobs").pop("MaximumBatchingWindowInSeconds"),
        "requires a window",
    ),
    "a webhook queue without a consumer": (
        lambda sam: properties(sam, "DrainFunction")["Events"].pop("Webhooks"),
        "event source: unexpected batch sizes",
    ),
    "a webhook queue without a dead-letter queue": (
        lambda sam: properties(sam, "WebhookQueue").pop("RedrivePolicy"),
        "WebhookQueue does not redrive",
    ),
    "a drain that cannot send dead letters": (
        lambda sam: statements(sam, "DrainRole").remove(
            next(entry for entry in statements(sam, "DrainRole") if entry.get("Sid") == "SendDeadLetters")
        ),
        "DrainRole lacks sqs:SendMessage on DeadLetterQueue",
    ),
    "bodies without encryption": (
        lambda sam: properties(sam, "Bodies").pop("BucketEncryption"),
        "bodies: the bucket is not encrypted",
    ),
    "public bodies": (
        lambda sam: properties(sam, "Bodies")["PublicAccessBlockConfiguration"].update(BlockPublicPolicy=False),
        "bodies: the bucket can be made public",
    ),
    "bodies that never expire": (
        lambda sam: properties(sam, "Bodies").pop("LifecycleConfiguration"),
        "bodies: objects never expire",
    ),
    "bodies without TLS": (
        lambda sam: sam["Resources"].pop("BodiesOnlyByTls"),
        "bodies: the bucket accepts requests without TLS",
    ),
    "a bucket that prevents the deletion of the stack": (
        lambda sam: sam["Resources"]["Bodies"].pop("DeletionPolicy"),
        "bodies: the stack cannot be deleted",
    ),
    "access to the objects of every bucket": (
        lambda sam: statements(sam, "ApiRole").append({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}),
        "ApiRole has s3:GetObject on *",
    ),
    "a drain whose resent jobs Lambda drops": (
        lambda sam: properties(sam, "DrainFunction").pop("RecursiveLoop"),
        "Lambda drops a job that is resent",
    ),
    "a drain that waiting callers can starve": (
        lambda sam: properties(sam, "DrainFunction").pop("ReservedConcurrentExecutions"),
        "no concurrency can be reserved for the drain",
    ),
    "a jobs table that is deleted with the stack": (
        lambda sam: sam["Resources"]["Jobs"].update(DeletionPolicy="Delete"),
        "Jobs is deleted with the stack",
    ),
    "no alarm for dropped jobs": (
        lambda sam: sam["Resources"].pop("RecursiveInvocationsAlarm"),
        "no alarm for RecursiveInvocationsDropped",
    ),
    "no alarm for the sweep": (lambda sam: sam["Resources"].pop("SweepAlarm"), "no alarm for sweeps of the events"),
    "an alarm on a metric that does not exist": (
        lambda sam: properties(sam, "DeniedModelsAlarm").update(MetricName="denials"),
        "no alarm for denied of the events",
    ),
    "no alarm for pools that are out": (
        lambda sam: sam["Resources"].pop("PoolOutagesAlarm"),
        "no alarm for pool_outage_ms of the events",
    ),
    "an alarm on the metrics of all stacks": (
        lambda sam: properties(sam, "FailedClosedAlarm").update(Namespace="Spillway"),
        "unexpected alarm for failed_closed of [None] in Spillway",
    ),
    "an alarm on a dimension that the metric does not have": (
        lambda sam: properties(sam, "OverdueJobsAlarm").update(
            Dimensions=[{"Name": "FunctionName", "Value": {"Ref": "DrainFunction"}}]
        ),
        "no alarm for oldest_overdue_s of the events",
    ),
    "metrics in a namespace without alarms": (
        lambda sam: sam["Globals"]["Function"]["Environment"]["Variables"].update(SPILLWAY_METRIC_NAMESPACE="Spillway"),
        "ApiFunction writes metrics into another namespace",
    ),
    "an API whose metrics have another dimension": (
        lambda sam: properties(sam, "Api").update(Name="spillway"),
        "the name of the API is not the dimension of its alarm",
    ),
    "an alarm that takes missing data for insufficient": (
        lambda sam: properties(sam, "SweepAlarm").pop("TreatMissingData"),
        "SweepAlarm does not say what missing data means",
    ),
    "SAM's generated role": (
        lambda sam: properties(sam, "DrainFunction").pop("Role"),
        "roles: DrainFunctionRole has the managed policies",
    ),
    "tracing, which attaches a policy to SAM's generated role": (
        lambda sam: (properties(sam, "ApiFunction").pop("Role"), properties(sam, "ApiFunction").update(Tracing="Active")),
        "AWSXrayWriteOnlyAccess",
    ),
    "a managed policy": (
        lambda sam: properties(sam, "ApiRole").update(
            ManagedPolicyArns=["arn:aws:iam::aws:policy/AmazonDynamoDBFullAccess"]
        ),
        "ApiRole has the managed policies",
    ),
    "a single role for both functions": (
        lambda sam: properties(sam, "ApiFunction").update(Role={"Fn::GetAtt": ["DrainRole", "Arn"]}),
        "the role of ApiFunction is not ApiRole",
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
    "a typo in an action": (
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
    "logs that never expire": (
        lambda sam: properties(sam, "ApiLogs").pop("RetentionInDays"),
        "logs of ApiFunction never expire",
    ),
    "the default log group": (
        lambda sam: properties(sam, "DrainFunction").pop("LoggingConfig"),
        "logs of DrainFunction never expire",
    ),
    "text logs": (
        lambda sam: properties(sam, "ApiFunction")["LoggingConfig"].update(LogFormat="Text"),
        "logs of ApiFunction are not JSON",
    ),
    "a log level that drops events": (
        lambda sam: properties(sam, "DrainFunction")["LoggingConfig"].update(ApplicationLogLevel="WARN"),
        "the log level of DrainFunction drops events",
    ),
    "a log level that is left to the account": (
        lambda sam: properties(sam, "ApiFunction")["LoggingConfig"].pop("ApplicationLogLevel"),
        "the log level of ApiFunction drops events",
    ),
    "a missing alarm": (lambda sam: sam["Resources"].pop("DeadLettersAlarm"), "no alarm for"),
    "an alarm on the wrong function": (
        lambda sam: properties(sam, "DrainThrottlesAlarm").update(
            Dimensions=[{"Name": "FunctionName", "Value": {"Ref": "ApiFunction"}}]
        ),
        "no alarm for Throttles of DrainFunction",
    ),
    "an alarm without an action": (
        lambda sam: properties(sam, "OverdueJobsAlarm").pop("AlarmActions"),
        "the alarm for oldest_overdue_s has no action",
    ),
    "a missing variable": (
        lambda sam: sam["Globals"]["Function"]["Environment"]["Variables"].pop("SPILLWAY_QUEUE_URL"),
        "lacks SPILLWAY_QUEUE_URL",
    ),
    "an unknown variable": (
        lambda sam: sam["Globals"]["Function"]["Environment"]["Variables"].update(SPILLWAY_QUEUE="x"),
        "has SPILLWAY_QUEUE, which config.rs does not read",
    ),
    "another setting of the allocator": (
        lambda sam: sam["Globals"]["Function"]["Environment"]["Variables"].update(MALLOC_ARENA_MAX="8"),
        "DrainFunction does not set MALLOC_ARENA_MAX to 2",
    ),
    "a wrong handler": (lambda sam: sam["Globals"]["Function"].update(Handler="main"), "runs main"),
    "an older runtime": (lambda sam: sam["Globals"]["Function"].update(Runtime="provided.al2"), "on provided.al2"),
    "a runtime that does not exist": (
        lambda sam: sam["Globals"]["Function"].update(Runtime="provided.al2024"),
        "lint E3030",
    ),
    "a typo in the architecture": (
        lambda sam: sam["Globals"]["Function"].update(Architectures=["arm46"]),
        "the architecture of ApiFunction is unknown",
    ),
    "a timeout above Lambda's maximum": (lambda sam: sam["Globals"]["Function"].update(Timeout=3000), "lint E3717"),
    "code at the root, which compiles features of the command": (
        lambda sam: properties(sam, "ApiFunction").update(CodeUri=".."),
        "code: ApiFunction is built in ..",
    ),
    "the same binary twice": (
        lambda sam: sam["Resources"]["DrainFunction"]["Metadata"]["BuildProperties"].update(Binary="api"),
        "DrainFunction is not built from the binary drain",
    ),
    "a buffered Function URL": (
        lambda sam: properties(sam, "ApiFunctionUrl").pop("InvokeMode"),
        "function url: responses are buffered",
    ),
    "a Function URL without the second permission": (
        lambda sam: sam["Resources"].pop("ApiFunctionInvokePermission"),
        "requires both permissions",
    ),
    "a Function URL that is open although the API requires IAM": (
        lambda sam: properties(sam, "ApiFunctionUrl").update(AuthType="NONE"),
        "function url: it is open although the API requires IAM",
    ),
    "an IAM Function URL that any AWS account may call": (
        lambda sam: sam["Resources"]["ApiFunctionUrlPermission"].update(Condition="HasFunctionUrl"),
        "ApiFunctionUrlPermission exists without an open Function URL",
    ),
    "a Function URL that counts as open although it requires IAM": (
        lambda sam: sam["Conditions"].update(HasOpenFunctionUrl={"Fn::And": [{"Condition": "HasFunctionUrl"}] * 2}),
        "wrong condition HasOpenFunctionUrl",
    ),
    "an API that never requires signatures": (
        lambda sam: properties(sam, "Api").pop("Auth"),
        "signatures: /{proxy+} does not require a signature",
    ),
    "an API that always requires signatures": (
        lambda sam: sam["Parameters"]["FrontDoorAuth"].update(Default="AWS_IAM"),
        "signatures: / requires a signature",
    ),
    "an API that invokes the function with the caller's credentials": (
        lambda sam: properties(sam, "Api").update(Auth={"DefaultAuthorizer": "AWS_IAM"}),
        "invokes the function with the caller's credentials",
    ),
    "a default that grants every guardrail": (
        lambda sam: sam["Parameters"]["Guardrails"].update(Default="*"),
        "every guardrail of the account may be applied by default",
    ),
    "an open Invoke API": (
        lambda sam: properties(sam, "ApiFunctionInvokePermission").pop("InvokedViaFunctionUrl"),
        "any caller may use the Invoke API",
    ),
}


class TemplateTest(unittest.TestCase):
    maxDiff = None

    def test_the_template_has_no_problems(self):
        self.assertEqual([], problems(template()))

    def test_every_mistake_is_reported(self):
        config = CONFIG.read_text()
        for mistake, (make, message) in MISTAKES.items():
            with self.subTest(mistake):
                sam = template()
                make(sam)
                found = problems(sam, config, with_lint=message.startswith("lint"))
                self.assertTrue(any(message in problem for problem in found), f"not reported; found only {found}")

    def test_a_new_variable_in_config_rs_is_reported(self):
        found = problems(template(), CONFIG.read_text() + 'const NEW: &str = "SPILLWAY_NEW_THING";', with_lint=False)
        self.assertIn("environment: ApiFunction lacks SPILLWAY_NEW_THING", found)
        self.assertIn("environment: DrainFunction lacks SPILLWAY_NEW_THING", found)

    def test_the_functions_have_exactly_the_permissions_of_the_stores_calls(self):
        self.assertEqual(JOBS_ACTIONS | INDEX_ACTIONS, store_actions("jobs"))
        self.assertEqual(IDEMPOTENCY_ACTIONS, store_actions("idempotency"))
        self.assertEqual(LEDGER_ACTIONS | OPERATOR_LEDGER_ACTIONS, store_actions("ledger"))

    def test_the_documented_settings_for_managed_instances_are_valid(self):
        text = (INFRA.parent / "docs/deploy.md").read_text()
        settings = yaml_parse(text.split("### Lambda Managed Instances")[1].split("```yaml\n")[1].split("```")[0])
        sam = template()
        properties(sam, "ApiFunction").update(settings)
        self.assertEqual([], problems(sam))
        mistake = {"PerExecutionEnvironmentMaxConcurrencies": 200}
        properties(sam, "ApiFunction")["CapacityProviderConfig"].update(mistake)
        self.assertNotEqual([], problems(sam))


if __name__ == "__main__":
    unittest.main()
