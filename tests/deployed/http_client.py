"""A plain HTTP client for the scenarios."""

import http.client
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT_S = 120


@dataclass
class Response:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self):
        return json.loads(self.body)

    def expect(self, status: int) -> "Response":
        assert self.status == status, f"{self.status} instead of {status}: {self.body[:600]!r}"
        return self


def send(context, method: str, url: str, headers: dict[str, str], body: bytes | None, host: str = "") -> Response:
    """Sends a request. `host` replaces the name in the URL, but not the address that is called."""
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(parts.netloc, context=context, timeout=TIMEOUT_S)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, body, {"Host": host or parts.netloc, **headers})
        response = connection.getresponse()
        return Response(response.status, response.headers, response.read())
    finally:
        connection.close()
