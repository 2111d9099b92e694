"""AWS on loopback: ministack, which enforces IAM, and the simulated Bedrock Runtime of `spillway stand-ins`."""

import re
from pathlib import Path

import boto3
from botocore.config import Config

import gaps
from actions import REGION
from processes import Processes, free_port, is_open, plain_environment, wait_until
from tls import Certificate

START_TIMEOUT_S = 60
OPERATOR = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION}
BEDROCK_URL = re.compile(r"AWS_ENDPOINT_URL_BEDROCK_RUNTIME=(\S+)")


class Emulator:
    """The running emulator. `url` is the endpoint of all services except Bedrock Runtime."""

    def __init__(self, processes: Processes, certificate: Certificate):
        self.processes = processes
        self.certificate = certificate
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        # Functions and commands reach the emulator through these variables.
        self.variables = {"AWS_ENDPOINT_URL": self.url, "SSL_CERT_FILE": str(certificate.file)}

    def start(self, ministack: Path, spillway: Path, simulator: Path):
        """Starts both processes. `simulator` has the settings of the simulated models."""
        command = [spillway, "stand-ins", "--config", simulator]
        self.processes.start("stand-ins", command, plain_environment())
        settings = {
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "USE_SSL": "1",
            "MINISTACK_SSL_CERT": str(self.certificate.file),
            "MINISTACK_SSL_KEY": str(self.certificate.key_file),
            "AUTH": "true",
            "LOG_LEVEL": "INFO",
            "TMPDIR": str(self.processes.folder),
        }
        variables = {
            **gaps.environment_of_workers(),
            **OPERATOR,
            **self.variables,
            **gaps.WITHOUT_EXTRA_PORTS,
            **settings,
        }
        self.processes.start("ministack", [ministack], variables)
        found = wait_until(lambda: BEDROCK_URL.search(self.processes.log("stand-ins")), START_TIMEOUT_S, "stand-ins")
        self.bedrock_url = found[1]
        wait_until(lambda: is_open(self.port), START_TIMEOUT_S, "ministack listens")

    def client(self, service: str):
        """Returns a client with all rights."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=OPERATOR["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=OPERATOR["AWS_SECRET_ACCESS_KEY"],
            verify=str(self.certificate.file),
            config=Config(read_timeout=120, retries={"total_max_attempts": 2}),
        )
