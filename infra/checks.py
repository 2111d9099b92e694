"""Examines what `template.yaml` really deploys: it is transformed as CloudFormation would, the result linted and checked.

Linting the template itself finds next to nothing. Needs the packages of aws-sam-cli, no network and no credentials.
"""

import copy
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
# Variables that config.rs reads and the template leaves to their defaults, each with the reason.
DELIBERATELY_ABSENT = {}

OPEN_FUNCTION_URL = {"Fn::And": [{"Condition": "HasFunctionUrl"}, {"Fn::Not": [{"Condition": "UsesIam"}]}]}
# What the drain reads: the queue, and how many of its messages at once at most.
SOURCES = {"JobsQueue": 20, "WebhookQueue": 10}
# Who takes what a queue hands over.
DEAD_LETTERS = {"JobsQueue": "DeadLetterQueue", "WebhookQueue": "WebhookDeadLetterQueue"}
REGISTRY_ACTIONS = {"dynamodb:GetItem", "dynamodb:Query"}
LEDGER_ACTIONS = {"dynamodb:GetItem", "dynamodb:UpdateItem"}
# What the command does to the ledger with its operator's rights: it reads the whole table.
OPERATORS_LEDGER_ACTIONS = {"dynamodb:Scan"}
JOBS_ACTIONS = {
    "dynamodb:GetItem",
    "dynamodb:BatchGetItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
}
ANSWERS_ACTIONS = {"dynamodb:GetItem", "dynamodb:PutItem"}
INDEX_ACTIONS = {"dynamodb:Query"}
# The indexes of the jobs table: their keys, and what they hold besides those.
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
# Only the API is asked to count.
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
        "Jobs": JOBS_ACTIONS,
        "Jobs/index/open": INDEX_ACTIONS,
        "Jobs/index/listed": INDEX_ACTIONS,
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
ALARMS = {
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "DeadLetterQueue"),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage", "JobsQueue"),
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "WebhookDeadLetterQueue"),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage", "WebhookQueue"),
    ("AWS/Events", "FailedInvocations", "DrainFunctionSweep"),
    ("AWS/Lambda", "Errors", "ApiFunction"),
    ("AWS/Lambda", "Throttles", "ApiFunction"),
    ("AWS/Lambda", "Errors", "DrainFunction"),
    ("AWS/Lambda", "Throttles", "DrainFunction"),
}


def template():
    """The SAM template as written."""
    sam = yaml_parse((INFRA / "template.yaml").read_text())
    # A dump and a second read separate what YAML aliases share, so that a mutation changes one place only.
    return yaml_parse(yaml_dump(sam))


def problems(sam, config=None, with_lint=True):
    """Everything wrong with the stack that `sam` deploys, one sentence each; empty when all is well."""
    deployed = copy.deepcopy(sam)
    for name in FUNCTIONS:
        # Where deploying puts the code.
        deployed["Resources"][name]["Properties"]["CodeUri"] = "s3://some-bucket/code.zip"
    try:
        stack = transformed(deployed, {})
        signed = transformed(deployed, {"FrontDoorAuth": "AWS_IAM"})
    except InvalidDocumentException as error:
        return [f"transform: {cause.message}" for cause in error.causes]
    config = CONFIG.read_text() if config is None else config
    found = [problem for check in CHECKS for problem in check(stack)]
    found += signatures(stack, signed)
    found += environment(stack, config)
    found += code(sam)
    return found + (lint_problems(stack) if with_lint else [])


def transformed(sam, parameters):
    """What CloudFormation makes of `sam` where `parameters` are not the defaults."""
    translator = Translator(managed_policy_map={}, sam_parser=Parser(), plugins=[])
    return translator.translate(sam_template=copy.deepcopy(sam), parameter_values=parameters)


def lint_problems(stack):
    matches = lint(yaml_dump(stack), config=ManualArgs(regions=["us-east-1", "eu-central-1"]))
    return [f"lint {match.rule.id}: {match.message}" for match in matches if match.rule.id[0] in "EW"]


