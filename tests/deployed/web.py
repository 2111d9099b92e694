"""Servers of ASGI applications, which all run on one event loop in a thread."""

import asyncio
import threading

from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from processes import free_port

START_TIMEOUT_S = 20
# Longer than a run: Lambda's Runtime API does not close the idle connection of a frozen function.
IDLE_TIMEOUT_MS = 3_600_000


class Loop:
    """An event loop in a thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, coroutine):
        """Runs a coroutine on the loop and returns its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()


async def serve(app, certificate=None) -> str:
    """Serves an application on a free port of loopback, and returns the URL.

    With a certificate, it speaks TLS, with HTTP/1.1 and HTTP/2.
    """
    port = free_port()
    tls = {"ssl_cert": certificate.file, "ssl_key": certificate.key_file} if certificate else {}
    http1 = HTTP1Settings(header_read_timeout=IDLE_TIMEOUT_MS)
    options = {"http1_settings": http1, "log_enabled": False, "websockets": False}
    server = Server(app, port=port, interface=Interfaces.ASGINL, **options, **tls)
    asyncio.create_task(server.serve())
    await asyncio.wait_for(until_open(port), START_TIMEOUT_S)
    return f"{'https' if certificate else 'http'}://127.0.0.1:{port}"


async def until_open(port: int):
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        return


async def read_body(receive) -> bytes:
    """Reads the body of an ASGI request."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def reply(send, status: int, body: bytes = b"", headers: dict[str, str] | None = None):
    """Sends an ASGI response."""
    pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
