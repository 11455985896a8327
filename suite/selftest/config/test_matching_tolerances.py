"""Entries that can match nothing, which are refused, and how many gates entries make of a case."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from quantgate.config.matrix import Matrix
from quantgate.errors import InputError
from quantgate.run.gates import check_tolerances, most_gates, possible
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import Need

from selftest.config.tolerance_file import load_text, one_entry


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            'metric = "perplexty"\nrelative = 0.1',
            r"entry 1 \(metric = 'perplexty'\) gates nothing: no tier of .* measures a metric of this name "
            r"\(did you mean 'perplexity'\?\)",
        ),
        (
            'metric = "perplexity"\nrelative = 0.1\nrounding = "none"',
            r"gates nothing: rounding = 'none': no scheme of these cells has it, in any tier of ",
        ),
        (
            'metric = "perplexty/reproduction"\nabsolute = 0.1\nhere = 0.1',
            r"did you mean 'perplexity/reproduction'\?",
        ),
        ('metric = "accuracy/arc_esy/margin"\nabsolute = 1.0', r"did you mean 'accuracy/arc_easy/margin'\?"),
        (
            'metric = "accuracy/arc_easy/margin"\ntier = "quick"\nabsolute = 1.0',
            "tier 'quick' of .* measures no such metric",
        ),
        (
            'metric = "memory/weight_bytes/reproduction"\nabsolute = 1.0\nhere = 0.0',
            "no tier of .* measures a metric of this name",
        ),
        ('metric = "perplexity/mean/loss"\nrelative = 0.1', r"did you mean 'perplexity/loss'\?"),
        (
            'metric = "perplexity"\ntier = "lnog"\nrelative = 0.1',
            r"tier = 'lnog' is not a tier of .*matrix.toml \(did you mean 'long'\?\)",
        ),
        (
            'metric = "perplexity"\ncell = "mne/llamacpp/F16"\nreason = "x"\nrelative = 0.1',
            r"cell = 'mne/llamacpp/F16' matches no cell of any tier of .* \(did you mean 'mine/llamacpp/F16'\?\)",
        ),
        (
            'metric = "perplexity"\ncell = "*/Q4_0"\ntier = "quick"\nreason = "x"\nrelative = 0.1',
            "matches no cell of tier 'quick'",
        ),
        (
            'metric = "perplexity"\ncell = "smollm2-135m/*"\nreason = "x"\nrelative = 0.1',
            r"matches no cell .*\(its cells: mine/llamacpp/F16, ",
        ),
        (
            'metric = "perplexity/loss"\ncell = "*/F16"\nreason = "x"\nrelative = 0.1',
            r"the cells that it is for \(mine/llamacpp/F16\) have no such metric in any tier of ",
        ),
        (
            'metric = "speed"\nrelative = 0.1',
            r"\(its metrics: perplexity, .*accuracy/arc_easy/acc, .* and \d+ more\)",
        ),
    ],
)
def test_an_entry_that_can_match_nothing_is_refused_with_the_nearest_name(
    tmp_path: Path, user_matrix: Matrix, keys: str, message: str
) -> None:
    path = tmp_path / "tolerances.toml"
    tolerances = load_text(tmp_path, one_entry(keys))
    with pytest.raises(InputError, match=message) as caught:
        check_tolerances(path, tolerances, user_matrix)
    assert str(caught.value).startswith(f"{path}: entry 1 (metric = ")


@pytest.mark.parametrize(
    "keys",
    [
        'metric = "perplexity"\ntier = "long"\ncell = "*/Q4_*"\nreason = "x"\nrelative = 0.1',
        'metric = "perplexity/loss"\nrelative = 0.1',
        'metric = "perplexity*"\nrelative = 0.1',
        'metric = "accuracy/arc_easy/recovery"\nrelative = 0.1',
        'metric = "accuracy/*/margin/reproduction"\nabsolute = 0.1\nhere = 0.0',
    ],
)
def test_an_entry_that_can_match_is_taken(tmp_path: Path, user_matrix: Matrix, keys: str) -> None:
    check_tolerances(tmp_path / "tolerances.toml", load_text(tmp_path, one_entry(keys)), user_matrix)


def test_every_wrong_entry_is_named(tmp_path: Path, user_matrix: Matrix) -> None:
    text = one_entry('metric = "perplexity"\nrelative = 0.1')
    text += "".join(f'[[tolerance]]\nmetric = "{name}"\nrelative = 0.1\n' for name in ("one", "two"))
    with pytest.raises(InputError, match=r"(?s)entry 2 \(metric = 'one'.*\n.*entry 3 \(metric = 'two'"):
        check_tolerances(tmp_path / "tolerances.toml", load_text(tmp_path, text), user_matrix)


def test_what_a_backend_does_not_measure_gates_nothing(tmp_path: Path) -> None:
    """Another cell of the tier has timings."""
    file = tmp_path / "matrix.toml"
    file.write_text(
        '[models.mine]\nlicense = "MIT"\nweights = { path = "mine" }\n'
        '[tiers.quick]\ntime_limit = 60\ncells = ["mine/llamacpp/F16", "mine/llamacpp/Q4_0", "mine/kbit/int4-b64"]\n'
        "[tiers.quick.throughput]\nprompt = 8\ndecode = 8\n"
    )
    text = 'metric = "throughput/decode_ratio"\ncell = "{}"\nreason = "x"\nrelative = 0.1'
    entries = {cell: load_text(tmp_path, one_entry(text.format(cell))) for cell in ("*/Q4_0", "*/kbit/*")}
    path, matrix = tmp_path / "tolerances.toml", load_matrix(file)
    check_tolerances(path, entries["*/Q4_0"], matrix)
    with pytest.raises(InputError, match=r"for \(mine/kbit/int4-b64\) have no such metric"):
        check_tolerances(path, entries["*/kbit/*"], matrix)


@pytest.mark.parametrize("name", ["length", "limit/reproduction", "agreement", "shift/reproduction"])
def test_a_reference_has_what_it_writes_and_nothing_that_is_held_against_it(
    tmp_path: Path, name: str
) -> None:
    file = tmp_path / "matrix.toml"
    file.write_text(
        '[models.mine]\nlicense = "MIT"\nweights = { path = "mine" }\n'
        '[tiers.quick]\ntime_limit = 60\ncells = ["mine/llamacpp/F16", "mine/llamacpp/Q4_0"]\n'
        'generation = { prompts = "everyday", items = 24, tokens = 8 }\n'
    )
    text = f'metric = "generation/{name}"\ncell = "{{}}"\nreason = "x"\nabsolute = 0.1\nhere = 0.0'
    path, matrix = tmp_path / "tolerances.toml", load_matrix(file)
    check_tolerances(path, load_text(tmp_path, one_entry(text.format("*/Q4_0"))), matrix)
    of_reference = load_text(tmp_path, one_entry(text.format("*/F16")))
    is_held = name.startswith(("agreement", "shift"))
    with pytest.raises(InputError, match="no such metric") if is_held else nullcontext():
        check_tolerances(path, of_reference, matrix)


def test_references_alone_have_to_agree(tmp_path: Path) -> None:
    file = tmp_path / "matrix.toml"
    file.write_text(
        '[models.mine]\nlicense = "MIT"\nweights = { path = "mine" }\n'
        '[tiers.quick]\ntime_limit = 60\nperplexity = { text = "boolq" }\n'
        'cells = ["mine/llamacpp/F16", "mine/llamacpp/Q4_0", "mine/transformers/fp32"]\n'
    )
    text = 'metric = "agreement/references"\ncell = "{}"\nreason = "x"\nexpected = 0.0\nabsolute = 0.05'
    path, matrix = tmp_path / "tolerances.toml", load_matrix(file)
    for cell in ("mine/llamacpp/F16", "mine/transformers/fp32"):
        check_tolerances(path, load_text(tmp_path, one_entry(text.format(cell))), matrix)
    with pytest.raises(InputError, match=r"for \(mine/llamacpp/Q4_0\) have no such metric"):
        check_tolerances(path, load_text(tmp_path, one_entry(text.format("*/Q4_0"))), matrix)


NARROW = 'metric = "perplexity"\ncell = "*/Q4_0"\nreason = "x"\nrelative = 0.01'


@pytest.mark.parametrize(
    ("later", "counts"),
    [
        ('metric = "perplexity*"\nrelative = 0.5', False),
        ('metric = "perplexity"\ntier = "long"\nrelative = 0.5', False),
        ('metric = "perplexity"\ntier = "quick"\nrelative = 0.5', True),
        ('metric = "perplexity"\nagainst = true\nrelative = 0.5', True),
        ('metric = "perplexity"\nexpected = 2.0\nabsolute = 0.5', True),
    ],
)
def test_an_entry_that_later_ones_replace_everywhere_is_refused(
    tmp_path: Path, user_matrix: Matrix, later: str, counts: bool
) -> None:
    path = tmp_path / "tolerances.toml"
    tolerances = load_text(tmp_path, f"{one_entry(NARROW)}[[tolerance]]\n{later}\n")
    message = (
        r"entry 1 .* gates nothing: .* \(for perplexity of mine/llamacpp/Q4_0, metric = 'perplexity\*?' is\)"
    )
    with nullcontext() if counts else pytest.raises(InputError, match=message):
        check_tolerances(path, tolerances, user_matrix)


def test_the_gates_of_a_case_are_those_of_the_tolerances_in_force(
    tmp_path: Path, user_matrix: Matrix
) -> None:
    options, cell = user_matrix.tier("long").group_options, user_matrix.cells("long")[0]

    def most(request: str, *metrics: str) -> int:
        lines = "".join(f'[[tolerance]]\nmetric = "{name}"\nrelative = 0.1\n' for name in metrics)
        return most_gates(
            Need(cell, request),
            possible(options, relatives=False),
            load_text(tmp_path, f"run_alpha = 0.01\n{lines}"),
        )

    assert most("perplexity", "perplexity") == 1
    assert most("perplexity", "perplexity", "perplexity/bits_per_byte") == 2
    assert most("accuracy/arc_easy", "accuracy/*/acc", "perplexity") == 1
