"""What ministack 1.5.33 lacks, and what is done about each gap.

One more gap needs more than a function. Its REST API does not import the method ANY from an OpenAPI
body, does not know streamed responses, and its Lambda decodes responses as UTF-8, which destroys
the event streams of Bedrock. `rest_api.py` and `lambda_runtime.py` therefore serve the API, from
the deployed resources.
"""

import json

from iam import as_list
from processes import plain_environment

BATCHED = ("sqs:SendMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility")

# With the package cryptography, ministack opens the fixed ports of its MQTT and SFTP servers.
WITHOUT_EXTRA_PORTS = {"IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0"}


def environment_of_workers() -> dict[str, str]:
    """Returns the environment for ministack. Its Lambda functions inherit all of it, so it is almost empty."""
    return plain_environment()


def set_maximum_concurrency(functions):
    """Makes numbers of the mappings' maximum concurrency.

    A parameter of type Number stays a string in `ScalingConfig`. ministack's poller then raises an
    error each second and serves no mapping.
    """
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        scaling = mapping.get("ScalingConfig", {})
        if "MaximumConcurrency" in scaling:
            scaling = {"MaximumConcurrency": int(scaling["MaximumConcurrency"])}
            functions.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig=scaling)


def grant_batches_of_messages(iam, role: str, statements: list[dict]):
    """Lets a role send, delete and change messages of SQS in batches if it may do so one by one.

    AWS authorises SendMessageBatch by sqs:SendMessage, and so on (Service Authorization Reference,
    "Amazon SQS"). ministack requires an action sqs:SendMessageBatch, which AWS does not have.
    """
    batches = [
        {**statement, "Action": [f"{action}Batch" for action in as_list(statement["Action"]) if action in BATCHED]}
        for statement in statements
    ]
    policy = {"Version": "2012-10-17", "Statement": [batch for batch in batches if batch["Action"]]}
    iam.put_role_policy(RoleName=role, PolicyName="batches-of-messages", PolicyDocument=json.dumps(policy))


def code_url(location: str) -> str:
    """Returns the address of a function's code. ministack gives it as http although it speaks TLS."""
    return location.replace("http:", "https:", 1)


def definition_of_api(processed: dict, arns: dict[str, str]) -> dict:
    """Returns the OpenAPI definition of the API from the stack's processed template.

    ministack does not keep the body of an API. `arns` are the functions by logical ID.
    """
    (api,) = [entry for entry in processed["Resources"].values() if entry["Type"] == "AWS::ApiGateway::RestApi"]
    definition = api["Properties"]["Body"]
    for methods in definition["paths"].values():
        for method in methods.values():
            integration = method["x-amazon-apigateway-integration"]
            integration["uri"] = substituted(integration["uri"], arns)
    return definition


def substituted(value, arns: dict[str, str]) -> str:
    text = value["Fn::Sub"] if isinstance(value, dict) else value
    for logical_id, arn in arns.items():
        text = text.replace(f"${{{logical_id}.Arn}}", arn)
    return text
