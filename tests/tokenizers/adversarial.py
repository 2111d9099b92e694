"""Compares the upper bound of input tokens with real tokenizers, on texts made to have many tokens.

    python adversarial.py target/debug/examples/estimate_tokens

The texts are random letters, signs and blanks of all scripts, which no corpus has. A tenant could
send them to be charged less than it uses. Fails if a text has more tokens than its bound.
"""

import random
import string
import sys

from measure import estimate
from reference import counters

SEED = 20_260
TEXTS_PER_ALPHABET = 12
MIXED_TEXTS = 200
TEXT_BYTES = 1_000
SEPARATORS = ["", " ", "\n", "\t", "_", "-", "'", ". ", ", ", "  ", "\n    ", "(", '"', "1", ":", "\r\n", "/", "+", "="]
# Ranges of code points: scripts, signs, and characters that normalisation changes.
RANGES = [
    (0x01, 0x08), (0x20, 0x7E), (0xA1, 0xBF), (0xC0, 0xFF), (0x100, 0x24F), (0x250, 0x2AF), (0x300, 0x36F), (0x370, 0x3FF),
    (0x400, 0x52F), (0x410, 0x42F), (0x410, 0x44F), (0x591, 0x5EA), (0x610, 0x6D3), (0x620, 0x64A), (0x750, 0x77F),
    (0x900, 0x97F), (0x980, 0x9FF), (0xA00, 0xAFF), (0xB80, 0xBFF), (0xC00, 0xC7F), (0xD80, 0xDFF), (0xE01, 0xE5B),
    (0xE80, 0xEFF), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137F), (0x13A0, 0x13F5),
    (0x1780, 0x17FF), (0x1E00, 0x1EFF), (0x2010, 0x205E), (0x2070, 0x2BFF), (0x2460, 0x24FF), (0x3000, 0x303F),
    (0x3041, 0x309F), (0x30A0, 0x30FF), (0x3200, 0x33FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xE000, 0xF8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC), (0xFF01, 0xFFEF), (0x1D400, 0x1D7FF), (0x1F000, 0x1FAFF),
    (0x20000, 0x20FFF), (0x80, 0x7FF), (0x800, 0xD7FF),
]
ALPHABETS = [
    string.ascii_lowercase, string.ascii_uppercase, string.ascii_letters, string.digits, string.punctuation,
    "bcdfghjklmnpqrstvwxz", "BCDFGHJKLMNPQRSTVWXZ", "qxzjkv", string.ascii_letters + string.digits, string.hexdigits,
    string.ascii_uppercase + "234567", " \t\n\r", " \n", " \t", *("".join(map(chr, range(first, last + 1))) for first, last in RANGES),
]


def text(chance: random.Random, alphabet: str, length: int) -> str:
    shortest = chance.choice([1, 1, 2, 3, 4, 5, 8, 12, 20, 60])
    longest = shortest + chance.choice([0, 0, 1, 3, 8, 20])
    separators = [chance.choice(SEPARATORS)] if chance.random() < 0.8 else SEPARATORS
    made = ""
    while len(made.encode()) < length:
        word = "".join(chance.choices(alphabet, k=chance.randint(shortest, longest)))
        made += (word.capitalize() if chance.random() < 0.2 else word) + chance.choice(separators)
    return made


def main(command: list[str]) -> int:
    chance = random.Random(SEED)
    texts = [text(chance, alphabet, TEXT_BYTES) for alphabet in ALPHABETS for _ in range(TEXTS_PER_ALPHABET)]
    texts += [
        "".join(text(chance, alphabet, TEXT_BYTES // 3) for alphabet in chance.sample(ALPHABETS, 3)) for _ in range(MIXED_TEXTS)
    ]
    bounds = [row[0] for row in estimate([*command, "--max"], texts)]
    failed, lowest = 0, 100.0
    for family, count in counters().items():
        for made, bound in zip(texts, bounds, strict=True):
            tokens = count(made)
            if tokens:
                lowest = min(lowest, bound / tokens)
            if tokens > bound:
                failed += 1
                print(f"{family}: {tokens} tokens, bound {bound}: {made[:40]!r}")
    print(f"{len(texts)} random texts; the lowest bound is {lowest:.2f} times the tokens")
    print(f"{len(texts) * len(counters()) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