def resources(stack, kind):
    return {name: body["Properties"] for name, body in stack["Resources"].items() if body["Type"] == kind}


def settled(stack, value):
    """`value`, or the default of the parameter that it refers to."""
    if isinstance(value, dict) and value.get("Ref") in stack["Parameters"]:
        default = stack["Parameters"][value["Ref"]]["Default"]
        return int(default) if str(default).isdigit() else default
    return value


def streaming(stack):
    for api in resources(stack, "AWS::ApiGateway::RestApi").values():
        paths = api["Body"]["paths"]
        if set(paths) != {"/", "/{proxy+}"}:
            yield f"streaming: the API has the paths {sorted(paths)}"
        for path, methods in paths.items():
            if set(methods) != {"x-amazon-apigateway-any-method"}:
                yield f"streaming: {path} has the methods {sorted(methods)}"
            for method in methods.values():
                integration = method["x-amazon-apigateway-integration"]
                if integration.get("responseTransferMode") != "STREAM":
                    yield f"streaming: {path} is buffered"
                if not integration["uri"]["Fn::Sub"].endswith("/response-streaming-invocations"):
                    yield f"streaming: {path} does not use the streaming invocation"
                if integration.get("timeoutInMillis") != 900_000:
                    yield f"streaming: {path} ends before 15 minutes"
        if api.get("EndpointConfiguration") != {"Types": ["REGIONAL"]}:
            yield "streaming: the API is not regional, so a silent stream ends after 30 seconds"


def overflow(stack):
    queues = resources(stack, "AWS::SQS::Queue")
    timeout = resources(stack, "AWS::Lambda::Function")["DrainFunction"]["Timeout"]
    for name, dead in DEAD_LETTERS.items():
        if queues[name].get("RedrivePolicy") != {
            "deadLetterTargetArn": {"Fn::GetAtt": [dead, "Arn"]},
            "maxReceiveCount": 3,
        }:
            yield f"overflow: {name} does not hand over to its dead-letter queue after 3 receives"
        if queues[dead].get("MessageRetentionPeriod") != 14 * 24 * 3600:
            yield f"overflow: dead letters of {name} are not kept for 14 days"
        if queues[name].get("VisibilityTimeout", 30) < 6 * timeout:
            yield f"overflow: the visibility timeout of {name} is less than six times the drain's timeout"
    for name, queue in queues.items():
        if queue.get("SqsManagedSseEnabled") is not True:
            yield f"overflow: {name} is not encrypted"


def bodies(stack):
    buckets = resources(stack, "AWS::S3::Bucket")
    if set(buckets) != {"Bodies"}:
        yield f"bodies: there are the buckets {sorted(buckets)}"
    bucket, body = buckets["Bodies"], stack["Resources"]["Bodies"]
    encryption = bucket.get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration", [{}])
    if encryption[0].get("ServerSideEncryptionByDefault", {}).get("SSEAlgorithm") not in ("AES256", "aws:kms"):
        yield "bodies: they are not encrypted"
    closed = bucket.get("PublicAccessBlockConfiguration", {})
    if [name for name, value in closed.items() if value is True] != [
        "BlockPublicAcls",
        "BlockPublicPolicy",
        "IgnorePublicAcls",
        "RestrictPublicBuckets",
    ]:
        yield "bodies: they can be made public"
    rules = bucket.get("LifecycleConfiguration", {}).get("Rules", [])
    if not any(rule.get("Status") == "Enabled" and rule.get("ExpirationInDays") for rule in rules):
        yield "bodies: they are kept for ever"
    if body.get("DeletionPolicy") != "Retain" or body.get("UpdateReplacePolicy") != "Retain":
        yield "bodies: the stack cannot be deleted while there are any"
    policies = resources(stack, "AWS::S3::BucketPolicy").values()
    denials = [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]
    if not any(
        denial["Effect"] == "Deny" and denial.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
        for denial in denials
    ):
        yield "bodies: they can be asked for in plain text"
    if any(denial["Effect"] != "Deny" for denial in denials):
        yield "bodies: somebody is let in by the bucket's own policy"


