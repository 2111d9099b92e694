"""The data plane of a REST API with streaming integrations.

It is made from the deployed API: its paths, methods, integrations, gateway responses and stage, and
the policies of the functions that it invokes.
"""

import base64
import json
import re
import time
import urllib.parse
import uuid
from dataclasses import dataclass, field

from actions import ACCOUNT, REGION
from iam import as_list, matches
from lambda_runtime import BrokenResponse, Function
from web import read_body, reply

# Maximum size of an event (AWS Lambda Developer Guide, "Lambda quotas"). The body is a JSON string in
# it, so its quotes and line ends count twice.
MAX_EVENT_BYTES = 6_291_556
# The end of the metadata of a streamed response (API Gateway Developer Guide, "Lambda proxy
# integration with payload response streaming").
END_OF_METADATA = b"\0" * 8
ANY_METHOD = "x-amazon-apigateway-any-method"
INTEGRATION = "x-amazon-apigateway-integration"
GATEWAY_RESPONSES = "x-amazon-apigateway-gateway-responses"
BINARY_TYPES = "x-amazon-apigateway-binary-media-types"
STREAMING_URI = re.compile(r".*/2021-11-15/functions/(arn:.+)/response-streaming-invocations")
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}
DEFAULT_TEMPLATE = '{"message":$context.error.messageString}'
# Gateway responses: their status and their message.
ANSWERS = {
    "FORBIDDEN": (403, "Forbidden"),
    "MISSING_AUTHENTICATION_TOKEN": (403, "Missing Authentication Token"),
    "REQUEST_TOO_LARGE": (413, "Request Entity Too Large"),
    "API_CONFIGURATION_ERROR": (500, "Internal server error"),
    "INTEGRATION_FAILURE": (502, "Internal server error"),
}


class GatewayError(Exception):
    """A request that API Gateway answers itself, with the gateway response of this type."""

    def __init__(self, kind: str, reason: str = ""):
        super().__init__(kind, reason)
        self.kind = kind


@dataclass
class Address:
    """Where a request was sent: a stage of the API's own domain, or a custom domain."""

    domain: str
    mount: str
    """The start of the URL's path that API Gateway removes: the stage, or nothing."""
    base_path: str
    """The start of the URL's path that a custom domain maps to the stage. It stays in the path."""


