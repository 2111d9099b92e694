"""Checks the stack that `template.yaml` deploys: transforms it as SAM does, and checks the result.

Linting the untransformed template finds almost nothing. Requires the packages of aws-sam-cli, but
no network and no credentials.
"""

import copy
import json
import logging
import os
import re
from pathlib import Path

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from cfnlint.api import ManualArgs, lint  # noqa: E402
from samcli.yamlhelper import yaml_dump, yaml_parse  # noqa: E402
from samtranslator.model.exceptions import InvalidDocumentException  # noqa: E402
from samtranslator.parser.parser import Parser  # noqa: E402
from samtranslator.translator.translator import Translator  # noqa: E402

logging.getLogger("samtranslator").setLevel(logging.ERROR)

INFRA = Path(__file__).resolve().parent
SOURCE = INFRA.parent / "shared" / "spillway" / "src"
CONFIG = SOURCE / "config.rs"

FUNCTIONS = {"ApiFunction": ("api", "ApiRole"), "DrainFunction": ("drain", "DrainRole")}
TABLES = {
    "Registry": {"pk": "HASH", "sk": "RANGE"},
    "Ledger": {"pk": "HASH"},
    "Jobs": {"pk": "HASH"},
}
# Variables that config.rs reads and the template does not set, each with the reason.
DELIBERATELY_ABSENT = {}
# Settings of the allocator, which a process of the command gives to itself (allocator.rs).
ALLOCATOR_SETTINGS = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "2"}

