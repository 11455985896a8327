"""What a tier says of its samples before anything is measured."""

from __future__ import annotations

import re
from typing import Any

import pytest
from quantgate.config.matrix import Tier
from quantgate.config.tolerances import load_tolerances
from quantgate.measure.groups import parse_options
from quantgate.run.gates import foreseen
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import Need


def foreseen_of(**options: Any) -> tuple[list[str], list[str]]:
    """Of a tier of two cells with this workload, by the shipped tolerances."""
    matrix = load_matrix()
    cells = [matrix.cell(f"smollm2-135m/llamacpp/{scheme}") for scheme in ("Q8_0", "Q4_0")]
    tier = Tier(time_limit=1, cells=[c.id for c in cells], group_options=parse_options(options))
    requests = [*(["accuracy/mean", "accuracy/arc_easy"] if "accuracy" in options else []), "perplexity"]
    needs = [Need(cell, request) for cell in cells for request in requests]
    return foreseen(needs, cells, tier, load_tolerances().for_tier("mine"))


def test_a_tier_says_beforehand_what_its_samples_are_too_few_for() -> None:
    void, narrow = foreseen_of(
        perplexity={"text": "boolq", "n_ctx": 256, "windows": 4},
        accuracy={"tasks": ["arc_easy", "piqa"], "items": 16},
    )
    assert not void
    flips, text = sorted(narrow, key=lambda line: "perplexity" in line)
    assert flips.startswith(
        "smollm2-135m/llamacpp/Q8_0 and 1 more: accuracy/mean/acc: the tolerance of 5 % is below"
    )
    items, windows = (re.findall(r"\((?:items|windows) = (\d+) instead", line)[0] for line in (flips, text))
    again = foreseen_of(
        perplexity={"text": "boolq", "n_ctx": 256, "windows": int(windows)},
        accuracy={"tasks": ["arc_easy", "piqa"], "items": int(items)},
    )
    assert again == ([], []), "so many do"


def test_a_gate_that_would_be_void_is_told_beforehand() -> None:
    void, _ = foreseen_of(accuracy={"tasks": ["arc_easy", "piqa"], "items": 4})
    assert [line.partition(": ")[2].partition(":")[0] for line in void] == ["accuracy/mean/acc"]
    assert "items = " in void[0]


@pytest.mark.parametrize("tier", ["smoke", "nightly"])
def test_the_shipped_tiers_have_samples_enough(tier: str) -> None:
    matrix = load_matrix()
    cells = matrix.cells(tier)
    requests = ["perplexity", "divergence", "accuracy/mean", "accuracy/piqa"]
    needs = [Need(cell, request) for cell in cells for request in requests]
    assert foreseen(needs, cells, matrix.tier(tier), load_tolerances().for_tier(tier))[0] == []
