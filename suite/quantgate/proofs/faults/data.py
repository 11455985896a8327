"""Faults of data: model and scoring are right, texts and tokens are not.

Texts change after they were hashed, so the conditions of the record do not show it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantgate.items import Text
from quantgate.measure.session import Session
from quantgate.proofs.faults.registry import ITEMS, REPRODUCTION, fault, text_of, wrap

TEXT = ("perplexity",)


def ids(change: Callable[[Session, list[int]], list[int]]) -> None:
    """Change the token ids of every text."""

    @wrap(Session, "text")
    def read(original: Any, session: Session, name: str) -> Text:
        text: Text = original(session, name)
        return text.model_copy(update={"ids": change(session, text.ids)})


@fault("last window dropped", "llamacpp/Q4_K_M", "perplexity", groups=TEXT)
def last_window_dropped() -> None:
    @wrap(Session, "options")
    def options(original: Any, session: Session, group: str, model: Any) -> Any:
        settings = original(session, group, model)
        return (
            settings.model_copy(update={"windows": settings.windows - 1})
            if group == "perplexity"
            else settings
        )


@fault("last window dropped, the one before it counted twice", "llamacpp/Q4_K_M", REPRODUCTION, groups=TEXT)
def window_counted_twice() -> None:
    from quantgate.measure.metrics import perplexity

    @wrap(perplexity, "score_windows")
    def score_windows(original: Any, *arguments: Any) -> Any:
        scored = original(*arguments)
        return [*scored[:-1], scored[-2]]


@fault("text changed by one character", "llamacpp/Q4_K_M", REPRODUCTION, groups=TEXT)
def one_character() -> None:
    def misprint(session: Session, ids: list[int]) -> list[int]:
        """In the middle of the text, the first word that stays one token when its last letter is another."""
        for place in range(len(ids) // 2, len(ids)):
            word = text_of(session.backend, ids[place : place + 1])
            for letter in "esndt":
                other = session.backend.tokenize(word[:-1] + letter)
                if word[-1:].isalpha() and len(other) == 1 and other != ids[place : place + 1]:
                    return [*ids[:place], *other, *ids[place + 1 :]]
        raise AssertionError("no token of this text can be changed by one character")

    ids(misprint)


@fault("windows begin one token late", "llamacpp/Q4_K_M", REPRODUCTION, groups=TEXT)
def windows_shifted() -> None:
    ids(lambda session, ids: [*ids[1:], ids[0]])


@fault("BOS token added", "llamacpp/Q4_K_M", REPRODUCTION, ITEMS, groups=("perplexity", "accuracy"))
def bos_added() -> None:
    """Token 1 of this model, before each window and each context."""
    from quantgate.backends.tree import TokenSequence
    from quantgate.measure.metrics import accuracy, perplexity

    def score(original: Any, backend: Any, groups: Any, budget: int, *further: Any, **named: Any) -> Any:
        longer = [[TokenSequence((1, *s.ids), s.start + 1) for s in group] for group in groups]
        return original(backend, longer, budget + 1, *further, **named)

    wrap(perplexity, "score")(score)
    wrap(accuracy, "score")(score)


@fault(
    "the backend's tokenizer normalizes Unicode",
    "llamacpp/Q4_K_M",
    "tokenizer/mismatches",
    groups=("tokenizer",),
)
def tokenizer_normalizes() -> None:
    import unicodedata

    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "tokenize")
    def tokenize(original: Any, backend: Any, text: str) -> Any:
        return original(backend, unicodedata.normalize("NFKC", text))


TOKENIZER: dict[str, Any] = {"groups": ("tokenizer",)}


def retokenized(change: Callable[[Any, str, list[int]], list[int]]) -> None:
    """Change the ids that the backend's tokenizer gives for a text."""
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "tokenize")
    def tokenize(original: Any, backend: Any, text: str) -> list[int]:
        return change(lambda part: original(backend, part), text, original(backend, text))


@fault("the tokenizer has lost its rarest merge", "llamacpp/Q4_K_M", "tokenizer/mismatches", **TOKENIZER)
def merge_lost() -> None:
    """The token that the last merge makes falls into the two that it was made of."""

    def split(tokenize: Any, text: str, ids: list[int]) -> list[int]:
        return [part for token in ids for part in (halves if token == rarest else [token])]

    import llama_cpp

    from quantgate.backends.runtime.llamacpp import LlamaCpp

    halves: list[int] = []
    rarest = -1

    @wrap(LlamaCpp, "__init__")
    def load(original: Any, backend: Any, *arguments: Any) -> None:
        nonlocal rarest, halves
        original(backend, *arguments)
        for token in reversed(range(llama_cpp.llama_vocab_n_tokens(backend._vocab))):
            text = text_of(backend, [token])
            if len(text) > 3 and text.isascii() and backend.tokenize(text) == [token]:
                cuts = ((text[:n], text[n:]) for n in range(1, len(text)))
                pairs = ([*backend.tokenize(a), *backend.tokenize(b)] for a, b in cuts)
                rarest, halves = token, next(pair for pair in pairs if len(pair) == 2)
                break

    retokenized(split)


@fault("names of special tokens taken for text", "llamacpp/Q4_K_M", "tokenizer/mismatches", **TOKENIZER)
def special_tokens_as_text() -> None:
    import llama_cpp

    @wrap(llama_cpp, "llama_tokenize")
    def tokenize(original: Any, *arguments: Any) -> Any:
        return original(*arguments[:-1], False)


@fault("runs of spaces before a digit split otherwise", "llamacpp/F16", "tokenizer/mismatches", **TOKENIZER)
def spaces_before_digits() -> None:
    import re

    def split(tokenize: Any, text: str, ids: list[int]) -> list[int]:
        parts = re.split(r"( {2,})(?=\d)", text)
        if len(parts) == 1:
            return ids
        spaces = [
            [*tokenize(" " * (len(part) - 1)), *tokenize(" ")] if part.isspace() else tokenize(part)
            for part in parts
            if part
        ]
        return [token for part in spaces for token in part]

    retokenized(split)
