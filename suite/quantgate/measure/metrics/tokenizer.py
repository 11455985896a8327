"""Parity of the backend's own tokenizer with the model's: the same ids for the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from quantgate.backends.base import RendersChats
from quantgate.items import Conversation
from quantgate.jobs import Needs
from quantgate.measure.groups import Group, exact
from quantgate.measure.session import Session
from quantgate.records import Declared, Metric, Record


class Options(Record):
    """text: name in tasks.toml; the lines of its first `characters` are compared, and `quantgate.supply.lines`: every
    token of the vocabulary and what tokenizers often differ on. chat: compare chat templates, too."""

    text: str
    characters: int = Field(default=20000, ge=1)
    chat: bool = False


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return `tokenizer/mismatches`: how many lines have other ids than the model's own tokenizer gives. With `chat`
    also `tokenizer/chat_mismatches`: how many conversations, of `quantgate.supply.conversations`, have other ids by the
    template and the tokenizer that the checkpoint carries than by the model's own; of a model without a template none
    is compared."""
    options = session.options("tokenizer", Options)
    lines = session.tokenizer_lines()
    wrong = []
    for number, (text, ids) in enumerate(lines, 1):
        if session.backend.tokenize(text) != ids:
            wrong.append(text)
        session.progress(number, len(lines))
    raw: dict[str, Any] = {"first mismatches": wrong[:5]}
    if wrong:
        raw["says"] = f"such as {wrong[0][:60]!r}"
    metrics = {
        "tokenizer/mismatches": exact(
            float(len(wrong)),
            {"source": session.source_hash, "lines": len(lines)},
            unit="lines",
            raw=raw,
        )
    }
    if options.chat and isinstance(session.backend, RendersChats):
        if conversations := session.conversations():
            metrics["tokenizer/chat_mismatches"] = _chats(session, session.backend, conversations)
        else:
            session.notes["chat"] = "the model has no chat template: none was compared"
    return metrics


def _chats(session: Session, backend: RendersChats, conversations: Sequence[Conversation]) -> Metric:
    wrong = [one.name for one in conversations if backend.chat(one.messages, one.tools) != one.ids]
    return exact(
        float(len(wrong)),
        {"source": session.source_hash, "conversations": len(conversations)},
        unit="conversations",
        raw={"says": ", ".join(wrong)} if wrong else {},
    )


GROUP = Group(
    options=Options,
    metrics={
        "tokenizer/mismatches": Declared("exact"),
        "tokenizer/chat_mismatches": Declared("exact"),
    },
    measure=measure,
    family="tokenizer",
    capabilities=frozenset({"tokenizes"}),
    needs=lambda options: Needs(lines={options.text: options.characters}, chats=options.chat),
)