OPEN_FUNCTION_URL = {"Fn::And": [{"Condition": "HasFunctionUrl"}, {"Fn::Not": [{"Condition": "UsesIam"}]}]}
# The queues that the drain reads, each with its batch size.
BATCH_SIZES = {"JobsQueue": 20, "WebhookQueue": 10}
# Queues, each with its dead-letter queue.
# AWS recommends at least 5 for queues that invoke a function (AWS Lambda Developer Guide, "Using
# Lambda with Amazon SQS").
MAX_RECEIVES = 5
DEAD_LETTER_QUEUES = {"JobsQueue": "DeadLetterQueue", "WebhookQueue": "WebhookDeadLetterQueue"}
REGISTRY_ACTIONS = {"dynamodb:GetItem", "dynamodb:Query"}
LEDGER_ACTIONS = {"dynamodb:GetItem", "dynamodb:UpdateItem"}
# The command scans the ledger with its operator's credentials; the functions may not.
OPERATOR_LEDGER_ACTIONS = {"dynamodb:Scan"}
JOBS_ACTIONS = {
    "dynamodb:GetItem",
    "dynamodb:BatchGetItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
}
IDEMPOTENCY_ACTIONS = {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"}
INDEX_ACTIONS = {"dynamodb:Query"}
# Indexes of the jobs table, each with its key attributes and its projection.
INDEXES = {
    "open": (("open", "due_ms"), {"ProjectionType": "KEYS_ONLY"}),
    "listed": (("tenant", "listed"), {"ProjectionType": "KEYS_ONLY"}),
    "waiting": (
        ("waiting", "place_ms"),
        {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["priority", "ready_ms"]},
    ),
}
BODY_ACTIONS = {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
BUCKET_ACTIONS = {"s3:ListBucket"}
BEDROCK_ACTIONS = {"bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream", "bedrock:ApplyGuardrail"}
# Only the API function counts tokens.
COUNT_ACTIONS = {"bedrock:CountTokens"}
LOG_ACTIONS = {"logs:CreateLogStream", "logs:PutLogEvents"}
DRAIN_QUEUE_ACTIONS = {
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ChangeMessageVisibility",
    "sqs:SendMessage",
}
ALLOWED_ACTIONS = {
    "ApiRole": {
        "Registry": REGISTRY_ACTIONS,
        "Ledger": LEDGER_ACTIONS,
        "Jobs": JOBS_ACTIONS,
        "Jobs/index/listed": INDEX_ACTIONS,
        "Jobs/index/waiting": INDEX_ACTIONS,
        "Bodies": BUCKET_ACTIONS,
        "Bodies/*": BODY_ACTIONS,
        "JobsQueue": {"sqs:SendMessage"},
        "WebhookQueue": {"sqs:SendMessage"},
        "bedrock": BEDROCK_ACTIONS | COUNT_ACTIONS,
        "ApiLogs": LOG_ACTIONS,
    },
    "DrainRole": {
        "Registry": REGISTRY_ACTIONS,
        "Ledger": LEDGER_ACTIONS,
        # Only the API function deletes and lists.
        "Jobs": JOBS_ACTIONS - {"dynamodb:DeleteItem"},
        "Jobs/index/open": INDEX_ACTIONS,
        "Jobs/index/waiting": INDEX_ACTIONS,
        "Bodies": BUCKET_ACTIONS,
        "Bodies/*": BODY_ACTIONS,
        "JobsQueue": DRAIN_QUEUE_ACTIONS,
        "WebhookQueue": DRAIN_QUEUE_ACTIONS,
        "DeadLetterQueue": {"sqs:SendMessage"},
        "bedrock": BEDROCK_ACTIONS,
        "DrainLogs": LOG_ACTIONS,
    },
}
GATEWAY_RESPONSES = {
    "DEFAULT_4XX",
    "DEFAULT_5XX",
    "REQUEST_TOO_LARGE",
    "MISSING_AUTHENTICATION_TOKEN",
    "THROTTLED",
    "INTEGRATION_TIMEOUT",
}

# Alarms: the namespace and the name of the metric, and the value of its dimension. The metrics of
# events are in the namespace of the stack.
ALARMS = {
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "DeadLetterQueue"),
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "WebhookDeadLetterQueue"),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage", "WebhookQueue"),
    ("AWS/Lambda", "Errors", "ApiFunction"),
    ("AWS/Lambda", "Throttles", "ApiFunction"),
    ("AWS/Lambda", "Errors", "DrainFunction"),
    ("AWS/Lambda", "Throttles", "DrainFunction"),
    ("AWS/Lambda", "RecursiveInvocationsDropped", "DrainFunction"),
    ("AWS/ApiGateway", "5XXError", "AWS::StackName"),
    ("the stack", "sweeps", None),
    ("the stack", "oldest_overdue_s", None),
    ("the stack", "failed_closed", None),
    ("the stack", "server_errors", None),
    ("the stack", "denied", None),
    ("the stack", "pool_outage_ms", None),
}
# The namespace of the metrics in the events.
METRIC_NAMESPACE = {"Fn::Sub": "Spillway/${AWS::StackName}"}


def template():
    """Returns the untransformed SAM template."""
    sam = yaml_parse((INFRA / "template.yaml").read_text())
    # A dump and a second parse copy the nodes that YAML aliases share, so that a mutation changes
    # only a single place.
    return yaml_parse(yaml_dump(sam))


def problems(sam, config=None, with_lint=True):
    """Returns the problems of the stack that `sam` deploys, a message each."""
    try:
        stack = transformed(sam, {})
        iam_stack = transformed(sam, {"FrontDoorAuth": "AWS_IAM"})
    except InvalidDocumentException as error:
        return [f"transform: {cause.message}" for cause in error.causes]
    config = CONFIG.read_text() if config is None else config
    found = [problem for check in CHECKS for problem in check(stack)]
    found += check_iam_auth(stack, iam_stack)
    found += check_alarms_unchanged(sam, stack)
    found += check_environment(stack, config)
    found += check_code(sam)
    return found + (lint_problems(stack) if with_lint else [])


