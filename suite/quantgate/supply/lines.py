"""Lines of text that show whether two tokenizers differ.

A tokenizer may lose a merge, or a token of its vocabulary, that no text of a few pages needs. So each token that the
model's tokenizer can give is part of some line. Other lines hold what splitting rules (pre-tokenizers) differ on.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

HARD_LINES = [
    "don't can't I'LL they've",
    "    four spaces,\ta tab,  two spaces",
    "1234567890 3.14159 1,000,000 0x1F",
    "naïve café Zürich Ελληνικά русский",
    "日本語の文章と中文字符",
    "עברית العربية",
    "👩‍👩‍👧‍👦 family 🇩🇪 flag ✅",
    "def f(x):\n    return x ** 2  # square\n\n\nprint(f(3))",
    "line one\r\nline two\r\n",
    "e\u0301 composed later, \u00a0no-break space, zero\u200bwidth",
    "\ufb01ne ① Ⅻ ½ ㎏ \uff46\uff55\uff4c\uff4c x² Å ﷺ",
    "$\\frac{1}{2}$ & <b>bold</b> {{braces}} \\n not a newline",
    "   ",
]
"""Lines on which tokenizers are seen to differ."""

PLAIN_LINES = [line.strip() for line in HARD_LINES if line.strip()]
"""Those without spaces around them: libraries differ on a space at the beginning, which no measured text has."""

PER_LINE = 64
"""Tokens, or characters, in one line."""

MIXED = "abcXYZ éßñ 0123456789 .,;:!?'\"-_()/@#$%&*+=<> \t\n 中文あア한글 привет שלום ١٢٣ 😀"
"""The characters of random lines."""


def make_lines(tokenizer: Any, samples: Sequence[str]) -> list[str]:
    """Return every line that tokenizers are compared on. tokenizer: a fast one of transformers. samples: lines of
    natural text."""
    return [
        *HARD_LINES,
        *samples,
        *_whitespace(),
        *_numbers(),
        *_random_lines(),
        *_characters(),
        *(f"before {token.content} after" for token in tokenizer.added_tokens_decoder.values()),
        *vocabulary_lines(tokenizer),
    ]


def splitting_lines() -> list[str]:
    """Return lines that splittings and normalizers differ on."""
    return [*HARD_LINES, *_whitespace(), *_numbers()]


def vocabulary_lines(tokenizer: Any) -> list[str]:
    """Return lines whose tokens are, together, all that the tokenizer gives for a text of their own: each merge of a
    BPE makes one of them. Tokens that are no whole character are left to the other lines."""
    texts_of = _texts_of_tokens(tokenizer)
    # A line end keeps a token from growing together with the one before.
    apart = [text if text[0].isspace() else f"\n{text}" for text in texts_of.values()]
    lines = ["".join(texts) for texts in _by_line(apart)]
    seen = {token for ids in _encoded(tokenizer, lines) for token in ids}
    # Those that grew together with their neighbours: alone in a line.
    return [*lines, *(text for token, text in texts_of.items() if token not in seen)]


def _texts_of_tokens(tokenizer: Any) -> dict[int, str]:
    """Return, by id, the text of each token that the tokenizer gives for that text."""
    added = set(tokenizer.added_tokens_decoder)
    ids = [token for token in sorted(tokenizer.get_vocab().values()) if token not in added]
    decode = tokenizer.backend_tokenizer.decode
    anchor = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    before = decode(anchor, skip_special_tokens=False)
    texts = {}
    for token in ids:
        # Behind another token: decoders take the space off the first one.
        text = decode([*anchor, token], skip_special_tokens=False).removeprefix(before)
        if text and "\ufffd" not in text:
            texts[token] = text
    encoded = _encoded(tokenizer, list(texts.values()))
    return {token: text for (token, text), ids in zip(texts.items(), encoded, strict=True) if ids == [token]}


def _by_line(parts: list[str]) -> Iterator[list[str]]:
    for begin in range(0, len(parts), PER_LINE):
        yield parts[begin : begin + PER_LINE]


def _encoded(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text, without special tokens."""
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def _whitespace() -> Iterator[str]:
    """Yield runs of each length."""
    for length in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64):
        for space in " \t\n":
            yield f"a{space * length}b 1{space * length}2 .{space * length}"
    yield "a \n b \t c\n \nd\t\n e \r\n f\r g\u3000h\u2003i"


def _numbers() -> Iterator[str]:
    digits = "31415926535897932384626433832795028841"
    for length in range(1, 20):
        yield f"{digits[:length]} -{digits[:length]} x{digits[:length]}y {digits[:length]}.{digits[-length:]}"


def _random_lines() -> Iterator[str]:
    """Yield the same lines in each run."""
    source = random.Random(0)  # noqa: S311
    for _ in range(PER_LINE):
        yield "".join(source.choices(MIXED, k=PER_LINE))


def _characters() -> Iterator[str]:
    """Yield, of each 64 code points, the first letter, mark, number or sign, so that every script and block is met."""
    blocks = (map(chr, range(begin, begin + 64)) for begin in range(0x80, 0x20000, 64) if begin >> 11 != 0x1B)
    chosen = [next((c for c in block if unicodedata.category(c)[0] in "LMNPS"), "") for block in blocks]
    for characters in _by_line(list(filter(None, chosen))):
        yield " ".join(characters)
        yield "".join(characters)
