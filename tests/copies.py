"""Counts the bytes that the dialects copy for a request, its answer, and a thousand events of a stream.

    python tests/copies.py PATH/TO/examples/data_path

Valgrind's DHAT counts what `memcpy` and its kin move (`--mode=copy`). The work is done 10 and 30 times; the difference is
that of 20, without what the program does beside it.
"""

import re
import subprocess
import sys
import tempfile

FEW, MANY = 10, 30
DIALECTS = ("openai", "messages", "claude", "converse")


def main(program: str) -> None:
    print(f"{'bytes copied':28}" + "".join(f"{dialect:>12}" for dialect in DIALECTS))
    for direction, kilobytes in [("request", 1), ("request", 100), ("answer", 1), ("answer", 100), ("stream", 0)]:
        size = f"{kilobytes} KB" if kilobytes else "1000 events"
        counts = [per_run(program, direction, dialect, kilobytes) for dialect in DIALECTS]
        print(f"{direction + ', ' + size:28}" + "".join(f"{count:12,.0f}" for count in counts), flush=True)


def per_run(program: str, direction: str, dialect: str, kilobytes: int) -> float:
    few, many = (copied(program, direction, dialect, str(kilobytes), str(count)) for count in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def copied(program: str, *arguments: str) -> int:
    with tempfile.NamedTemporaryFile() as profile:
        command = ["valgrind", "--tool=dhat", "--mode=copy", f"--dhat-out-file={profile.name}", program, *arguments]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return int(re.search(r"Total:\s+([\d,]+) bytes", told).group(1).replace(",", ""))


if __name__ == "__main__":
    main(sys.argv[1])
