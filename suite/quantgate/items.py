"""The records of a workload: tokenized texts, and the items of tasks and programs."""

from __future__ import annotations

from typing import Literal

from quantgate.records import Record

TOKENIZER = "tokenizer.json"
"""Of a workload with programs."""
MISSING = "missing.json"
"""Of a workload: why texts and tasks are not in it, by name."""


Results = Literal["choice", "mass", "pair", "stereoset", "gold"]


class Text(Record):
    """A tokenized text. `starts[i]` is the byte at which token i begins; one more entry closes the last.
    bos: beginning-of-sequence token that stands in for a window's first token; None: the model has none."""

    ids: list[int]
    starts: list[int]
    bos: int | None
    hash: str

    def bytes_between(self, first: int, last: int) -> int:
        """UTF-8 bytes of the tokens first..last-1."""
        return self.starts[last] - self.starts[first]


class Choice(Record):
    """One continuation of a context, as token ids; `characters` is the choice's length in lm-eval's acc_norm."""

    context: list[int]
    continuation: list[int]
    characters: int


class Item(Record):
    """One document of a task; `gold` lists the numbers of the right choices."""

    choices: list[Choice]
    gold: list[int]


class Task(Record):
    """The first items of an lm-evaluation-harness task, tokenized; `fewshot`: how many examples stand before each.
    results: how metrics are made of log-likelihoods (`quantgate.measure.metrics.accuracy.item_metrics`).
    Hashes: of documents, prompts, token ids."""

    name: str
    version: str
    output_type: str
    results: Results = "choice"
    metrics: list[str]
    fewshot: int = 0
    items: list[Item]
    data_hash: str
    prompt_hash: str
    token_hash: str


class Program(Record):
    """A program that is to be written. prompt: token ids. begin: what of the prompt is part of the program. test: what
    is run after it."""

    prompt: list[int]
    begin: str
    test: str


class Programs(Record):
    """The first items of a programming task. stops: an answer ends before the first of them; end: the token that
    ends it. Hashes: of documents, token ids."""

    name: str
    version: str
    stops: list[str]
    end: int
    items: list[Program]
    data_hash: str
    token_hash: str
