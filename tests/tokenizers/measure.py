"""Measures the estimate of input tokens against real tokenizers, and fails where it is under by more than its bound.

Called with the command that estimates: `measure.py target/debug/examples/estimate_tokens`.
"""

import json
import statistics
import subprocess
import sys

from texts import kinds
from truth import counters

# No chunk of about 2 KiB may be estimated at fewer tokens than this much under the truth, in percent.
BOUND_PERCENT = 10

# Amazon Bedrock User Guide, "Prepare data for fine-tuning your models": all that Amazon says of its tokenizers.
AMAZON_CHARACTERS_PER_TOKEN = 6

# What the estimate is compared with: the simplest rule.
BYTES_PER_TOKEN = 3

COLUMNS = "{:15} {:9} {:>6} {:>7} | {:>7} {:>6} {:>6} | {:>7} {:>6} {:>6}"


def main(command: list[str]) -> int:
    texts = kinds()
    families = counters()
    chunks = [chunk for kind in texts.values() for chunk in kind]
    estimates = estimate([*command, *families, "amazon"], chunks)
    print(COLUMNS.format("", "", "", "", "total", "worst", "median", "bytes/3", "worst", "median"))
    print(COLUMNS.format("tokenizer", "text", "chunks", "tokens", "%", "%", "%", "%", "%", "%"))
    failed = 0
    for column, (family, count) in enumerate(families.items()):
        rows = iter(estimates)
        for kind, of_kind in texts.items():
            truths = [count(chunk) for chunk in of_kind]
            mine = errors([next(rows)[column] for _ in of_kind], truths)
            old = errors([-(-len(chunk.encode()) // BYTES_PER_TOKEN) for chunk in of_kind], truths)
            print(COLUMNS.format(family, kind, len(of_kind), sum(truths), *mine, *old))
            failed += float(mine[1]) < -BOUND_PERCENT
    english = len(texts["english"])
    amazon = sum(map(len, texts["english"])) / sum(row[-1] for row in estimates[:english])
    failed += amazon > AMAZON_CHARACTERS_PER_TOKEN
    print(f"amazon: {amazon:.1f} characters of English per token, documented {AMAZON_CHARACTERS_PER_TOKEN}")
    print(f"A row fails when a chunk is under by more than {BOUND_PERCENT} %.")
    passed = len(families) * len(texts) + 1 - failed
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


def estimate(command: list[str], chunks: list[str]) -> list[list[int]]:
    """What the broker estimates for each chunk, one number a family, without what a request costs beside its text."""
    lines = "".join(json.dumps(chunk) + "\n" for chunk in ["", *chunks])
    told = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout
    empty, *rows = map(json.loads, told.splitlines())
    return [[tokens - none for tokens, none in zip(row, empty, strict=True)] for row in rows]


def errors(estimates: list[int], truths: list[int]) -> tuple[str, str, str]:
    """In percent of the truth: the error of the total, the worst chunk's, and the median of the errors' sizes."""
    relative = [100 * (mine / true - 1) for mine, true in zip(estimates, truths, strict=True)]
    total = 100 * (sum(estimates) / sum(truths) - 1)
    return f"{total:+.1f}", f"{min(relative):+.1f}", f"{statistics.median(map(abs, relative)):.1f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
