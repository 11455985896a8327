"""Judge whether a cell still writes the texts of its baseline, token by token."""

from __future__ import annotations

from quantgate.config.tolerances import Tolerance
from quantgate.items import common_length
from quantgate.judge.judge import Subject
from quantgate.records import Metric, Verdict


def same_texts(subject: Subject, measured: Metric, baseline: Metric, tolerance: Tolerance) -> Verdict:
    """Compare the ids of all texts (`raw["ids"]`) with the baseline's; the value is the share of texts that differ.

    In the baseline's own environment none may (`here`). Elsewhere another kernel rounds differently, and of two tokens
    that are nearly as likely another one is written: texts then differ without any loss, which other gates judge.
    Beyond the limit the status is `changed`.
    """
    old, new = baseline.raw["ids"], measured.raw["ids"]
    other = [number for number, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    share = len(other) / len(new)
    limit = tolerance.limit(unchanged=not subject.changed)
    text = f"all {len(new):,} texts equal the baseline's, token by token"
    if other:
        first = other[0]
        place = common_length(old[first], new[first])
        text = (
            f"{len(other):,} of {len(new):,} texts differ from the baseline's: the first is that of prompt "
            f"{first + 1:,}, from token {place + 1:,} on"
        )
    return subject.reproduced(share, limit, unit="fraction", text=text)
