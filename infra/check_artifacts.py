"""Checks built Lambda binaries: prints their sizes, and fails for a binary that cannot start.

    python check_artifacts.py BOOTSTRAP…

The runtime `provided.al2023` is Amazon Linux 2023 with glibc 2.34. A binary that needs a newer
glibc exits at startup.
"""

import re
import sys
import zlib
from pathlib import Path

RUNTIME_GLIBC = (2, 34)
MIB = 1024 * 1024


def required_glibc(binary):
    """Returns the newest glibc version among the symbols that the binary imports."""
    versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", binary)
    return max(((int(major), int(minor)) for major, minor in versions), default=(0, 0))


def main():
    failed = False
    for path in map(Path, sys.argv[1:]):
        binary = path.read_bytes()
        required = required_glibc(binary)
        zipped_bytes = len(zlib.compress(binary, 6))
        sizes = f"{len(binary) / MIB:.2f} MiB, zipped {zipped_bytes / MIB:.2f} MiB"
        print(f"{path}: {sizes}, requires glibc {required[0]}.{required[1]}")
        if required > RUNTIME_GLIBC:
            available = f"{RUNTIME_GLIBC[0]}.{RUNTIME_GLIBC[1]}"
            print(f"{path}: provided.al2023 has only glibc {available}", file=sys.stderr)
            failed = True
    return 1 if failed or len(sys.argv) < 2 else 0


if __name__ == "__main__":
    sys.exit(main())