def event_source(stack):
    mappings = list(resources(stack, "AWS::Lambda::EventSourceMapping").values())
    sizes = {}
    for mapping in mappings:
        if mapping.get("FunctionName") == {"Ref": "DrainFunction"}:
            sizes[mapping["EventSourceArn"]["Fn::GetAtt"][0]] = mapping.get("BatchSize")
    if sizes != SOURCES or len(mappings) != len(SOURCES):
        yield f"event source: the drain reads {sizes}"
    for mapping in mappings:
        if mapping.get("BatchSize", 10) > 10 and not mapping.get("MaximumBatchingWindowInSeconds"):
            yield "event source: more than ten messages need a window"
        if mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield "event source: one bad message fails its whole batch"
        concurrency = settled(stack, mapping.get("ScalingConfig", {}).get("MaximumConcurrency"))
        if not isinstance(concurrency, int) or not 2 <= concurrency <= 1000:
            yield "event source: the concurrency of the drain is not bounded"
        if "ProvisionedPollerConfig" in mapping:
            yield "event source: provisioned pollers exclude a maximum concurrency"


def sweep(stack):
    rules = list(resources(stack, "AWS::Events::Rule").values())
    if len(rules) != 1 or rules[0].get("ScheduleExpression") != "rate(1 minute)":
        yield "sweep: nothing runs it every minute"
    for rule in rules:
        target = rule["Targets"][0]
        if target["Arn"] != {"Fn::GetAtt": ["DrainFunction", "Arn"]} or target.get("Input") != '{"sweep":true}':
            yield "sweep: the drain is not asked for one"


def tables(stack):
    found = resources(stack, "AWS::DynamoDB::Table")
    if set(found) != set(TABLES):
        yield f"tables: there are {sorted(found)}"
    for name, keys in TABLES.items():
        table = found.get(name, {})
        if {key["AttributeName"]: key["KeyType"] for key in table.get("KeySchema", [])} != keys:
            yield f"tables: {name} has other keys than {keys}"
        if table.get("BillingMode") != "PAY_PER_REQUEST":
            yield f"tables: {name} is not paid per request"
        if not table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled"):
            yield f"tables: {name} cannot be restored to a point in time"
        if not table.get("SSESpecification", {}).get("SSEEnabled"):
            yield f"tables: {name} is not encrypted with a KMS key"
    for name in ["Registry", "Ledger"]:
        body = stack["Resources"][name]
        if body.get("DeletionPolicy") != "Retain" or body.get("UpdateReplacePolicy") != "Retain":
            yield f"tables: {name} is lost with the stack"


def jobs_table(stack):
    jobs = resources(stack, "AWS::DynamoDB::Table")["Jobs"]
    if jobs.get("TimeToLiveSpecification") != {"AttributeName": "expires_s", "Enabled": True}:
        yield "jobs: old jobs are never deleted"
    indexes = {index["IndexName"]: index for index in jobs.get("GlobalSecondaryIndexes", [])}
    for name, ((of, by), projection) in INDEXES.items():
        index = indexes.get(name, {})
        keys = [(key["AttributeName"], key["KeyType"]) for key in index.get("KeySchema", [])]
        if keys != [(of, "HASH"), (by, "RANGE")]:
            yield f"jobs: there is no index `{name}` of `{of}` by `{by}`"
        if index.get("Projection") != projection:
            yield f"jobs: the index `{name}` holds {index.get('Projection')}"
    kinds = {entry["AttributeName"]: entry["AttributeType"] for entry in jobs["AttributeDefinitions"]}
    texts, numbers = {"pk", "open", "tenant", "listed", "waiting"}, {"due_ms", "place_ms"}
    if kinds != dict.fromkeys(texts, "S") | dict.fromkeys(numbers, "N"):
        yield f"jobs: the key attributes have the types {kinds}"


