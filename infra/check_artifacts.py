"""Checks built Lambda binaries: prints their sizes, and fails for a binary that cannot start.

    python check_artifacts.py --architecture arm64 BOOTSTRAP…

The runtime `provided.al2023` is Amazon Linux 2023 with glibc 2.34. A binary that needs a newer
glibc exits at startup, and so does a binary of another architecture than the function's.
"""

import argparse
import re
import struct
import sys
import zlib
from pathlib import Path

RUNTIME_GLIBC = (2, 34)
MIB = 1024 * 1024


# Architectures of Lambda, each with its machine in the header of an ELF file (System V ABI).
MACHINES = {62: "x86_64", 183: "arm64"}


def architecture(binary):
    """Returns the architecture of a 64-bit little-endian ELF binary, or what it is instead."""
    if len(binary) < 20 or not binary.startswith(b"\x7fELF\x02\x01"):
        return "no ELF binary of 64 bits"
    machine = struct.unpack_from("<H", binary, 18)[0]
    return MACHINES.get(machine, f"machine {machine}")


def required_glibc(binary):
    """Returns the newest glibc version among the symbols that the binary imports."""
    versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", binary)
    return max(((int(major), int(minor)) for major, minor in versions), default=(0, 0))


def problems(binary, expected):
    """Returns why a binary cannot start; `expected` is the function's architecture, or None for any."""
    found, required = architecture(binary), required_glibc(binary)
    if found not in MACHINES.values() or expected not in (None, found):
        yield f"the binary is for {found}, the function for {expected or ' or '.join(MACHINES.values())}"
    if required > RUNTIME_GLIBC:
        yield f"provided.al2023 has only glibc {RUNTIME_GLIBC[0]}.{RUNTIME_GLIBC[1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=MACHINES.values(), help="the function's; any if absent")
    parser.add_argument("bootstraps", nargs="+", type=Path, metavar="BOOTSTRAP")
    options = parser.parse_args()
    failed = False
    for path in options.bootstraps:
        binary = path.read_bytes()
        required = required_glibc(binary)
        zipped_bytes = len(zlib.compress(binary, 6))
        sizes = f"{len(binary) / MIB:.2f} MiB, zipped {zipped_bytes / MIB:.2f} MiB"
        print(f"{path}: {architecture(binary)}, {sizes}, requires glibc {required[0]}.{required[1]}")
        for problem in problems(binary, options.architecture):
            print(f"{path}: {problem}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