def transformed(sam, parameters):
    """Returns the CloudFormation template for `sam`; `parameters` override the defaults.

    The code of a function is `s3://artifacts/BINARY.zip`.
    """
    packaged = copy.deepcopy(sam)
    for name in FUNCTIONS:
        # `sam deploy` uploads the code to S3 and replaces the path.
        function = packaged["Resources"][name]
        binary = function["Metadata"]["BuildProperties"]["Binary"]
        function["Properties"]["CodeUri"] = f"s3://artifacts/{binary}.zip"
    translator = Translator(managed_policy_map={}, sam_parser=Parser(), plugins=[])
    return translator.translate(sam_template=packaged, parameter_values=parameters)


def lint_problems(stack):
    matches = lint(yaml_dump(stack), config=ManualArgs(regions=["us-east-1", "eu-central-1"]))
    return [f"lint {match.rule.id}: {match.message}" for match in matches if match.rule.id[0] in "EW"]


def resources(stack, kind):
    return {name: body["Properties"] for name, body in stack["Resources"].items() if body["Type"] == kind}


def resolve(stack, value):
    """Returns the default of the parameter that `value` refers to, or `value` itself."""
    if isinstance(value, dict) and value.get("Ref") in stack["Parameters"]:
        default = stack["Parameters"][value["Ref"]]["Default"]
        return int(default) if str(default).isdigit() else default
    return value


def check_streaming(stack):
    for api in resources(stack, "AWS::ApiGateway::RestApi").values():
        paths = api["Body"]["paths"]
        if set(paths) != {"/", "/{proxy+}"}:
            yield f"streaming: unexpected paths of the API: {sorted(paths)}"
        for path, methods in paths.items():
            if set(methods) != {"x-amazon-apigateway-any-method"}:
                yield f"streaming: unexpected methods of {path}: {sorted(methods)}"
            for method in methods.values():
                integration = method["x-amazon-apigateway-integration"]
                if integration.get("responseTransferMode") != "STREAM":
                    yield f"streaming: {path} is buffered"
                if not integration["uri"]["Fn::Sub"].endswith("/response-streaming-invocations"):
                    yield f"streaming: {path} does not use the streaming invocation"
                if integration.get("timeoutInMillis") != 900_000:
                    yield f"streaming: the timeout of {path} is not 15 minutes"
        if api.get("EndpointConfiguration") != {"Types": ["REGIONAL"]}:
            yield "streaming: the API is not regional, so an idle stream is closed after 30 seconds"


def check_front_door(stack):
    """Checks what API Gateway does itself: the encoding of bodies, throttling, and its own errors."""
    body = resources(stack, "AWS::ApiGateway::RestApi")["Api"]["Body"]
    if body.get("x-amazon-apigateway-binary-media-types") != ["*/*"]:
        yield "front door: bodies that are no text are destroyed"
    errors = body.get("x-amazon-apigateway-gateway-responses", {})
    for name in sorted(GATEWAY_RESPONSES - set(errors)):
        yield f"front door: {name} has a body that SDKs do not read"
    for name, response in errors.items():
        text = response["responseTemplates"]["application/json"]
        if not is_error(text.replace("$context.error.messageString", '"Why."')):
            yield f"front door: {name} is not an error of all APIs"
    if not errors.get("THROTTLED", {}).get("responseParameters", {}).get("gatewayresponse.header.Retry-After"):
        yield "front door: a throttled caller does not learn when to come back"
    for stage in resources(stack, "AWS::ApiGateway::Stage").values():
        settings = stage.get("MethodSettings", [{}])[0]
        limits = [settings.get("ThrottlingRateLimit"), settings.get("ThrottlingBurstLimit")]
        applies_to = (settings.get("ResourcePath"), settings.get("HttpMethod"))
        if applies_to != ("/*", "*") or limits != [{"Ref": "ThrottlingRate"}, {"Ref": "ThrottlingBurst"}]:
            yield "front door: a flood of requests is not throttled"
    reserved = {"Fn::If": ["ReservesApi", {"Ref": "ApiReservedConcurrency"}, {"Ref": "AWS::NoValue"}]}
    if resources(stack, "AWS::Lambda::Function")["ApiFunction"].get("ReservedConcurrentExecutions") != reserved:
        yield "front door: the API function can take all executions of the account"


