"""A tolerances file: which entry counts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.errors import InputError
from quantgate.records import Rounding

from selftest.config.tolerance_file import Q4, gate, load_text, one_entry, reproduction_gate


def refusal(folder: Path, text: str) -> str:
    """The message, which begins with the file's name."""
    with pytest.raises(InputError) as caught:
        load_text(folder, text)
    prefix = f"{folder / 'tolerances.toml'}: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


LAYERS = """
run_alpha = 0.01
[[tolerance]]
metric = "accuracy/*"
absolute = 0.05
[[tolerance]]
metric = "perplexity"
relative = 0.01
[[tolerance]]
metric = "perplexity"
cell = "*/llamacpp/Q2_*"
relative = 0.03
reason = "two bits"
[[tolerance]]
metric = "perplexity"
cell = "gemma/*"
relative = 0.02
reason = "short windows"
"""


@pytest.mark.parametrize(
    ("metric", "cell", "limit"),
    [
        ("perplexity", Q4, 0.01),
        ("perplexity", "smollm2-135m/llamacpp/Q2_K", 0.03),
        ("perplexity", "gemma/llamacpp/F16", 0.02),
        ("perplexity", "gemma/llamacpp/Q2_K", 0.02),  # two exceptions match: the last one counts
        ("accuracy/piqa/acc_norm", Q4, 0.05),
    ],
)
def test_the_last_entry_that_matches_counts(tmp_path: Path, metric: str, cell: str, limit: float) -> None:
    entry = gate(load_text(tmp_path, LAYERS), metric, cell)
    assert limit in (entry.relative, entry.absolute)


def test_an_entry_below_overrides_an_exception_above(tmp_path: Path) -> None:
    again = '[[tolerance]]\nmetric = "perpl*"\nrelative = 0.5\n'
    assert gate(load_text(tmp_path, LAYERS + again), "perplexity", "gemma/llamacpp/Q2_K").relative == 0.5


@pytest.mark.parametrize(
    "metric", ["memory/peak_resident", "perplexity/bits_per_byte", "Perplexity", "accuracy"]
)
def test_a_metric_without_an_entry_is_not_gated(tmp_path: Path, metric: str) -> None:
    assert load_text(tmp_path, LAYERS).of(metric, Q4) is None


def test_a_pattern_for_a_metric_is_none_for_its_reproduction(tmp_path: Path) -> None:
    wide = '[[tolerance]]\nmetric = "perplexity*"\nabsolute = 0.5\n'
    narrow = '[[tolerance]]\nmetric = "*/reproduction"\nabsolute = 0.002\nhere = 0.0\n'
    assert load_text(tmp_path, LAYERS + wide).of_reproduction("perplexity", Q4) is None
    both = load_text(tmp_path, LAYERS + narrow + wide)
    assert reproduction_gate(both, "perplexity").absolute == 0.002


def test_an_entry_for_a_tier_counts_there_and_nowhere_else(tmp_path: Path) -> None:
    more = '[[tolerance]]\nmetric = "perplexity"\ntier = "smoke"\nrelative = 0.5\n'
    tolerances = load_text(tmp_path, LAYERS + more)
    limits = [gate(tolerances.for_tier(tier), "perplexity").relative for tier in ("smoke", "nightly")]
    assert limits == [0.5, 0.01]


def test_an_entry_for_a_rounding_counts_for_the_schemes_that_round_so(tmp_path: Path) -> None:
    """By what a scheme says of itself, whatever it is called."""
    more = '[[tolerance]]\nmetric = "perplexity"\nrounding = "weights"\nrelative = 0.5\n'
    roundings: dict[str, Rounding] = {"m/bitsandbytes/nf3": "weights", "m/kbit/int8-b64": "none"}
    tolerances = load_text(tmp_path, LAYERS + more).for_tier("smoke", roundings)
    cells = ("m/bitsandbytes/nf3", "m/kbit/int8-b64", "m/bitsandbytes/nf4")
    limits = [gate(tolerances, "perplexity", cell).relative for cell in cells]
    assert limits == [0.5, 0.01, 0.01]