def functions(stack):
    found = resources(stack, "AWS::Lambda::Function")
    if set(found) != set(FUNCTIONS):
        yield f"functions: there are {sorted(found)}"
    for name, (binary, role) in FUNCTIONS.items():
        function = found[name]
        if function.get("Role") != {"Fn::GetAtt": [role, "Arn"]}:
            yield f"functions: {name} has another role than {role}"
        if (function["Handler"], function["Runtime"]) != ("bootstrap", "provided.al2023"):
            yield f"functions: {name} runs {function['Handler']} on {function['Runtime']}"
        if settled(stack, function["Architectures"][0]) not in ("arm64", "x86_64"):
            yield f"functions: {name} has no known architecture"
        build = stack["Resources"][name].get("Metadata", {})
        if build.get("BuildMethod") != "rust-cargolambda" or build.get("BuildProperties") != {"Binary": binary}:
            yield f"functions: {name} is not built from the binary {binary}"


def roles(stack):
    found = resources(stack, "AWS::IAM::Role")
    if set(found) != set(ALLOWED_ACTIONS):
        yield f"roles: there are {sorted(found)}"
    for kind in ["AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"]:
        for name in resources(stack, kind):
            yield f"roles: {name} stands outside its role"
    for name, role in found.items():
        if role.get("ManagedPolicyArns"):
            yield f"roles: {name} has the managed policies {role['ManagedPolicyArns']}"
        granted = granted_actions(role)
        for target in sorted(set(granted) | set(ALLOWED_ACTIONS.get(name, {}))):
            allowed = ALLOWED_ACTIONS.get(name, {}).get(target, set())
            for action in sorted(granted.get(target, set()) ^ allowed):
                verb = "lacks" if action in allowed else "has"
                yield f"roles: {name} {verb} {action} on {target}"


def granted_actions(role):
    """What a role may do, as sets of actions by target."""
    granted = {}
    for policy in role.get("Policies", []):
        for statement in policy["PolicyDocument"]["Statement"]:
            actions, targets = statement["Action"], statement["Resource"]
            for target in targets if isinstance(targets, list) else [targets]:
                granted.setdefault(target_name(target), set()).update([actions] if isinstance(actions, str) else actions)
    return granted


def target_name(target):
    """The resource of this stack that an ARN names, `bedrock` for models, or the ARN itself."""
    if isinstance(target, dict) and "Fn::GetAtt" in target:
        return target["Fn::GetAtt"][0]
    text = target.get("Fn::Sub", str(target)) if isinstance(target, dict) else target
    if part := re.fullmatch(r"\$\{(\w+)\.Arn\}/(.+)", text):
        return f"{part[1]}/{part[2]}"
    model = r"arn:\$\{AWS::Partition\}:bedrock:\$\{ModelRegions\}:(\$\{AWS::AccountId\})?:[a-z-]+/\$\{\w+\}"
    return "bedrock" if re.fullmatch(model, text) else text


def logs(stack):
    groups = resources(stack, "AWS::Logs::LogGroup")
    for name, function in resources(stack, "AWS::Lambda::Function").items():
        logging = function.get("LoggingConfig", {})
        group = groups.get(logging.get("LogGroup", {}).get("Ref"))
        if group is None or not settled(stack, group.get("RetentionInDays")):
            yield f"logs: those of {name} are kept for ever"
        if logging.get("LogFormat") != "JSON":
            yield f"logs: those of {name} are not JSON"


def alarms(stack):
    found = set()
    for alarm in resources(stack, "AWS::CloudWatch::Alarm").values():
        subject = alarm["Dimensions"][0]["Value"]
        found.add((alarm["Namespace"], alarm["MetricName"], subject.get("Ref") or subject["Fn::GetAtt"][0]))
        if "Ref" not in str(alarm.get("AlarmActions")):
            yield f"alarms: {alarm['MetricName']} notifies nobody"
    for _, metric, subject in sorted(ALARMS - found):
        yield f"alarms: nobody watches {metric} of {subject}"