def is_error(text):
    """Whether the text is JSON that the SDKs of OpenAI, Anthropic and AWS read as an error."""
    try:
        body = json.loads(text)
        return body["type"] == "error" and body["error"]["message"] == body["message"] and bool(body["error"]["type"])
    except (ValueError, KeyError, TypeError):
        return False


def check_queues(stack):
    queues = resources(stack, "AWS::SQS::Queue")
    timeout = resources(stack, "AWS::Lambda::Function")["DrainFunction"]["Timeout"]
    for name, dead_letter_queue in DEAD_LETTER_QUEUES.items():
        if queues[name].get("RedrivePolicy") != {
            "deadLetterTargetArn": {"Fn::GetAtt": [dead_letter_queue, "Arn"]},
            "maxReceiveCount": MAX_RECEIVES,
        }:
            yield f"queues: {name} does not redrive to its dead-letter queue after {MAX_RECEIVES} receives"
        if queues[dead_letter_queue].get("MessageRetentionPeriod") != 14 * 24 * 3600:
            yield f"queues: dead letters of {name} are not kept for 14 days"
        if queues[name].get("VisibilityTimeout", 30) < 6 * timeout:
            yield f"queues: the visibility timeout of {name} is less than six times the drain's timeout"
    for name, queue in queues.items():
        if queue.get("SqsManagedSseEnabled") is not True:
            yield f"queues: {name} is not encrypted"


def check_bodies(stack):
    buckets = resources(stack, "AWS::S3::Bucket")
    if set(buckets) != {"Bodies"}:
        yield f"bodies: unexpected buckets: {sorted(buckets)}"
    bucket, resource = buckets["Bodies"], stack["Resources"]["Bodies"]
    encryption = bucket.get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration", [{}])
    if encryption[0].get("ServerSideEncryptionByDefault", {}).get("SSEAlgorithm") not in ("AES256", "aws:kms"):
        yield "bodies: the bucket is not encrypted"
    access_block = bucket.get("PublicAccessBlockConfiguration", {})
    if [name for name, value in access_block.items() if value is True] != [
        "BlockPublicAcls",
        "BlockPublicPolicy",
        "IgnorePublicAcls",
        "RestrictPublicBuckets",
    ]:
        yield "bodies: the bucket can be made public"
    rules = bucket.get("LifecycleConfiguration", {}).get("Rules", [])
    if not any(rule.get("Status") == "Enabled" and rule.get("ExpirationInDays") for rule in rules):
        yield "bodies: objects never expire"
    if resource.get("DeletionPolicy") != "Retain" or resource.get("UpdateReplacePolicy") != "Retain":
        yield "bodies: the stack cannot be deleted while the bucket holds objects"
    policies = resources(stack, "AWS::S3::BucketPolicy").values()
    statements = [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]
    without_tls = {"Bool": {"aws:SecureTransport": "false"}}
    if not any(
        statement["Effect"] == "Deny" and statement.get("Condition") == without_tls for statement in statements
    ):
        yield "bodies: the bucket accepts requests without TLS"
    if any(statement["Effect"] != "Deny" for statement in statements):
        yield "bodies: the bucket policy grants access"


