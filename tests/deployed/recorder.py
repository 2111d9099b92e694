"""Proxies between a function and AWS. They record which IAM actions the function needs."""

import http.client
import http.server
import json
import re
import ssl
import sys
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import actions
from iam import allows

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
DENIAL = re.compile(rb"AccessDenied|not authorized", re.IGNORECASE)
UPSTREAM_TIMEOUT_S = 120


@dataclass
class Record:
    """What a function asked of AWS: its calls by IAM action and resource, and the denied calls."""

    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    denied: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, called, denied: bool):
        with self.lock:
            for call in called:
                self.calls[call] = self.calls.get(call, 0) + 1
            if denied:
                self.denied += sorted(called)


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes requests on. The subclasses know the upstream, the record and the names of the actions."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def send_upstream(self, connection: http.client.HTTPConnection, body: bytes) -> http.client.HTTPResponse:
        """Sends the request as it came. Its signature covers the host, too."""
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP:
                connection.putheader(name, value)
        if body or self.command in ("POST", "PUT"):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse()

    def reply(self, status: int, headers, body: bytes):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP or (name.lower() == "content-length" and self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Recorder:
    """Stands before DynamoDB, SQS and S3, which judge the calls by the role themselves."""

    def __init__(self, upstream: str, certificate):
        self.record = record = Record()
        address, outgoing = urlsplit(upstream).netloc, certificate.for_clients()

        class Handler(Proxy):
            def pass_on(self):
                body = self.read_body()
                connection = http.client.HTTPSConnection(address, context=outgoing, timeout=UPSTREAM_TIMEOUT_S)
                response = self.send_upstream(connection, body)
                content = response.read()
                called = actions.of_request(self.command, self.path, self.headers, body)
                record.add(called, response.status in (400, 403) and DENIAL.search(content))
                self.reply(response.status, response.getheaders(), content)
                connection.close()

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = pass_on

        self.url = serve(Handler, certificate.for_servers())


class Bedrock:
    """Stands before the simulated Bedrock Runtime, and judges the calls by the role's statements."""

    def __init__(self, upstream: str, role: str, statements: list[dict]):
        self.record = record = Record()
        address = urlsplit(upstream).netloc

        class Handler(Proxy):
            def do_POST(self):
                body = self.read_body()
                called = actions.of_bedrock(self.path, body)
                denied = [call for call in sorted(called) if not allows(statements, *call)]
                record.add(denied or called, bool(denied))
                if denied:
                    self.deny(*denied[0])
                else:
                    self.stream(body)

            def deny(self, action: str, resource: str):
                message = f"{role} is not authorized to perform: {action} on resource: {resource}"
                headers = [("X-Amzn-ErrorType", "AccessDeniedException"), ("Content-Type", "application/json")]
                self.reply(403, headers, json.dumps({"message": message}).encode())

            def stream(self, body: bytes):
                connection = http.client.HTTPConnection(address, timeout=UPSTREAM_TIMEOUT_S)
                response = self.send_upstream(connection, body)
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while chunk := response.read1(65536):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.write(b"0\r\n\r\n")
                connection.close()

        self.url = serve(Handler)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Reports errors, except that callers left."""
        if not isinstance(sys.exception(), (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


def serve(handler, context: ssl.SSLContext | None = None) -> str:
    """Serves on a free port in the background, and returns the URL."""
    server = Server(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
