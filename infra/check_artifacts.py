"""Checks built Lambda binaries: `python check_artifacts.py BOOTSTRAP…` prints their sizes and fails on one that cannot start.

Amazon Linux 2023, which `provided.al2023` runs on, has glibc 2.34; a binary that asks for a newer one ends at its start.
"""

import re
import sys
import zlib
from pathlib import Path

RUNTIME_GLIBC = (2, 34)
MIB = 1024 * 1024


def needed_glibc(binary):
    """The newest glibc version among the symbols that the binary imports."""
    versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", binary)
    return max(((int(major), int(minor)) for major, minor in versions), default=(0, 0))


def main():
    failed = False
    for path in map(Path, sys.argv[1:]):
        binary = path.read_bytes()
        needed = needed_glibc(binary)
        zipped = len(zlib.compress(binary, 6))
        print(f"{path}: {len(binary) / MIB:.2f} MiB, zipped {zipped / MIB:.2f} MiB, needs glibc {needed[0]}.{needed[1]}")
        if needed > RUNTIME_GLIBC:
            print(f"{path}: provided.al2023 has only glibc {RUNTIME_GLIBC[0]}.{RUNTIME_GLIBC[1]}", file=sys.stderr)
            failed = True
    return 1 if failed or len(sys.argv) < 2 else 0


if __name__ == "__main__":
    sys.exit(main())