@dataclass
class RestApi:
    """A stage of an API. `policies` and `functions` belong to the integrations, by ARN."""

    id: str
    stage: str
    definition: dict
    policies: dict[str, list[dict]]
    functions: dict[str, Function]
    custom_domains: dict[str, tuple[str, Function]] = field(default_factory=dict)
    """Base paths by domain, each with the function that serves it."""
    faults: list[str] = field(default_factory=list)
    """Reasons of the answers with status 5xx that the API gave itself."""

    async def app(self, scope, receive, send):
        if scope["type"] != "http":
            return
        body = await read_body(receive)
        try:
            await self.answer(scope, body, send)
        except GatewayError as error:
            await self.send_gateway_response(error, send)

    async def answer(self, scope, body: bytes, send):
        address, path = self.locate(scope)
        mapped = path.removeprefix(address.base_path) or "/"
        route, integration = self.find_integration(scope["method"], mapped)
        function_arn = self.function_of(integration)
        self.check_permission(function_arn, scope["method"], mapped)
        event = self.event(scope, body, address, path, route)
        if len(json.dumps(event, ensure_ascii=False).encode()) > MAX_EVENT_BYTES:
            raise GatewayError("REQUEST_TOO_LARGE")
        _, function = self.custom_domains.get(address.domain, (None, self.functions[function_arn]))
        await self.stream(scope["method"], function.invoke(event), send)

    def locate(self, scope) -> tuple[Address, str]:
        """Returns the address of a request, and its path without the mount.

        Every host that is no custom domain counts as the API's own domain, so that clients which
        follow the broker's addresses reach it on loopback.
        """
        host = dict(scope["headers"]).get(b"host", b"").decode()
        path = scope["raw_path"].decode()
        if host in self.custom_domains:
            base_path, _ = self.custom_domains[host]
            return Address(host, "", base_path), path
        mount = f"/{self.stage}"
        if path != mount and not path.startswith(f"{mount}/"):
            raise GatewayError("FORBIDDEN")
        return Address(host, mount, ""), path.removeprefix(mount) or "/"

    def find_integration(self, method: str, path: str) -> tuple[str, dict]:
        route = "/" if path == "/" else "/{proxy+}"
        methods = self.definition["paths"].get(route, {})
        found = methods.get(method.lower()) or methods.get(ANY_METHOD)
        if not found:
            raise GatewayError("MISSING_AUTHENTICATION_TOKEN")
        return route, found[INTEGRATION]

    def function_of(self, integration: dict) -> str:
        """Returns the ARN of the function that an integration invokes with a streamed response."""
        uri = integration["uri"]
        streaming = STREAMING_URI.fullmatch(uri)
        if integration.get("responseTransferMode") != "STREAM" or not streaming:
            raise GatewayError("API_CONFIGURATION_ERROR", f"{uri} is not a streaming integration")
        return streaming[1]

    def check_permission(self, function_arn: str, method: str, path: str):
        """Requires that the function's policy lets this API invoke it for the request."""
        source = f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{self.id}/{self.stage}/{method}{path}"
        if not any(permits(statement, source) for statement in self.policies[function_arn]):
            raise GatewayError("API_CONFIGURATION_ERROR", f"{source} may not invoke {function_arn}")

    def event(self, scope, body: bytes, address: Address, path: str, route: str) -> dict:
        """Returns the event of a request (API Gateway Developer Guide, "Input format")."""
        query = urllib.parse.parse_qs(scope["query_string"].decode(), keep_blank_values=True)
        headers = request_headers(scope, address.domain)
        text, is_base64 = as_text(body) if not self.is_binary(headers) else as_base64(body)
        return {
            "resource": route,
            "path": path,
            "httpMethod": scope["method"],
            "headers": {name: values[-1] for name, values in headers.items()},
            "multiValueHeaders": headers,
            "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
            "multiValueQueryStringParameters": query or None,
            "pathParameters": None if route == "/" else {"proxy": path.removeprefix(address.base_path)[1:]},
            "stageVariables": None,
            "requestContext": self.request_context(scope, address, path, route),
            "body": text,
            "isBase64Encoded": is_base64,
        }

    def is_binary(self, headers: dict[str, list[str]]) -> bool:
        """Says whether the API passes a body on in Base64."""
        media_type = headers.get("content-type", [""])[-1].partition(";")[0]
        return any(
            matches(pattern, media_type) or pattern == "*/*" for pattern in self.definition.get(BINARY_TYPES, [])
        )

    def request_context(self, scope, address: Address, path: str, route: str) -> dict:
        now = time.time()
        return {
            "resourceId": "abc123",
            "resourcePath": route,
            "httpMethod": scope["method"],
            "path": address.mount + path,
            "accountId": ACCOUNT,
            "protocol": "HTTP/1.1",
            "stage": self.stage,
            "domainPrefix": address.domain.partition(".")[0],
            "domainName": address.domain,
            "requestTimeEpoch": int(now * 1000),
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "requestId": str(uuid.uuid4()),
            "identity": {"sourceIp": "192.0.2.10", "userAgent": None, "userArn": None},
            "apiId": self.id,
        }

    async def stream(self, method: str, posted, send):
        """Passes a streamed response on. The function runs to its end even if the caller leaves."""
        try:
            head = await anext(posted)
        except BrokenResponse as error:
            raise GatewayError("INTEGRATION_FAILURE", str(error)) from error
        if not head.is_streamed_response():
            rest = b"".join([part async for part in posted if isinstance(part, bytes)])
            raise GatewayError("INTEGRATION_FAILURE", f"{head.path}, mode {head.mode!r}: {rest[:500]!r}")
        start = b""
        async for part in posted:
            start += part
            if END_OF_METADATA in start:
                break
        metadata, _, body = start.partition(END_OF_METADATA)
        metadata = json.loads(metadata)
        await send(response_start(metadata))
        if body and method != "HEAD":
            await send({"type": "http.response.body", "body": body, "more_body": True})
        async for part in posted:
            if method != "HEAD":
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def send_gateway_response(self, error: GatewayError, send):
        """Answers as the API's gateway response says, or as API Gateway does by default."""
        status, message = ANSWERS[error.kind]
        if status >= 500:
            self.faults.append(str(error))
        responses = self.definition.get(GATEWAY_RESPONSES, {})
        default = responses.get("DEFAULT_5XX" if status >= 500 else "DEFAULT_4XX", {})
        response = responses.get(error.kind, default)
        template = response.get("responseTemplates", {}).get("application/json", DEFAULT_TEMPLATE)
        text = template.replace("$context.error.messageString", json.dumps(message))
        text = text.replace("$context.error.message", message).replace("$context.requestId", str(uuid.uuid4()))
        headers = {"content-type": "application/json"}
        for name, value in response.get("responseParameters", {}).items():
            headers[name.removeprefix("gatewayresponse.header.")] = value.strip("'")
        await reply(send, int(response.get("statusCode", status)), text.encode(), headers)


def permits(statement: dict, source: str) -> bool:
    """Says whether a statement of a function's policy lets API Gateway invoke it for this request."""
    is_for_api_gateway = statement["Principal"].get("Service") == "apigateway.amazonaws.com"
    if statement["Effect"] != "Allow" or not is_for_api_gateway or statement["Action"] != "lambda:InvokeFunction":
        return False
    condition = statement.get("Condition", {})
    sources = (condition.get("ArnLike") or condition.get("StringLike") or {"AWS:SourceArn": "*"}).values()
    return any(matches(pattern, source) for value in sources for pattern in as_list(value))


def request_headers(scope, domain: str) -> dict[str, list[str]]:
    headers = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode(), []).append(value.decode("latin-1"))
    forwarded = {"x-forwarded-for": "192.0.2.10", "x-forwarded-port": "443", "x-forwarded-proto": "https"}
    return headers | {name: [value] for name, value in {"host": domain, **forwarded}.items()}


def as_text(body: bytes) -> tuple[str | None, bool]:
    """Returns a body as text, and that it is not in Base64. Bytes that are no text are lost."""
    return body.decode(errors="replace") or None, False


def as_base64(body: bytes) -> tuple[str | None, bool]:
    """Returns a body in Base64, and that it is."""
    return base64.b64encode(body).decode() or None, True


def response_start(metadata: dict) -> dict:
    headers = [
        (name.lower().encode(), str(value).encode("latin-1"))
        for name, value in metadata.get("headers", {}).items()
        if name.lower() not in HOP_BY_HOP
    ]
    return {"type": "http.response.start", "status": metadata["statusCode"], "headers": headers}
