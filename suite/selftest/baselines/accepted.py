"""Measurements of one cell, made up, and what accepting them leaves on disk."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.baselines.baseline import Baseline
from quantgate.baselines.store import read
from quantgate.baselines.update import plan_update, write_update
from quantgate.records import FORMAT, Measurement, Metric, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable


CELL = "smollm2-135m/llamacpp/Q4_K_M"

TIER = "smoke"


def perplexity(value: float = 24.8) -> Metric:
    """With floats that a rounded text would lose, and a condition of None."""
    return Metric(
        kind="paired",
        value=value,
        unit="ppl",
        better="lower",
        stderr=0.1 + 0.2,
        link="exp",
        samples=[math.log(value) + d for d in (1 / 3, -1 / 3, 0.0, 0.0)],
        weights=[511.0, 511.0, 511.0, 17.0],
        conditions={"tokens": "ab12", "n_ctx": 512, "limit": None, "bos": True, "scale": 1.0},
        raw={"choices": [[-1.5, -2 / 3], [5e-324, 1e22]], "ids": ["a", "b"]},
    )


WEIGHT_BYTES = Metric(kind="exact", value=98_362_432, unit="bytes", better="lower")

RATIO = Metric(kind="ratio", value=1.7, unit="x", better="higher")

DECODE = Metric(
    kind="rounds",
    value=99.12345,
    unit="tokens/s",
    better="higher",
    samples=[0.3219876, 0.32],
    processes=[1, 1],
)


def measured(**changes: object) -> Measurement:
    fields: dict[str, object] = {
        "cell": CELL,
        "tier": TIER,
        "fingerprint": "f1",
        "created": "2026-07-01T22:14:09+00:00",
        "seconds": 61.2345,
        "phases": {"decode": 7.6543},
        "environment": {"torch": "2.13.0", "threads": 2, "gpu": None, "avx2": True},
        "metrics": {"perplexity": perplexity(), "memory/weight_bytes": WEIGHT_BYTES},
        "complete": True,
    }
    return Measurement.model_validate(fields | changes)


def update(
    root: Path,
    new: Measurement,
    *verdicts: Verdict,
    machine: str | None = None,
    re_anchor: bool = False,
    **how: object,
) -> list[Path]:
    """Plan and write, as one run does it."""
    plan = plan_update(new, read(root, CELL, TIER, machine), verdicts, machine, re_anchor=re_anchor)
    return write_update(root, plan, **{"reason": "first", **how})  # type: ignore[arg-type]


def existing(root: Path, machine: str | None = None) -> Baseline:
    baseline = read(root, CELL, TIER, machine)
    assert baseline is not None
    return baseline


def tree(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


TIMED = {"perplexity": perplexity(), "throughput/decode": DECODE, "throughput/ratio/decode": RATIO}


def verdict(status: Status, text: str = "", metric: str = "perplexity", cell: str = CELL) -> Verdict:
    return Verdict(cell=cell, metric=metric, status=status, text=text)


def replaced(old: str, new: str) -> Callable[[Path, Path], None]:
    def damage(summary: Path, raw: Path) -> None:
        text = summary.read_text()
        assert old in text
        summary.write_text(text.replace(old, new, 1))

    return damage


def in_format(summary: Path, older: int) -> None:
    """Write a summary as an older quantgate did, from format 2 on, without a seal."""
    text = summary.read_text()
    assert f"\nformat = {FORMAT}\n" in text
    text = text.replace(f"\nformat = {FORMAT}\n", f"\nformat = {older}\n")
    summary.write_text(re.sub("\nseal = .*\n", "\n", text))
