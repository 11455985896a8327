"""The records of a workload: tokenized texts and prompts, and the items of tasks and of programming tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from quantgate.files import hash_of
from quantgate.records import Record

TOKENIZER = "tokenizer.json"
"""A workload's file of the tokenizer; only a workload with programs or questions has it."""
CHATS = "chats.json"
"""A workload's file of the conversations that chat templates are compared on, where a tier compares them."""
RULES = "rules"
"""A workload's folder of the files of the user's own tasks that are answered in writing, each task's in a folder of its
name: they are read to mark the answers."""
NLTK_DATA = "nltk_data"
"""A workload's folder of what the rules of its tasks read with NLTK, where a task has any."""
MISSING = "missing.json"
"""A workload's file of reasons why texts and tasks are missing in it, by name."""

Results = Literal["choice", "mass", "pair", "stereoset", "gold"]


class Text(Record):
    """A tokenized text.

    starts: for each token the byte at which it begins, and at the end the length of the text. bos: the
    beginning-of-sequence token that replaces each window's first token; None: none does.
    """

    ids: list[int]
    starts: list[int]
    bos: int | None
    hash: str

    def bytes_between(self, first: int, last: int) -> int:
        """Return how many bytes of UTF-8 the tokens first..last-1 have."""
        return self.starts[last] - self.starts[first]


class Opening(Record):
    """What stands before a text that is a user's message, as token ids: whatever the chat template puts there, after
    the system message if there is one. template: its hash."""

    template: str
    ids: list[int]


def part(kind: str, name: str) -> str:
    """Return the name that a part of a workload has: that of its file, and of the reason why it is missing. kind: text,
    task, lines, programs, prompts (a name may be that of a file), questions. A text and a task may have one name."""
    return f"{kind}-{Path(name).stem if kind == 'prompts' else name}"


def opening_name(system: str | None) -> str:
    """Return the name that an opening has in a workload, by its system message."""
    return "opening" if system is None else f"opening-{hash_of(system)}"


class Choice(Record):
    """One continuation of a context, as token ids. characters: the choice's length, by which acc_norm divides."""

    context: list[int]
    continuation: list[int]
    characters: int


class Item(Record):
    """One question of a task. gold: the numbers of the right choices, from 0."""

    choices: list[Choice]
    gold: list[int]


class Task(Record):
    """The first items of an lm-evaluation-harness task, tokenized.

    results: how metrics are computed from log-likelihoods (`quantgate.measure.metrics.accuracy.item_metrics`).
    fewshot: how many examples come before each item. template: hash of the chat template that the items are asked
    through; empty: without one. The other hashes are those of documents, prompts and token ids.
    """

    name: str
    version: str
    output_type: str
    results: Results = "choice"
    metrics: list[str]
    fewshot: int = 0
    template: str = ""
    items: list[Item]
    data_hash: str
    prompt_hash: str
    token_hash: str


class Prompts(Record):
    """What a model is asked to continue, as token ids.

    chat: whether the model's chat template rendered them; template: its hash, empty without. ends: ids of the tokens
    that end an answer.
    """

    name: str
    chat: bool
    template: str
    ends: list[int]
    items: list[list[int]]
    token_hash: str


class Questions(Prompts):
    """The first items of an lm-evaluation-harness task whose answers are written (output type generate_until).

    fewshot: examples before each item. until: texts before which an answer ends. limit: tokens that the task gives an
    answer. documents: what the harness marks answers by.
    """

    version: str
    fewshot: int
    until: list[str]
    limit: int
    documents: list[dict[str, Any]]
    data_hash: str


class Conversation(Record):
    """A conversation that chat templates are compared on. ids: of its tokens, by the model's template and tokenizer, up
    to where the assistant begins to write; None: the template refuses it."""

    name: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    ids: list[int] | None


class Program(Record):
    """One programming question. prompt: token ids. begin: the part of the prompt that belongs to the program. test: the
    code that is run after the program."""

    prompt: list[int]
    begin: str
    test: str


class Programs(Record):
    """The first items of a programming task. stops: strings before which an answer ends. ends: tokens that end it.
    The hashes are those of documents and token ids."""

    name: str
    version: str
    stops: list[str]
    ends: list[int]
    items: list[Program]
    data_hash: str
    token_hash: str


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts have in common at their beginnings."""
    different = (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(different, min(len(one), len(other)))


def tokens_in(workload: Path) -> list[int]:
    """Return the token ids of all texts, tasks, questions, prompts and programs in the folder of a workload."""
    files = (
        file
        for kind in ("text-", "opening", "task-", "questions-", "prompts-", "programs-")
        for file in sorted(workload.glob(f"{kind}*.json"))
    )
    return [token for file in files for token in _tokens(json.loads(file.read_bytes()))]


def _tokens(part: dict[str, Any]) -> Iterator[int]:
    """Yield the ids in a record that was read."""
    for key in ("ids", "context", "continuation", "prompt"):
        yield from part.get(key, ())
    for one in (*part.get("items", ()), *part.get("choices", ())):
        if isinstance(one, list):
            yield from one
        else:
            yield from _tokens(one)
