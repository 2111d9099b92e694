"""Compares the input-token estimate with real tokenizers, and fails if it is too low.

    python measure.py target/debug/examples/estimate_tokens
"""

import json
import statistics
import subprocess
import sys

from reference import counters
from texts import texts_by_kind

# Maximum underestimate of any chunk of about 2 KiB, in percent of its real number of tokens.
MAX_UNDERESTIMATE_PERCENT = 10

# Amazon Bedrock User Guide, "Prepare data for fine-tuning your models": the only figure that Amazon
# publishes about its tokenizers.
AMAZON_CHARACTERS_PER_TOKEN = 6

# The baseline that the table shows next to the estimate.
BASELINE_BYTES_PER_TOKEN = 3

COLUMNS = "{:15} {:9} {:>6} {:>7} | {:>7} {:>6} {:>6} | {:>7} {:>6} {:>6}"


def main(command: list[str]) -> int:
    texts = texts_by_kind()
    families = counters()
    chunks = [chunk for chunks_of_kind in texts.values() for chunk in chunks_of_kind]
    estimates = estimate([*command, *families, "amazon"], chunks)
    print(COLUMNS.format("", "", "", "", "total", "worst", "median", "bytes/3", "worst", "median"))
    print(COLUMNS.format("tokenizer", "text", "chunks", "tokens", "%", "%", "%", "%", "%", "%"))
    failed = 0
    for column, (family, count) in enumerate(families.items()):
        rows = iter(estimates)
        for kind, chunks_of_kind in texts.items():
            counts = [count(chunk) for chunk in chunks_of_kind]
            estimate_errors = errors([next(rows)[column] for _ in chunks_of_kind], counts)
            baseline = [-(-len(chunk.encode()) // BASELINE_BYTES_PER_TOKEN) for chunk in chunks_of_kind]
            baseline_errors = errors(baseline, counts)
            print(COLUMNS.format(family, kind, len(chunks_of_kind), sum(counts), *estimate_errors, *baseline_errors))
            failed += float(estimate_errors[1]) < -MAX_UNDERESTIMATE_PERCENT
    english = len(texts["english"])
    amazon = sum(map(len, texts["english"])) / sum(row[-1] for row in estimates[:english])
    failed += amazon > AMAZON_CHARACTERS_PER_TOKEN
    print(f"amazon: {amazon:.1f} characters of English per token, documented {AMAZON_CHARACTERS_PER_TOKEN}")
    print(f"A row fails if a chunk is underestimated by more than {MAX_UNDERESTIMATE_PERCENT} %.")
    passed = len(families) * len(texts) + 1 - failed
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


def estimate(command: list[str], chunks: list[str]) -> list[list[int]]:
    """Returns the estimates of each chunk, by family, without the fixed cost of a request."""
    lines = "".join(json.dumps(chunk) + "\n" for chunk in ["", *chunks])
    output = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout
    empty, *rows = map(json.loads, output.splitlines())
    return [[tokens - fixed for tokens, fixed in zip(row, empty, strict=True)] for row in rows]


def errors(estimates: list[int], counts: list[int]) -> tuple[str, str, str]:
    """Returns the total error, the lowest error of a chunk, and the median absolute error.

    All are in percent of the real numbers of tokens.
    """
    relative = [100 * (estimate / count - 1) for estimate, count in zip(estimates, counts, strict=True)]
    total = 100 * (sum(estimates) / sum(counts) - 1)
    return f"{total:+.1f}", f"{min(relative):+.1f}", f"{statistics.median(map(abs, relative)):.1f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
