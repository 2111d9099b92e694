"""Counts the bytes that the dialects copy for a request, a response, and a thousand stream events.

    python tests/copies.py PATH/TO/examples/data_path

Valgrind's DHAT counts the bytes that `memcpy` and similar functions copy (`--mode=copy`). The
script runs the work 10 and 30 times, and takes the difference to exclude the rest of the program.
"""

import re
import subprocess
import sys
import tempfile

MIN_REPETITIONS, MAX_REPETITIONS = 10, 30
DIALECTS = ("openai", "messages", "claude", "converse")


def main(program: str) -> None:
    print(f"{'bytes copied':28}" + "".join(f"{dialect:>12}" for dialect in DIALECTS))
    for direction, kilobytes in [("request", 1), ("request", 100), ("answer", 1), ("answer", 100), ("stream", 0)]:
        size = f"{kilobytes} KB" if kilobytes else "1000 events"
        counts = [copied_per_repetition(program, direction, dialect, kilobytes) for dialect in DIALECTS]
        print(f"{direction + ', ' + size:28}" + "".join(f"{count:12,.0f}" for count in counts), flush=True)


def copied_per_repetition(program: str, direction: str, dialect: str, kilobytes: int) -> float:
    arguments = (direction, dialect, str(kilobytes))
    low = copied_bytes(program, *arguments, str(MIN_REPETITIONS))
    high = copied_bytes(program, *arguments, str(MAX_REPETITIONS))
    return (high - low) / (MAX_REPETITIONS - MIN_REPETITIONS)


def copied_bytes(program: str, *arguments: str) -> int:
    with tempfile.NamedTemporaryFile() as profile:
        command = ["valgrind", "--tool=dhat", "--mode=copy", f"--dhat-out-file={profile.name}", program, *arguments]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return int(re.search(r"Total:\s+([\d,]+) bytes", report).group(1).replace(",", ""))


if __name__ == "__main__":
    main(sys.argv[1])
