"""A small HTTP client for a deployed broker: one connection per request.

Only the standard library is needed. Requests are signed (SigV4) if AWS credentials are given, which needs botocore.
"""

import http.client
import json
import os
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

TIMEOUT_S = 60
# A refused call waits for at most this time for its next try.
MAX_RETRY_AFTER_S = 120


class Unreachable(Exception):
    """The connection failed or ended before the response was complete."""


@dataclass
class Answer:
    """A response. The names of `headers` are in lower case."""

    status: int
    headers: dict
    body: bytes
    seconds: float

    def json(self):
        """Returns the body as JSON; an empty object if it is not a JSON object."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def error(self):
        """Returns the message of an error that every dialect's SDK can read, or None.

        OpenAI's and Anthropic's SDKs read `error.message`, AWS's SDKs read `message`.
        """
        error = self.json().get("error")
        return error.get("message") if isinstance(error, dict) else None

    def shown(self):
        """Returns the status and the start of the body, for a report."""
        return f"{self.status} {self.body[:160].decode(errors='replace')!r}"


class Broker:
    """A broker at the base URL `url`, called with `key`."""

    def __init__(self, url, key, credentials=None, region=None):
        self.url, self.key = url.rstrip("/"), key
        self.credentials, self.region = credentials, region
        # The variable that the AWS SDKs read, so that one setting serves the whole run.
        self.tls = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)

    def at(self, path):
        """Returns the URL of a path of the API."""
        return f"{self.url}{path}"

    def resolve(self, path, reference):
        """Returns the URL that `reference` in the response of `path` means (RFC 3986)."""
        return urljoin(self.at(path), reference)

    def connect(self, url, timeout_s=TIMEOUT_S):
        parts = urlsplit(url)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=self.tls)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)

    def send(self, method, url, body=None, headers=None, with_key=True, timeout_s=TIMEOUT_S):
        """Sends a request. Returns the connection and the response, whose body has not been read.

        Raises Unreachable if the request cannot be sent, or no response begins.
        """
        parts = urlsplit(url)
        headers = dict(headers or {})
        if with_key and self.key:
            headers["x-api-key"] = self.key
        if isinstance(body, dict):
            body, headers["content-type"] = json.dumps(body).encode(), "application/json"
        if self.credentials:
            headers = self.signed(method, url, body, headers)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = self.connect(url, timeout_s)
        try:
            connection.request(method, target, body=body, headers=headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(f"{type(error).__name__}: {error}") from error

    def signed(self, method, url, body, headers):
        """Returns `headers` with the signature that the front door verifies."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method, url, data=body, headers=headers)
        SigV4Auth(self.credentials, "execute-api", self.region).add_auth(request)
        return dict(request.headers)

    def request(self, method, path, body=None, headers=None, with_key=True, timeout_s=TIMEOUT_S):
        """Returns the whole answer. `path` may be a whole URL.

        Raises Unreachable if there is none.
        """
        start = time.monotonic()
        url = path if "://" in path else self.at(path)
        connection, response = self.send(method, url, body, headers, with_key, timeout_s)
        try:
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()
        received = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, received, content, time.monotonic() - start)

    def stream(self, path, body, tries=5):
        """Returns the connection and the response of a stream, like `send`. Waits like `patient`."""
        for _ in range(tries):
            connection, response = self.send("POST", self.at(path), body)
            if response.status != 429:
                break
            response.read()
            connection.close()
            time.sleep(wait_s(response.headers.get("retry-after", "")))
        return connection, response

    def without_signature(self):
        """Returns the same broker, called with neither a signature nor a key."""
        return Broker(self.url, "")

    def converse(self, model_id):
        """Returns the text that boto3 gets for a short call, signed for the front door."""
        import boto3

        def prepare(request, **_):
            request.context.setdefault("signing", {})["signing_name"] = "execute-api"
            if self.key:
                request.headers["x-api-key"] = self.key

        client = boto3.client("bedrock-runtime", endpoint_url=self.url, region_name=self.region)
        client.meta.events.register("before-sign.bedrock-runtime", prepare)
        messages = [{"role": "user", "content": [{"text": "Say hello."}]}]
        answer = client.converse(modelId=model_id, messages=messages, inferenceConfig={"maxTokens": 16})
        return "".join(part.get("text", "") for part in answer["output"]["message"]["content"])

    def patient(self, method, path, body=None, headers=None, timeout_s=TIMEOUT_S, tries=5):
        """Returns an answer that is not a 429, if the broker gives one within `tries` tries."""
        answer = self.request(method, path, body, headers, timeout_s=timeout_s)
        for _ in range(tries - 1):
            if answer.status != 429:
                break
            time.sleep(wait_s(answer.headers.get("retry-after", "")))
            answer = self.request(method, path, body, headers, timeout_s=timeout_s)
        return answer


def wait_s(retry_after):
    """Returns the time until the next try, in seconds, by the header Retry-After."""
    return min(int(retry_after), MAX_RETRY_AFTER_S) if retry_after.isdigit() else 1


def chat(model, max_tokens=16, stream=False, prompt="Say hello."):
    """Returns the body of a chat completion."""
    body = {"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": prompt}]}
    return body | {"stream": True} if stream else body