def check_event_sources(stack):
    mappings = list(resources(stack, "AWS::Lambda::EventSourceMapping").values())
    sizes = {}
    for mapping in mappings:
        if mapping.get("FunctionName") == {"Ref": "DrainFunction"}:
            sizes[mapping["EventSourceArn"]["Fn::GetAtt"][0]] = mapping.get("BatchSize")
    if sizes != BATCH_SIZES or len(mappings) != len(BATCH_SIZES):
        yield f"event source: unexpected batch sizes of the drain: {sizes}"
    for mapping in mappings:
        if mapping.get("BatchSize", 10) > 10 and not mapping.get("MaximumBatchingWindowInSeconds"):
            yield "event source: a batch of more than ten messages requires a window"
        if mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield "event source: a single bad message fails its whole batch"
        concurrency = resolve(stack, mapping.get("ScalingConfig", {}).get("MaximumConcurrency"))
        if not isinstance(concurrency, int) or not 2 <= concurrency <= 1000:
            yield "event source: the concurrency of the drain is not bounded"
        if "ProvisionedPollerConfig" in mapping:
            yield "event source: provisioned pollers and a maximum concurrency are exclusive"


def check_resends(stack):
    """Checks what keeps resent jobs running: Lambda neither drops nor starves the drain."""
    drain = resources(stack, "AWS::Lambda::Function")["DrainFunction"]
    if drain.get("RecursiveLoop") != "Allow":
        yield "resends: Lambda drops a job that is resent about 16 times"
    reserved = {"Fn::If": ["ReservesDrain", {"Ref": "DrainReservedConcurrency"}, {"Ref": "AWS::NoValue"}]}
    if drain.get("ReservedConcurrentExecutions") != reserved:
        yield "resends: no concurrency can be reserved for the drain"


def check_sweep(stack):
    rules = list(resources(stack, "AWS::Events::Rule").values())
    if len(rules) != 1 or rules[0].get("ScheduleExpression") != "rate(1 minute)":
        yield "sweep: no rule runs it every minute"
    for rule in rules:
        target = rule["Targets"][0]
        if target["Arn"] != {"Fn::GetAtt": ["DrainFunction", "Arn"]} or target.get("Input") != '{"sweep":true}':
            yield "sweep: the rule does not send {\"sweep\":true} to the drain"


def check_tables(stack):
    found = resources(stack, "AWS::DynamoDB::Table")
    if set(found) != set(TABLES):
        yield f"tables: unexpected tables: {sorted(found)}"
    for name, keys in TABLES.items():
        table = found.get(name, {})
        if {key["AttributeName"]: key["KeyType"] for key in table.get("KeySchema", [])} != keys:
            yield f"tables: the keys of {name} are not {keys}"
        if table.get("BillingMode") != "PAY_PER_REQUEST":
            yield f"tables: {name} is not billed per request"
        if not table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled"):
            yield f"tables: {name} cannot be restored to a point in time"
        if not table.get("SSESpecification", {}).get("SSEEnabled"):
            yield f"tables: {name} is not encrypted with a KMS key"
    for name in TABLES:
        resource = stack["Resources"][name]
        if resource.get("DeletionPolicy") != "Retain" or resource.get("UpdateReplacePolicy") != "Retain":
            yield f"tables: {name} is deleted with the stack"


def check_jobs_table(stack):
    jobs = resources(stack, "AWS::DynamoDB::Table")["Jobs"]
    if jobs.get("TimeToLiveSpecification") != {"AttributeName": "expires_s", "Enabled": True}:
        yield "jobs: ended jobs are never deleted"
    indexes = {index["IndexName"]: index for index in jobs.get("GlobalSecondaryIndexes", [])}
    for name, ((hash_key, range_key), projection) in INDEXES.items():
        index = indexes.get(name, {})
        keys = [(key["AttributeName"], key["KeyType"]) for key in index.get("KeySchema", [])]
        if keys != [(hash_key, "HASH"), (range_key, "RANGE")]:
            yield f"jobs: no index `{name}` with the keys `{hash_key}` and `{range_key}`"
        if index.get("Projection") != projection:
            yield f"jobs: unexpected projection of the index `{name}`: {index.get('Projection')}"
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in jobs["AttributeDefinitions"]}
    strings, numbers = {"pk", "open", "tenant", "listed", "waiting"}, {"due_ms", "place_ms"}
    if types != dict.fromkeys(strings, "S") | dict.fromkeys(numbers, "N"):
        yield f"jobs: unexpected types of key attributes: {types}"