def test_the_level_is_read(tmp_path: Path) -> None:
    assert load_text(tmp_path, LAYERS).run_alpha == 0.01


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            'metric = "p"\nrelative = 0.1\ncell = "*/llamacpp/*"',
            "tolerance (entry 1): an exception for a cell needs a reason",
        ),
        (
            'metric = "p"\nrelative = 0.1\nabsolute = 0.1',
            "tolerance (entry 1): give exactly one of relative, absolute",
        ),
        (
            'metric = "p/reproduction"\nrelative = 0.1',
            "tolerance (entry 1): reproduction is judged in nats: give absolute and here",
        ),
        ('metric = "p"', "tolerance (entry 1): give exactly one of relative, absolute"),
        (
            'metric = "p"\nrelativ = 0.1',
            "tolerance (entry 1).relativ: unknown key. Did you mean 'relative'? "
            "Allowed: absolute, against, cell, elsewhere, expected, floor, here, metric, noise, reason, relative, "
            "rounding, tier",
        ),
        ("relative = 0.1", "tolerance (entry 1).metric: is missing; add it"),
        (
            'metric = "p"\nrelative = -0.1',
            "tolerance (entry 1).relative: must be 0 or more, not -0.1",
        ),
        ('metric = "p"\nrelative = inf', "tolerance (entry 1).relative: must be a finite number, not inf"),
        (
            'metric = "p"\nrelative = 0.1\nnoise = 0.0',
            "tolerance (entry 1).noise: must be more than 0, not 0.0",
        ),
        (
            'metric = "p"\nrelative = 0.1\nhere = 0.25',
            "tolerance (entry 1): here, for the baseline's own environment, is wider than the tolerance for any other",
        ),
        (
            'metric = "p"\nexpected = 0.0\nabsolute = 0.1\nelsewhere = 0.2',
            "tolerance (entry 1): expected needs no baseline: leave out here, elsewhere, noise, floor and against",
        ),
        (
            'metric = "p"\nrelative = 0.1\nfloor = -1',
            "tolerance (entry 1).floor: must be 0 or more, not -1",
        ),
    ],
)
def test_a_wrong_entry_is_refused_by_file_and_key(tmp_path: Path, keys: str, message: str) -> None:
    assert message in refusal(tmp_path, one_entry(keys))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[tolerance]]\nmetric = "p"\nrelative = 0.1', "run_alpha: is missing; add it"),
        ("run_alpha = 0.5\ntolerance = []", "run_alpha: must be less than 0.5, not 0.5"),
        ("run_alpha = 0\ntolerance = []", "run_alpha: must be more than 0, not 0"),
        ("run_alpha = 0.1", "tolerance: is missing; add it"),
        (
            "run_alpha = 0.1\ntolerence = []",
            "tolerence: unknown key. Did you mean 'tolerance'? Allowed: run_alpha, tolerance",
        ),
        ("run_alpha = ", "is not valid TOML: "),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text)


def test_an_exception_with_a_reason_is_taken(tmp_path: Path) -> None:
    keys = 'metric = "p"\nrelative = 0.1\ncell = "*/llamacpp/*"\nreason = "measured on 2026-07-01"'
    assert load_text(tmp_path, one_entry(keys)).tolerance[0].reason == "measured on 2026-07-01"


def test_a_reproduction_of_ab_runs_is_judged_so_in_them_alone(tmp_path: Path) -> None:
    entry = '[[tolerance]]\nmetric = "perplexity/reproduction"\nabsolute = {}\nhere = 0.0\n'
    tolerances = load_text(tmp_path, LAYERS + entry.format(0.001) + entry.format(9.0) + "against = true\n")
    chosen = [tolerances.of_reproduction("perplexity", Q4, against=against) for against in (False, True)]
    assert [one.absolute for one in chosen if one] == [0.001, 9.0]


def test_an_entry_for_ab_runs_counts_in_them_alone(tmp_path: Path) -> None:
    narrow = '[[tolerance]]\nmetric = "perplexity"\nrelative = 0.001\nagainst = true\n'
    tolerances = load_text(tmp_path, LAYERS + narrow)
    limits = [gate(tolerances, "perplexity", against=against).relative for against in (False, True)]
    assert limits == [0.01, 0.001]
    other = gate(tolerances, "accuracy/piqa/acc", against=True)
    assert other == gate(tolerances, "accuracy/piqa/acc"), (
        "without an entry for A/B runs, the other one counts"
    )
