"""Errors of API Gateway itself, as the template shapes them, in the SDKs of OpenAI, Anthropic and AWS.

A server in this process answers with each response of the template, as API Gateway would.
"""

import http.server
import pathlib
import threading

import anthropic
import boto3
import botocore.config
import botocore.exceptions
import openai
import yaml

from cells import *

TEMPLATE = pathlib.Path(__file__).parents[2] / "infra" / "template.yaml"
# The status of each response, and the message that API Gateway puts in place of the variable (Amazon
# API Gateway Developer Guide, "Gateway response types for API Gateway").
STATUSES = {
    "DEFAULT_4XX": 403,
    "DEFAULT_5XX": 500,
    "REQUEST_TOO_LARGE": 413,
    "MISSING_AUTHENTICATION_TOKEN": 403,
    "THROTTLED": 429,
    "INTEGRATION_TIMEOUT": 504,
}
MESSAGE = "A message of API Gateway."
COLUMNS = {
    "DEFAULT_4XX": "4xx",
    "DEFAULT_5XX": "5xx",
    "REQUEST_TOO_LARGE": "large",
    "MISSING_AUTHENTICATION_TOKEN": "unsigned",
    "THROTTLED": "throttled",
    "INTEGRATION_TIMEOUT": "timeout",
}


class Loader(yaml.SafeLoader):
    """Reads the tags of CloudFormation as if they were absent."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
RESPONSES = yaml.load(TEMPLATE.read_text(), Loader)["Resources"]["Api"]["Properties"]["GatewayResponses"]


class Gateway(http.server.BaseHTTPRequestHandler):
    """Answers each request with the response that the start of its path names."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        name = self.path.split("/")[1]
        body = RESPONSES[name]["ResponseTemplates"]["application/json"]
        body = body.replace("$context.error.messageString", json.dumps(MESSAGE)).encode()
        self.send_response(STATUSES[name])
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for header, value in RESPONSES[name].get("ResponseParameters", {}).get("Headers", {}).items():
            self.send_header(header, value.strip("'"))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


SERVER = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
threading.Thread(target=SERVER.serve_forever, daemon=True).start()
ADDRESS = f"http://127.0.0.1:{SERVER.server_port}"


def read_template(name):
    body = RESPONSES[name]["ResponseTemplates"]["application/json"].replace("$context.error.messageString", f'"{MESSAGE}"')
    return json.loads(body)["error"]


def openai_error(name):
    client = openai.OpenAI(base_url=f"{ADDRESS}/{name}", api_key="key", max_retries=0)
    request = {"model": GPT, "messages": [{"role": "user", "content": PROMPT}]}
    error = raises(openai.APIStatusError, lambda: client.chat.completions.create(**request))
    return error, error.status_code, error.body["message"], error.type


def anthropic_error(name):
    client = anthropic.Anthropic(base_url=f"{ADDRESS}/{name}", api_key="key", max_retries=0)
    request = {"model": CLAUDE, "max_tokens": 1, "messages": [{"role": "user", "content": PROMPT}]}
    error = raises(anthropic.APIStatusError, lambda: client.messages.create(**request))
    return error, error.status_code, error.body["error"]["message"], error.body["error"]["type"]


def boto3_error(name):
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=f"{ADDRESS}/{name}",
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )
    request = {"modelId": CLAUDE, "messages": [{"role": "user", "content": [{"text": PROMPT}]}]}
    error = raises(botocore.exceptions.ClientError, lambda: client.converse(**request))
    # boto3 takes the type of an error from a header of API Gateway.
    expected = read_template(name)["type"]
    return error, error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Message"], expected


def cells_of(read):
    def check(name):
        expected = read_template(name)
        _, status, message, kind = read(name)
        assert_equal((status, message, kind), (STATUSES[name], expected["message"], expected["type"]))

    return lambda _: {column: lambda name=name: check(name) for name, column in COLUMNS.items()}


assert_equal(set(STATUSES), set(RESPONSES))
run(
    Row("openai python", "API Gateway", cells_of(openai_error)),
    Row("anthropic python", "API Gateway", cells_of(anthropic_error)),
    Row("boto3", "API Gateway", cells_of(boto3_error)),
)