def check_functions(stack):
    found = resources(stack, "AWS::Lambda::Function")
    if set(found) != set(FUNCTIONS):
        yield f"functions: unexpected functions: {sorted(found)}"
    for name, (binary, role) in FUNCTIONS.items():
        function = found[name]
        if function.get("Role") != {"Fn::GetAtt": [role, "Arn"]}:
            yield f"functions: the role of {name} is not {role}"
        if (function["Handler"], function["Runtime"]) != ("bootstrap", "provided.al2023"):
            yield f"functions: {name} runs {function['Handler']} on {function['Runtime']}"
        if resolve(stack, function["Architectures"][0]) not in ("arm64", "x86_64"):
            yield f"functions: the architecture of {name} is unknown"
        build = stack["Resources"][name].get("Metadata", {})
        if build.get("BuildMethod") != "rust-cargolambda" or build.get("BuildProperties") != {"Binary": binary}:
            yield f"functions: {name} is not built from the binary {binary}"


def check_roles(stack):
    found = resources(stack, "AWS::IAM::Role")
    if set(found) != set(ALLOWED_ACTIONS):
        yield f"roles: unexpected roles: {sorted(found)}"
    for kind in ["AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"]:
        for name in resources(stack, kind):
            yield f"roles: the policy {name} is not inline in its role"
    for name, role in found.items():
        if role.get("ManagedPolicyArns"):
            yield f"roles: {name} has the managed policies {role['ManagedPolicyArns']}"
        granted = granted_actions(role)
        for target in sorted(set(granted) | set(ALLOWED_ACTIONS.get(name, {}))):
            allowed = ALLOWED_ACTIONS.get(name, {}).get(target, set())
            for action in sorted(granted.get(target, set()) ^ allowed):
                verb = "lacks" if action in allowed else "has"
                yield f"roles: {name} {verb} {action} on {target}"
    if "*" in stack["Parameters"]["Guardrails"]["Default"]:
        yield "roles: every guardrail of the account may be applied by default"


def granted_actions(role):
    """Returns the actions that a role may perform, by target."""
    granted = {}
    for policy in role.get("Policies", []):
        for statement in policy["PolicyDocument"]["Statement"]:
            actions, targets = statement["Action"], statement["Resource"]
            for target in targets if isinstance(targets, list) else [targets]:
                granted.setdefault(target_name(target), set()).update([actions] if isinstance(actions, str) else actions)
    return granted


def target_name(target):
    """Returns the resource of this stack that an ARN names, `bedrock` for a model, or the ARN."""
    if isinstance(target, dict) and "Fn::GetAtt" in target:
        return target["Fn::GetAtt"][0]
    text = target.get("Fn::Sub", str(target)) if isinstance(target, dict) else target
    if isinstance(text, list):
        # The name of a queue is the last part of its URL.
        text = text[0].replace("${QueueName}", "${%s}" % text[1]["QueueName"]["Fn::Select"][1]["Fn::Split"][1]["Ref"])
    if part := re.fullmatch(r"\$\{(\w+)\.Arn\}/(.+)", text):
        return f"{part[1]}/{part[2]}"
    model = r"arn:\$\{AWS::Partition\}:bedrock:\$\{ModelRegions\}:(\$\{AWS::AccountId\})?:[a-z-]+/\$\{\w+\}"
    return "bedrock" if re.fullmatch(model, text) else text


def check_logs(stack):
    groups = resources(stack, "AWS::Logs::LogGroup")
    for name, function in resources(stack, "AWS::Lambda::Function").items():
        config = function.get("LoggingConfig", {})
        group = groups.get(config.get("LogGroup", {}).get("Ref"))
        if group is None or not resolve(stack, group.get("RetentionInDays")):
            yield f"logs: logs of {name} never expire"
        if config.get("LogFormat") != "JSON":
            yield f"logs: logs of {name} are not JSON"
        if config.get("ApplicationLogLevel") != "INFO":
            yield f"logs: the log level of {name} drops events, or can change unnoticed"


