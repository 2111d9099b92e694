"""The certificate of all servers of a run. Only the clients of the run trust it."""

import ssl
import subprocess
from pathlib import Path

SUBJECT_NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"


class Certificate:
    """A self-signed certificate and its key, as PEM files."""

    def __init__(self, folder: Path):
        self.file = folder / "certificate.pem"
        self.key_file = folder / "key.pem"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=deployed"
        extensions = ["-addext", SUBJECT_NAMES, "-addext", "basicConstraints=critical,CA:FALSE"]
        files = ["-keyout", self.key_file, "-out", self.file]
        subprocess.run([*command.split(), *extensions, *files], check=True, capture_output=True)

    def for_clients(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))

    def for_servers(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key_file)
        return context
