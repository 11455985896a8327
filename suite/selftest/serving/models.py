"""What the fake server serves: bigrams by heart, or a GGUF through llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PIECES = [b"<s>", b"a", b"b ", b"c", b"\xc3", b"\xa9", b"\xe2\x82", b"\xac", b"d ", b"e", b"f ", b"</s>"]
"""Texts of the tokens of `Bigrams`: two characters take two tokens each."""
BEGIN, END = 0, 11


class Model(Protocol):
    """pieces: what each token stands for. end: the token that ends a text."""

    pieces: list[bytes]
    end: int

    def rows(self, ids: list[int]) -> NDArray[np.float64]:
        """Log-probabilities of the next token after each of `ids`, shape [len(ids), vocabulary]."""


class Bigrams:
    """The next token depends on the last two, in a way that is drawn from a seed."""

    pieces = PIECES
    end = END

    def __init__(self) -> None:
        size = len(PIECES)
        logits = np.random.default_rng(7).normal(0, 1.5, (size, size, size))
        logits[:, :, BEGIN] = -12.0
        self.table = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))

    def rows(self, ids: list[int]) -> NDArray[np.float64]:
        before = [0, *ids[:-1]]
        rows: NDArray[np.float64] = self.table[before, ids]
        return rows


class Gguf:
    """A GGUF that the engine's own backend loads."""

    def __init__(self, path: Path) -> None:
        import llama_cpp
        from quantgate.backends.runtime.llamacpp import LlamaCpp

        self.backend = LlamaCpp(path, {"device": "cpu"}, 1)
        vocab = self.backend._vocab
        self.end = llama_cpp.llama_vocab_eos(vocab)
        self.pieces = []
        room = (b" " * 256)[:]
        for token in range(llama_cpp.llama_vocab_n_tokens(vocab)):
            size = llama_cpp.llama_token_to_piece(vocab, token, room, 256, 0, True)
            self.pieces.append(room[:size])

    def rows(self, ids: list[int]) -> NDArray[np.float64]:
        from quantgate.backends.tree import TokenSequence, build_tree

        tree = build_tree([TokenSequence((*ids, 0), 1)])
        self.backend.reserve(len(ids), 1)
        logits = self.backend.logits(tree).astype(np.float64)
        return np.asarray(
            logits - np.log(np.exp(logits - logits.max()).sum(axis=1, keepdims=True)) - logits.max()
        )

    def tokenize(self, text: str) -> list[int]:
        return self.backend.tokenize(text)


def ends_within(text: bytes) -> bool:
    """Whether a text ends within a character."""
    for length in (1, 2, 3):
        tail = text[-length:]
        if len(tail) == length and tail[0] >= 0xC0:
            return length < (2 if tail[0] < 0xE0 else 3 if tail[0] < 0xF0 else 4)
    return False
