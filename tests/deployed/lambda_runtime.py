"""Runs a deployed function as Lambda does: its archive, its settings, its role, and nothing else.

Each execution environment is a process with its own Runtime API. It is frozen while it waits
for an event. The parts of a streamed response are passed on as they come.
"""

import asyncio
import io
import json
import os
import signal
import time
import uuid
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from web import reply, serve

NEXT = "/2018-06-01/runtime/invocation/next"
RESPONSE = "/response"


@dataclass
class Invocation:
    """An event, and the queue of what the function posts: a head, parts of the body, and None at the end."""

    event: bytes
    deadline_ms: int
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    posted: asyncio.Queue = field(default_factory=asyncio.Queue)


@dataclass
class Head:
    """The start of what a function posts. `path` says whether it is a response or an error."""

    path: str
    mode: str

    def is_streamed_response(self) -> bool:
        return self.path.endswith(RESPONSE) and self.mode == "streaming"


class BrokenResponse(Exception):
    """A response that a function did not finish."""


class Environment:
    """An execution environment: a process, and the Runtime API that it polls."""

    def __init__(self, function: "Function"):
        self.function = function
        self.events: asyncio.Queue[Invocation] = asyncio.Queue()
        self.current: Invocation | None = None
        # Set once `process` is. A fast process polls before that.
        self.started = asyncio.Event()

    async def start(self):
        address = (await serve(self.app)).removeprefix("http://")
        self.process = await asyncio.create_subprocess_exec(
            self.function.folder / "bootstrap",
            cwd=self.function.folder,
            env={**self.function.variables, "AWS_LAMBDA_RUNTIME_API": address},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self.started.set()
        self.tasks = [asyncio.create_task(self.read_log()), asyncio.create_task(self.report_end())]

    async def read_log(self):
        async for line in self.process.stdout:
            self.function.log.append(line.decode(errors="replace").rstrip())

    async def report_end(self):
        """A process that ends answers its current invocation with an error, which has its last lines."""
        code = await self.process.wait()
        await self.tasks[0]
        if self.current:
            last_lines = "\n".join(self.function.log[-5:])
            self.current.posted.put_nowait(BrokenResponse(f"the process ended with {code}:\n{last_lines}"))

    async def invoke(self, invocation: Invocation):
        """Yields what the function posts."""
        self.current = invocation
        self.events.put_nowait(invocation)
        while (posted := await invocation.posted.get()) is not None:
            if isinstance(posted, BrokenResponse):
                raise posted
            yield posted
        self.current = None

    async def app(self, scope, receive, send):
        if scope["path"] == NEXT:
            await self.send_next_event(send)
        else:
            await self.take_posted(scope, receive, send)

    async def send_next_event(self, send):
        await self.started.wait()
        if self.events.empty():
            self.process.send_signal(signal.SIGSTOP)
        invocation = await self.events.get()
        self.process.send_signal(signal.SIGCONT)
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self.function.arn,
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Sampled=0",
            "Content-Type": "application/json",
        }
        await reply(send, 200, invocation.event, headers)

    async def take_posted(self, scope, receive, send):
        mode = dict(scope["headers"]).get(b"lambda-runtime-function-response-mode", b"").decode()
        posted = self.current.posted if self.current else asyncio.Queue()
        posted.put_nowait(Head(scope["path"], mode))
        while (message := await receive())["type"] == "http.request":
            if message["body"]:
                posted.put_nowait(message["body"])
            if not message["more_body"]:
                break
        else:
            posted.put_nowait(BrokenResponse("the function closed the connection"))
            return
        posted.put_nowait(None)
        await reply(send, 202, b'{"status":"OK"}', {"Content-Type": "application/json"})


class Function:
    """A deployed function: its configuration as Lambda returns it, and its archive.

    `credentials` come from its role. `endpoints` lead the AWS SDK to the emulator.
    """

    def __init__(self, configuration: dict, archive: bytes, credentials: dict, endpoints: dict, folder: Path):
        self.configuration = configuration
        self.arn = configuration["FunctionArn"]
        self.folder = folder
        self.log = []
        self.faults = []
        self.environments = []
        self.idle = []
        extract(archive, folder)
        self.variables = variables(configuration, folder) | credentials | endpoints

    async def invoke(self, event: dict):
        """Yields a head, then the parts of the answer."""
        environment = self.idle.pop() if self.idle else await self.start_environment()
        deadline_ms = int((time.time() + self.configuration["Timeout"]) * 1000)
        try:
            async for posted in environment.invoke(Invocation(json.dumps(event).encode(), deadline_ms)):
                yield posted
        except BrokenResponse as error:
            self.faults.append(str(error))
            raise
        if environment.process.returncode is None:
            self.idle.append(environment)

    async def start_environment(self) -> Environment:
        environment = Environment(self)
        await environment.start()
        self.environments.append(environment)
        return environment

    async def stop(self):
        for environment in self.environments:
            if environment.process.returncode is None:
                environment.process.kill()
                await environment.process.wait()


def extract(archive: bytes, folder: Path):
    """Extracts an archive with the modes of its files, as Lambda does."""
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        files.extractall(folder)
        for file in files.infolist():
            os.chmod(folder / file.filename, (file.external_attr >> 16) & 0o777 or 0o644)


def variables(configuration: dict, folder: Path) -> dict[str, str]:
    """Returns the variables of a function (Lambda Developer Guide, "Defined runtime environment variables")."""
    log = configuration.get("LoggingConfig", {})
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "_HANDLER": configuration["Handler"],
        "LAMBDA_TASK_ROOT": str(folder),
        "AWS_LAMBDA_FUNCTION_NAME": configuration["FunctionName"],
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration["MemorySize"]),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": log.get("LogGroup", ""),
        "AWS_LAMBDA_LOG_FORMAT": log.get("LogFormat", "Text"),
        **configuration["Environment"]["Variables"],
    }
