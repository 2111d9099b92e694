"""The IAM actions that requests to AWS need: pairs of an action and the ARN of a resource."""

import json
import re
import urllib.parse

REGION = "us-east-1"
ACCOUNT = "000000000000"

TRANSACTION_ACTIONS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}
OBJECT_ACTIONS = {
    "GET": "GetObject",
    "HEAD": "GetObject",
    "PUT": "PutObject",
    "POST": "PutObject",
    "DELETE": "DeleteObject",
}
MODEL_ACTIONS = {
    "converse": "InvokeModel",
    "invoke": "InvokeModel",
    "converse-stream": "InvokeModelWithResponseStream",
    "invoke-with-response-stream": "InvokeModelWithResponseStream",
    "count-tokens": "CountTokens",
}
# A cross-region inference profile begins with the name of its regions.
CROSS_REGION = re.compile(r"(us|us-gov|eu|apac|jp|au|ca|global)\.")


def of_request(method: str, path: str, headers, body: bytes) -> set[tuple[str, str]]:
    """Returns the actions of a request to DynamoDB, SQS or S3."""
    service, _, operation = headers.get("X-Amz-Target", "").partition(".")
    if service.startswith("DynamoDB_"):
        return of_dynamodb(operation, json.loads(body))
    if service == "AmazonSQS":
        return of_sqs(operation, json.loads(body))
    return of_s3(method, path)


def of_dynamodb(operation: str, request: dict) -> set[tuple[str, str]]:
    """DynamoDB authorises a transaction by its parts, and a batch by its tables."""
    if operation == "TransactWriteItems":
        parts = [part for item in request["TransactItems"] for part in item.items()]
        return {(f"dynamodb:{TRANSACTION_ACTIONS[kind]}", table_arn(part["TableName"])) for kind, part in parts}
    if operation in ("BatchGetItem", "BatchWriteItem"):
        return {(f"dynamodb:{operation}", table_arn(table)) for table in request["RequestItems"]}
    index = f"/index/{request['IndexName']}" if "IndexName" in request else ""
    return {(f"dynamodb:{operation}", table_arn(request.get("TableName", "*")) + index)}


def table_arn(name: str) -> str:
    return name if name.startswith("arn:") else f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}"


def of_sqs(operation: str, request: dict) -> set[tuple[str, str]]:
    queue = request.get("QueueUrl", "*").rsplit("/", 1)[-1]
    return {(f"sqs:{operation.removesuffix('Batch')}", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}")}


def of_s3(method: str, path: str) -> set[tuple[str, str]]:
    path, _, query = path.partition("?")
    bucket, _, key = urllib.parse.unquote(path).strip("/").partition("/")
    if not key:
        action = "s3:ListBucket" if method in ("GET", "HEAD") else f"s3:{method}Bucket"
        return {(action, f"arn:aws:s3:::{bucket}")}
    action = "AbortMultipartUpload" if method == "DELETE" and "uploadId" in query else OBJECT_ACTIONS[method]
    return {(f"s3:{action}", f"arn:aws:s3:::{bucket}/{key}")}


def of_bedrock(path: str, body: bytes) -> set[tuple[str, str]]:
    """Returns the actions of a request to Bedrock Runtime."""
    parts = [urllib.parse.unquote(part) for part in path.partition("?")[0].strip("/").split("/")]
    if parts[0] == "guardrail":
        return {("bedrock:ApplyGuardrail", bedrock_arn("guardrail", parts[1], ACCOUNT))}
    action = f"bedrock:{MODEL_ACTIONS[parts[2]]}"
    actions = {(action, resource) for resource in model_arns(parts[1])}
    if guardrail := guardrail_of(body):
        actions.add(("bedrock:ApplyGuardrail", bedrock_arn("guardrail", guardrail, ACCOUNT)))
    return actions


def model_arns(model: str) -> list[str]:
    """A cross-region profile needs a permission for itself and for the model that it routes to."""
    name = model.rsplit("/", 1)[-1]
    if not CROSS_REGION.match(name):
        return [bedrock_arn("foundation-model", model)]
    profile = bedrock_arn("inference-profile", model, ACCOUNT)
    return [profile, bedrock_arn("foundation-model", CROSS_REGION.sub("", name))]


def bedrock_arn(kind: str, name: str, account: str = "") -> str:
    return name if name.startswith("arn:") else f"arn:aws:bedrock:{REGION}:{account}:{kind}/{name}"


def guardrail_of(body: bytes) -> str | None:
    try:
        return json.loads(body).get("guardrailConfig", {}).get("guardrailIdentifier")
    except (ValueError, AttributeError):
        return None
