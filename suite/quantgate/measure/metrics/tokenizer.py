"""Parity of the backend's own tokenizer with the model's: the same ids for the same texts."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from quantgate.jobs import Needs
from quantgate.measure.groups import Group
from quantgate.measure.session import Session
from quantgate.records import Declared, Metric, Record


class Options(Record):
    """text: name in tasks.toml, of which the first `characters` are split into lines and compared, beside the lines
    of `quantgate.supply.lines`, which meet every token of the vocabulary and what tokenizers are known to differ on."""

    text: str
    characters: int = Field(default=20000, ge=1)


def needs(options: Options) -> Needs:
    """The text whose lines are compared."""
    return Needs(lines={options.text: options.characters})


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """`tokenizer/mismatches`: number of lines whose ids differ from those of the model's own tokenizer."""
    lines = session.tokenizer_lines()
    wrong = []
    for number, (text, ids) in enumerate(lines):
        if session.backend.tokenize(text) != ids:
            wrong.append(text)
        session.progress(number + 1, len(lines))
    return {
        "tokenizer/mismatches": Metric(
            kind="exact",
            value=float(len(wrong)),
            unit="lines",
            better="lower",
            conditions={"source": session.source_hash, "lines": len(lines)},
            raw={"first mismatches": wrong[:5]},
        )
    }


GROUP = Group(
    options=Options,
    metrics={"tokenizer/mismatches": Declared("exact")},
    measure=measure,
    family="tokenizer",
    capabilities=frozenset({"tokenizes"}),
    needs=needs,
)