def check_alarms(stack):
    """Checks that each alarm exists. The end-to-end tests evaluate the alarms on metrics of events."""
    found = set()
    for name, alarm in resources(stack, "AWS::CloudWatch::Alarm").items():
        namespace, metric = alarm["Namespace"], alarm["MetricName"]
        subjects = [dimension["Value"] for dimension in alarm.get("Dimensions", [])]
        subjects = [subject.get("Ref") or subject["Fn::GetAtt"][0] for subject in subjects] or [None]
        found.add(("the stack" if namespace == METRIC_NAMESPACE else str(namespace), metric, *subjects))
        if "Ref" not in str(alarm.get("AlarmActions")):
            yield f"alarms: the alarm for {metric} has no action"
        if alarm.get("TreatMissingData") not in ("breaching", "notBreaching"):
            yield f"alarms: {name} does not say what missing data means"
    for _, metric, subject in sorted(ALARMS - found, key=str):
        yield f"alarms: no alarm for {metric} of {subject or 'the events'}"
    for namespace, metric, *subjects in sorted(found - ALARMS, key=str):
        yield f"alarms: unexpected alarm for {metric} of {subjects} in {namespace}"
    for name, function in resources(stack, "AWS::Lambda::Function").items():
        if function["Environment"]["Variables"].get("SPILLWAY_METRIC_NAMESPACE") != METRIC_NAMESPACE:
            yield f"alarms: {name} writes metrics into another namespace"
    for api in resources(stack, "AWS::ApiGateway::RestApi").values():
        if api.get("Name") != {"Ref": "AWS::StackName"}:
            yield "alarms: the name of the API is not the dimension of its alarm"


def check_alarms_unchanged(sam, stack):
    """Reports alarms that the transform changes. The end-to-end tests read the untransformed ones."""
    kind = "AWS::CloudWatch::Alarm"
    if resources(sam, kind) != resources(stack, kind):
        yield "alarms: the transform changes them"


def check_function_url(stack):
    urls = resources(stack, "AWS::Lambda::Url")
    if any(url.get("InvokeMode") != "RESPONSE_STREAM" for url in urls.values()):
        yield "function url: responses are buffered"
    grants = {}
    for name, grant in resources(stack, "AWS::Lambda::Permission").items():
        if grant["Principal"] != "*":
            continue
        grants[grant["Action"]] = grant
        if stack["Resources"][name].get("Condition") != "HasOpenFunctionUrl":
            yield f"function url: {name} exists without an open Function URL"
    if stack["Conditions"].get("HasOpenFunctionUrl") != OPEN_FUNCTION_URL:
        yield "function url: wrong condition HasOpenFunctionUrl"
    if any(url.get("AuthType") != {"Fn::If": ["UsesIam", "AWS_IAM", "NONE"]} for url in urls.values()):
        yield "function url: it is open although the API requires IAM"
    if set(grants) != {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}:
        yield "function url: it requires both permissions"
    if grants.get("lambda:InvokeFunctionUrl", {}).get("FunctionUrlAuthType") != "NONE":
        yield "function url: the permission does not match the authentication type"
    if grants.get("lambda:InvokeFunction", {}).get("InvokedViaFunctionUrl") is not True:
        yield "function url: any caller may use the Invoke API"
    if stack["Parameters"]["EnableFunctionUrl"]["Default"] != "false":
        yield "function url: it is enabled by default"


