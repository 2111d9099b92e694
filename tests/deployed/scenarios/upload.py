"""Uploads of files, as the OpenAI SDKs send them."""

import json

from .requests import GPT, chat

BOUNDARY = "deployed-boundary"


def multipart(fields: dict[str, str], content: bytes) -> tuple[bytes, str]:
    """Returns a multipart body with a file, and its content type."""
    part = '--{}\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    parts = [part.format(BOUNDARY, name, value) for name, value in fields.items()]
    file = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="batch.jsonl"\r\n\r\n'
    body = "".join(parts).encode() + file.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    return body, f"multipart/form-data; boundary={BOUNDARY}"


def upload(broker, lines: int, tenant: str = "roomy", model: str = GPT) -> dict:
    """Uploads a batch file of chat completions, and returns the file."""
    entry = {"method": "POST", "url": "/v1/chat/completions", "body": chat(model)}
    content = "\n".join(json.dumps({"custom_id": f"line-{number}", **entry}) for number in range(lines))
    body, content_type = multipart({"purpose": "batch"}, content.encode())
    return broker.call("POST", "/v1/files", body, tenant, Content_Type=content_type).expect(200).json()


def create_batch(broker, lines: int, tenant: str = "roomy") -> dict:
    request = {
        "input_file_id": upload(broker, lines, tenant)["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    return broker.call("POST", "/v1/batches", request, tenant).expect(200).json()
