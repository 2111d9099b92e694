"""The stack: deployed from the template, with a record of what each function asks of AWS."""

import io
import json
import urllib.request
import zipfile
from pathlib import Path

import gaps
from actions import REGION
from emulator import Emulator
from lambda_runtime import Function
from processes import wait_until
from recorder import Bedrock, Recorder
from rest_api import RestApi

NAME = "spillway"
ARTIFACTS = "artifacts"
DEPLOY_TIMEOUT_S = 60
RECORDED_SERVICES = ("DYNAMODB", "SQS", "S3")


class Stack:
    """The deployed stack. `outputs` are its outputs; `ids` are physical IDs by logical ID."""

    def __init__(self, emulator: Emulator):
        self.emulator = emulator
        self.functions = emulator.client("lambda")
        self.roles: dict[str, list[dict]] = {}
        self.records = {}

    def deploy(self, template: dict, parameters: dict[str, str], bootstraps: dict[str, Path]):
        self.upload(bootstraps)
        cloudformation = self.emulator.client("cloudformation")
        cloudformation.create_stack(
            StackName=NAME,
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        description = wait_until(lambda: finished(cloudformation), DEPLOY_TIMEOUT_S, "the stack is created")
        if description["StackStatus"] != "CREATE_COMPLETE":
            raise AssertionError(f"{description['StackStatus']}: {failures(cloudformation)}")
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in description["Outputs"]}
        resources = cloudformation.list_stack_resources(StackName=NAME)["StackResourceSummaries"]
        self.ids = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
        self.types = {resource["LogicalResourceId"]: resource["ResourceType"] for resource in resources}
        gaps.set_maximum_concurrency(self.functions)
        for logical_id in self.of_type("AWS::Lambda::Function"):
            self.record(logical_id)
        template = cloudformation.get_template(StackName=NAME, TemplateStage="Processed")["TemplateBody"]
        self.template = json.loads(template) if isinstance(template, str) else template

    def of_type(self, kind: str) -> list[str]:
        return sorted(logical_id for logical_id, found in self.types.items() if found == kind)

    def upload(self, bootstraps: dict[str, Path]):
        s3 = self.emulator.client("s3")
        s3.create_bucket(Bucket=ARTIFACTS)
        for name, bootstrap in bootstraps.items():
            s3.put_object(Bucket=ARTIFACTS, Key=f"{name}.zip", Body=archive(bootstrap))

    def record(self, logical_id: str):
        """Puts proxies between a function and AWS."""
        configuration = self.functions.get_function_configuration(FunctionName=self.ids[logical_id])
        role = configuration["Role"].rsplit("/", 1)[-1]
        self.roles[logical_id] = statements = self.statements(role)
        gaps.grant_batches_of_messages(self.emulator.client("iam"), role, statements)
        recorder = Recorder(self.emulator.url, self.emulator.certificate)
        bedrock = Bedrock(self.emulator.bedrock_url, role, statements)
        self.records[logical_id] = [recorder.record, bedrock.record]
        endpoints = {f"AWS_ENDPOINT_URL_{service}": recorder.url for service in RECORDED_SERVICES}
        endpoints["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] = bedrock.url
        variables = {**configuration["Environment"]["Variables"], **endpoints}
        self.functions.update_function_configuration(
            FunctionName=self.ids[logical_id], Environment={"Variables": variables}
        )

    def statements(self, role: str) -> list[dict]:
        """Returns the statements of a role's inline policies, as deployed."""
        iam = self.emulator.client("iam")
        names = iam.list_role_policies(RoleName=role)["PolicyNames"]
        policies = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names]
        return [statement for policy in policies for statement in policy["Statement"]]

    def function(self, logical_id: str, folder: Path, **variables: str) -> Function:
        """Returns a function as deployed; `variables` replace some of its variables."""
        deployed = self.functions.get_function(FunctionName=self.ids[logical_id])
        configuration = deployed["Configuration"]
        configuration["Environment"]["Variables"].update(variables)
        code = gaps.code_url(deployed["Code"]["Location"])
        with urllib.request.urlopen(code, context=self.emulator.certificate.for_clients()) as response:
            content = response.read()
        credentials = self.assume(configuration["Role"])
        return Function(configuration, content, credentials, self.emulator.variables, folder)

    def assume(self, role_arn: str) -> dict[str, str]:
        sts = self.emulator.client("sts")
        credentials = sts.assume_role(RoleArn=role_arn, RoleSessionName="function")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
            "AWS_SESSION_TOKEN": credentials["SessionToken"],
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def rest_api(self, functions: dict[str, Function]) -> RestApi:
        """Returns the API, with the stage that the stack has deployed. `functions` are by logical ID."""
        (logical_id,) = self.of_type("AWS::ApiGateway::RestApi")
        api_id = self.ids[logical_id]
        (stage,) = self.emulator.client("apigateway").get_stages(restApiId=api_id)["item"]
        deployments = self.emulator.client("apigateway").get_deployments(restApiId=api_id)["items"]
        assert stage["deploymentId"] in [deployment["id"] for deployment in deployments], "the stage has no deployment"
        arns = {logical_id: function.arn for logical_id, function in functions.items()}
        return RestApi(
            id=api_id,
            stage=stage["stageName"],
            definition=gaps.definition_of_api(self.template, arns),
            policies={function.arn: self.policy(function.arn) for function in functions.values()},
            functions={function.arn: function for function in functions.values()},
        )

    def policy(self, function: str) -> list[dict]:
        """Returns the statements of a function's own policy; none if nothing may invoke it."""
        try:
            return json.loads(self.functions.get_policy(FunctionName=function)["Policy"])["Statement"]
        except self.functions.exceptions.ResourceNotFoundException:
            return []


def finished(cloudformation) -> dict | None:
    (description,) = cloudformation.describe_stacks(StackName=NAME)["Stacks"]
    return None if description["StackStatus"].endswith("IN_PROGRESS") else description


def failures(cloudformation) -> list[str]:
    events = cloudformation.describe_stack_events(StackName=NAME)["StackEvents"]
    failed = [event for event in events if "FAILED" in event["ResourceStatus"]]
    return [f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}" for event in failed]


def archive(bootstrap: Path) -> bytes:
    """Returns the archive that `sam package` would upload for a bootstrap."""
    entry = zipfile.ZipInfo("bootstrap")
    entry.external_attr = 0o755 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as files:
        files.writestr(entry, bootstrap.read_bytes(), compresslevel=1)
    return content.getvalue()