def check_iam_auth(stack, iam_stack):
    """Reports paths that require a signature by default, or do not with FrontDoorAuth=AWS_IAM."""
    iam = [{"AWS_IAM": []}]
    for deployed, expected, fault in [(stack, None, "requires"), (iam_stack, iam, "does not require")]:
        for api in resources(deployed, "AWS::ApiGateway::RestApi").values():
            for path, methods in api["Body"]["paths"].items():
                for method in methods.values():
                    if method.get("security") != expected:
                        yield f"signatures: {path} {fault} a signature"
                    if "credentials" in method["x-amazon-apigateway-integration"]:
                        yield f"signatures: {path} invokes the function with the caller's credentials"


CHECKS = [
    check_streaming,
    check_front_door,
    check_queues,
    check_bodies,
    check_event_sources,
    check_resends,
    check_sweep,
    check_tables,
    check_jobs_table,
    check_functions,
    check_roles,
    check_logs,
    check_alarms,
    check_function_url,
]


def check_environment(stack, config):
    """Reports variables that the functions lack, or that neither config.rs nor the allocator reads."""
    read = set(re.findall(r'"(SPILLWAY_[A-Z0-9_]+)"', config))
    if not read:
        yield "environment: config.rs reads no variable"
    for name, function in resources(stack, "AWS::Lambda::Function").items():
        variables = function["Environment"]["Variables"]
        configured = set(variables)
        for variable in sorted(read - configured - set(DELIBERATELY_ABSENT)):
            yield f"environment: {name} lacks {variable}"
        for variable, value in ALLOCATOR_SETTINGS.items():
            if variables.get(variable) != value:
                yield f"environment: {name} does not set {variable} to {value}"
        for variable in sorted(configured - read - set(ALLOCATOR_SETTINGS)):
            yield f"environment: {name} has {variable}, which config.rs does not read"
    for variable in sorted(set(DELIBERATELY_ABSENT) - read):
        yield f"environment: {variable} is deliberately absent, but config.rs does not read it"


def check_code(sam):
    """Reports functions that are not built in their own package.

    Otherwise Cargo would compile the dependency features of the command into them.
    """
    for name, (binary, _) in FUNCTIONS.items():
        folder = sam["Resources"][name]["Properties"].get("CodeUri")
        if folder != f"../functions/{binary}":
            yield f"code: {name} is built in {folder}"


# The modules of `store/` that read and write a table. `rows.rs` makes the calls for several of them.
STORE_MODULES = {
    "jobs": ("jobs", "backlogs", "batches", "files", "uploads", "documents", "list_index"),
    "idempotency": ("idempotency",),
    "ledger": ("ledger",),
}


def store_actions(store):
    """Returns the IAM actions for the DynamoDB operations that a store of `STORE_MODULES` calls.

    DynamoDB authorises a transaction by the actions it consists of.
    """
    code = "".join(module_code(module) for module in STORE_MODULES[store])
    actions = {"dynamodb:" + call.title().replace("_", "") for call in operations(code)}
    if "dynamodb:TransactWriteItems" in actions:
        actions = actions - {"dynamodb:TransactWriteItems"} | {"dynamodb:PutItem", "dynamodb:UpdateItem"}
    return actions


def module_code(module):
    """Returns the text of a module of `store/` and of the modules below it."""
    files = [SOURCE / "store" / f"{module}.rs", *(SOURCE / "store" / module).rglob("*.rs")]
    return "".join(file.read_text() for file in files if file.exists())


def operations(code):
    """Returns the SDK's operations that Rust code calls, itself and through methods of `Rows`."""
    _, *methods = re.split(r"\bfn (?=\w+)", module_code("rows"))
    methods = {re.match(r"\w+", method)[0]: method for method in methods}
    found, unread = set(), [code]
    while unread:
        text = unread.pop()
        found.update(re.findall(r"\.(\w+_items?|query|scan)\(\)", text))
        called = re.findall(r"\b(?:rows|self)\s*\.(\w+)\(", text)
        unread += [methods.pop(name) for name in called if name in methods]
    return found