def function_url(stack):
    urls = resources(stack, "AWS::Lambda::Url")
    if any(url.get("InvokeMode") != "RESPONSE_STREAM" for url in urls.values()):
        yield "function url: it is buffered"
    grants = {}
    for name, grant in resources(stack, "AWS::Lambda::Permission").items():
        if grant["Principal"] != "*":
            continue
        grants[grant["Action"]] = grant
        if stack["Resources"][name].get("Condition") != "HasOpenFunctionUrl":
            yield f"function url: {name} holds without an open one"
    if stack["Conditions"].get("HasOpenFunctionUrl") != OPEN_FUNCTION_URL:
        yield "function url: it is open in other cases than it should be"
    if any(url.get("AuthType") != {"Fn::If": ["UsesIam", "AWS_IAM", "NONE"]} for url in urls.values()):
        yield "function url: it is open where the API is not"
    if set(grants) != {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}:
        yield "function url: it needs both permissions"
    if grants.get("lambda:InvokeFunctionUrl", {}).get("FunctionUrlAuthType") != "NONE":
        yield "function url: the permission does not fit its authentication"
    if grants.get("lambda:InvokeFunction", {}).get("InvokedViaFunctionUrl") is not True:
        yield "function url: everybody may call the Invoke API"
    if stack["Parameters"]["EnableFunctionUrl"]["Default"] != "false":
        yield "function url: it is not an option but the default"


def signatures(stack, signed):
    """The API asks for signatures where its parameter says so, and only there."""
    for parameters, expected, wrong in [(stack, None, "asks for"), (signed, [{"AWS_IAM": []}], "does not ask for")]:
        for api in resources(parameters, "AWS::ApiGateway::RestApi").values():
            for path, methods in api["Body"]["paths"].items():
                for method in methods.values():
                    if method.get("security") != expected:
                        yield f"signatures: {path} {wrong} one"
                    if "credentials" in method["x-amazon-apigateway-integration"]:
                        yield f"signatures: {path} calls the function with the caller's rights"


CHECKS = [
    streaming,
    overflow,
    bodies,
    event_source,
    sweep,
    tables,
    jobs_table,
    functions,
    roles,
    logs,
    alarms,
    function_url,
]


def environment(stack, config):
    """The functions get exactly the variables that config.rs reads."""
    read = set(re.findall(r'"(SPILLWAY_[A-Z0-9_]+)"', config))
    if not read:
        yield "environment: config.rs reads no variable"
    for name, function in resources(stack, "AWS::Lambda::Function").items():
        given = set(function["Environment"]["Variables"])
        for variable in sorted(read - given - set(DELIBERATELY_ABSENT)):
            yield f"environment: {name} lacks {variable}"
        for variable in sorted(given - read):
            yield f"environment: {name} has {variable}, which nothing reads"
    for variable in sorted(set(DELIBERATELY_ABSENT) - read):
        yield f"environment: {variable} is excused, but nothing reads it"


def code(sam):
    """Each function is built in its own package, so that no feature that the command needs is compiled into it."""
    for name, (binary, _) in FUNCTIONS.items():
        folder = sam["Resources"][name]["Properties"].get("CodeUri")
        if folder != f"../functions/{binary}":
            yield f"code: {name} is built in {folder}"


def store_actions(store):
    """The DynamoDB actions that one of the stores (`jobs`, `ledger`) calls, as IAM names them.

    A transaction is authorised by the actions that it is made of.
    """
    files = [SOURCE / "store" / f"{store}.rs", *(SOURCE / "store" / store).rglob("*.rs")]
    calls = {call for file in files for call in re.findall(r"\.(\w+_items?|query|scan)\(\)", file.read_text())}
    actions = {"dynamodb:" + call.title().replace("_", "") for call in calls}
    if "dynamodb:TransactWriteItems" in actions:
        actions = actions - {"dynamodb:TransactWriteItems"} | {"dynamodb:PutItem", "dynamodb:UpdateItem"}
    return actions
