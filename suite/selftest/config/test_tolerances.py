"""tolerances.toml: which entry counts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from quantgate.baselines.store import read
from quantgate.config.matrix import Matrix
from quantgate.config.tolerances import TOLERANCES, load_tolerances
from quantgate.errors import InputError
from quantgate.judge.sensitivity import NOISY
from quantgate.run.gates import check_tolerances, most_gates, possible
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import Need

from selftest.conftest import REPO, Accepted

if TYPE_CHECKING:
    from quantgate.config.tolerances import Tolerances
    from quantgate.records import Rounding

Q4 = "smollm2-135m/llamacpp/Q4_K_M"
TWO = ("accuracy/", "throughput/")
"""Groups whose cases are of one task or one timing each."""


def loaded(folder: Path, text: str) -> Tolerances:
    file = folder / "tolerances.toml"
    file.write_text(text)
    return load_tolerances(file)


def refusal(folder: Path, text: str) -> str:
    """The message, which begins with the file's name."""
    with pytest.raises(InputError) as caught:
        loaded(folder, text)
    prefix = f"{folder / 'tolerances.toml'}: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


def entry(keys: str) -> str:
    return f"run_alpha = 0.001\n[[tolerance]]\n{keys}\n"


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
    found = loaded(tmp_path, LAYERS).of(metric, cell)
    assert found is not None
    assert limit in (found.relative, found.absolute)


def test_an_entry_below_overrides_an_exception_above(tmp_path: Path) -> None:
    again = '[[tolerance]]\nmetric = "perpl*"\nrelative = 0.5\n'
    found = loaded(tmp_path, LAYERS + again).of("perplexity", "gemma/llamacpp/Q2_K")
    assert found is not None
    assert found.relative == 0.5


@pytest.mark.parametrize(
    "metric", ["memory/peak_resident", "perplexity/bits_per_byte", "Perplexity", "accuracy"]
)
def test_a_metric_without_an_entry_is_not_gated(tmp_path: Path, metric: str) -> None:
    assert loaded(tmp_path, LAYERS).of(metric, Q4) is None


def test_a_pattern_for_a_metric_is_none_for_its_reproduction(tmp_path: Path) -> None:
    wide = '[[tolerance]]\nmetric = "perplexity*"\nabsolute = 0.5\n'
    own = '[[tolerance]]\nmetric = "*/reproduction"\nabsolute = 0.002\nhere = 0.0\n'
    assert loaded(tmp_path, LAYERS + wide).of_reproduction("perplexity", Q4) is None
    found = loaded(tmp_path, LAYERS + own + wide).of_reproduction("perplexity", Q4)
    assert found is not None
    assert found.absolute == 0.002


def test_an_entry_for_a_tier_counts_there_and_nowhere_else(tmp_path: Path) -> None:
    more = '[[tolerance]]\nmetric = "perplexity"\ntier = "smoke"\nrelative = 0.5\n'
    tolerances = loaded(tmp_path, LAYERS + more)
    limits = []
    for tier in ("smoke", "nightly"):
        found = tolerances.for_tier(tier).of("perplexity", Q4)
        assert found is not None
        limits.append(found.relative)
    assert limits == [0.5, 0.01]


def test_an_entry_for_a_rounding_counts_for_the_schemes_that_round_so(tmp_path: Path) -> None:
    """By what a scheme says of itself, whatever it is called."""
    more = '[[tolerance]]\nmetric = "perplexity"\nrounding = "weights"\nrelative = 0.5\n'
    roundings: dict[str, Rounding] = {"m/bitsandbytes/nf3": "weights", "m/kbit/int8-b64": "none"}
    found = loaded(tmp_path, LAYERS + more).for_tier("smoke", roundings)
    limits = []
    for cell in ("m/bitsandbytes/nf3", "m/kbit/int8-b64", "m/bitsandbytes/nf4"):
        limit = found.of("perplexity", cell)
        assert limit is not None
        limits.append(limit.relative)
    assert limits == [0.5, 0.01, 0.01]


def test_the_shipped_tolerances_follow_what_a_scheme_rounds() -> None:
    tolerances = load_tolerances().for_tier("smoke", load_matrix().roundings())
    limits = {}
    for scheme in ("transformers/fp32", "llamacpp/F16", "bitsandbytes/nf4", "bitsandbytes/int8"):
        found = tolerances.of_reproduction("perplexity", f"smollm2-135m/{scheme}")
        assert found is not None
        limits[scheme] = (found.absolute, found.here)
    assert limits == {
        "transformers/fp32": (1e-6, 1e-6),
        "llamacpp/F16": (5e-4, 2e-5),
        "bitsandbytes/nf4": (0.0048, 2e-5),
        "bitsandbytes/int8": (0.019, 2e-5),
    }
    unstated = tolerances.of_reproduction("perplexity", "mine/transformers/of-my-own")
    assert unstated is not None
    assert unstated.absolute == 0.019, "a scheme that does not say is held to the widest"


def test_the_level_is_read(tmp_path: Path) -> None:
    assert loaded(tmp_path, LAYERS).run_alpha == 0.01


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            'metric = "p"\nrelative = 0.1\ncell = "*/llamacpp/*"',
            "tolerance.0: Value error, an exception for a cell needs a reason",
        ),
        (
            'metric = "p"\nrelative = 0.1\nabsolute = 0.1',
            "tolerance.0: Value error, give exactly one of relative, absolute",
        ),
        (
            'metric = "p/reproduction"\nrelative = 0.1',
            "tolerance.0: Value error, reproduction is judged in nats: give absolute and here",
        ),
        ('metric = "p"', "tolerance.0: Value error, give exactly one of relative, absolute"),
        (
            'metric = "p"\nrelativ = 0.1',
            "tolerance.0.relativ: unknown key. Did you mean 'relative'? "
            "Allowed: absolute, against, cell, elsewhere, expected, floor, here, metric, noise, reason, relative, "
            "rounding, tier",
        ),
        ("relative = 0.1", "tolerance.0.metric: is missing; add it"),
        (
            'metric = "p"\nrelative = -0.1',
            "tolerance.0.relative: Input should be greater than or equal to 0 (got -0.1)",
        ),
        ('metric = "p"\nrelative = inf', "tolerance.0.relative: Input should be a finite number (got inf)"),
        (
            'metric = "p"\nrelative = 0.1\nnoise = 0.0',
            "tolerance.0.noise: Input should be greater than 0 (got 0.0)",
        ),
        (
            'metric = "p"\nrelative = 0.1\nfloor = -1',
            "tolerance.0.floor: Input should be greater than or equal to 0",
        ),
    ],
)
def test_a_wrong_entry_is_refused_by_file_and_key(tmp_path: Path, keys: str, message: str) -> None:
    assert message in refusal(tmp_path, entry(keys))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[tolerance]]\nmetric = "p"\nrelative = 0.1', "run_alpha: is missing; add it"),
        ("run_alpha = 0.5\ntolerance = []", "run_alpha: Input should be less than 0.5 (got 0.5)"),
        ("run_alpha = 0\ntolerance = []", "run_alpha: Input should be greater than 0 (got 0)"),
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
    assert loaded(tmp_path, entry(keys)).tolerance[0].reason == "measured on 2026-07-01"


def test_an_entry_for_ab_runs_counts_in_them_alone(tmp_path: Path) -> None:
    narrow = '[[tolerance]]\nmetric = "perplexity"\nrelative = 0.001\nagainst = true\n'
    found = loaded(tmp_path, LAYERS + narrow)
    stored, beside = found.of("perplexity", Q4), found.of("perplexity", Q4, against=True)
    assert stored is not None
    assert beside is not None
    assert (stored.relative, beside.relative) == (0.01, 0.001)
    other = found.of("accuracy/piqa/acc", Q4, against=True)
    assert other == found.of("accuracy/piqa/acc", Q4), "without an entry of its own, the other one counts"


# --- the file that is shipped ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "metric",
    [
        "perplexity",
        "perplexity/reproduction",
        "accuracy/hellaswag/margin",
        "accuracy/hellaswag/margin/reproduction",
        "accuracy/mean/acc",
        "memory/weight_bytes",
        "memory/bits_per_weight",
        "memory/peak_resident",
        "memory/peak_load_anonymous",
        "tokenizer/mismatches",
        "throughput/prefill",
        "throughput/decode",
        "throughput/time_to_first_token",
        "throughput/prefill_ratio",
        "throughput/decode_ratio",
    ],
)
def test_the_shipped_file_gates_every_metric_of_the_issue(metric: str) -> None:
    assert load_tolerances().of(metric, Q4) is not None


def test_the_shipped_file_allows_no_change_of_what_does_not_vary() -> None:
    for metric in ("memory/weight_bytes", "memory/bits_per_weight", "tokenizer/mismatches"):
        found = load_tolerances().of(metric, Q4)
        assert found is not None
        assert (found.relative or found.absolute or 0.0) == 0.0


def test_the_shipped_file_asks_more_of_timings_side_by_side() -> None:
    for metric in ("prefill", "decode", "time_to_first_token"):
        stored, beside = (load_tolerances().of(f"throughput/{metric}", Q4, against=a) for a in (False, True))
        assert stored is not None
        assert beside is not None
        assert (beside.relative or 0) <= (stored.relative or 0) / 2


def test_the_shipped_perplexity_gate_is_not_loosened_by_a_broken_candidate() -> None:
    found = load_tolerances().of("perplexity", Q4)
    assert found is not None
    assert found.noise is not None


def test_every_shipped_entry_can_match_in_the_shipped_matrix() -> None:
    """A tolerance for what nothing is called gates nothing."""
    check_tolerances(TOLERANCES, load_tolerances(), load_matrix())


def test_the_shipped_file_goes_with_every_matrix(own: Matrix) -> None:
    """Its entries for cells and tiers that a user does not have are for others; a copy of it may be extended."""
    check_tolerances(TOLERANCES, load_tolerances(), own)
    check_tolerances(Path("copy.toml"), load_tolerances(), own)


@pytest.fixture
def own(tmp_path: Path) -> Matrix:
    file = tmp_path / "matrix.toml"
    file.write_text(
        '[models.mine]\nlicense = "MIT"\ngguf = { path = "mine.gguf" }\n'
        '[tiers.quick]\ntime_limit = 60\ncells = ["mine/llamacpp/F16"]\n'
        '[tiers.quick.perplexity]\ntext = "boolq"\n'
        '[tiers.long]\nextends = "quick"\ncells = ["mine/llamacpp/Q4_0"]\n'
        '[tiers.long.accuracy]\ntasks = ["arc_easy"]\n'
    )
    return load_matrix(file)


@pytest.mark.parametrize(
    ("keys", "said"),
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
            r"tier = 'lnog' is no tier of .*matrix.toml \(did you mean 'long'\?\)",
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
        ('metric = "speed"\nrelative = 0.1', r"\(its metrics: .*perplexity/loss.* and \d+ more\)"),
    ],
)
def test_an_entry_that_can_match_nothing_is_refused_with_the_nearest_name(
    tmp_path: Path, own: Matrix, keys: str, said: str
) -> None:
    path = tmp_path / "tolerances.toml"
    found = loaded(tmp_path, entry(keys))
    with pytest.raises(InputError, match=said) as caught:
        check_tolerances(path, found, own)
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
def test_an_entry_that_can_match_is_taken(tmp_path: Path, own: Matrix, keys: str) -> None:
    check_tolerances(tmp_path / "tolerances.toml", loaded(tmp_path, entry(keys)), own)


def test_every_wrong_entry_is_told(tmp_path: Path, own: Matrix) -> None:
    text = entry('metric = "perplexity"\nrelative = 0.1')
    text += "".join(f'[[tolerance]]\nmetric = "{name}"\nrelative = 0.1\n' for name in ("one", "two"))
    with pytest.raises(InputError, match=r"(?s)entry 2 \(metric = 'one'.*\n.*entry 3 \(metric = 'two'"):
        check_tolerances(tmp_path / "tolerances.toml", loaded(tmp_path, text), own)


@pytest.mark.parametrize("tier", ["smoke", "nightly", "papers-outliers"])
def test_every_group_declares_what_it_gives(tier: str) -> None:
    """Of the committed baselines: name, kind and link of each metric."""
    matrix = load_matrix()
    declared = possible(matrix.tier(tier).group_options)
    for cell in matrix.cells(tier):
        baseline = read(REPO / "baselines", cell.id, tier)
        for name, metric in baseline.metrics.items() if baseline else ():
            if name == "throughput/load_ratio":
                continue  # measured once, and no longer
            assert name in declared, name
            assert (metric.kind, metric.link) == declared[name][:2], name


def test_every_metric_of_a_run_is_declared(accepted: Accepted) -> None:
    """Those that are in no committed baseline yet as well."""
    project = accepted.project
    declared = possible(load_matrix(project.matrix_file).tier("smoke").group_options)
    names = {v.metric.removesuffix("/reproduction") for v in accepted.result.verdicts}
    assert names >= {"perplexity", "memory/weight_bytes", "tokenizer/mismatches"}
    assert names <= declared.keys()


@pytest.mark.parametrize("tier", ["smoke", "nightly"])
def test_no_case_of_an_ab_run_has_more_gates_than_its_level_is_divided_by(tier: str) -> None:
    """Of the committed baselines; absolute timings, which these have not, by name."""
    matrix, tolerances = load_matrix(), load_tolerances().for_tier(tier)
    timings = ["throughput/prefill", "throughput/decode", "throughput/decode/generate", "throughput/load"]
    for cell in matrix.cells(tier):
        if (baseline := read(REPO / "baselines", cell.id, tier)) is None:
            continue  # of the model that is opted in to
        noisy = [*timings, *(n for n, m in baseline.metrics.items() if m.kind in NOISY and not m.relative)]
        gated = [n for n in noisy if tolerances.of(n, cell.id, against=True)]
        for request in {"/".join(n.split("/")[:2]) if n.startswith(TWO) else n.split("/")[0] for n in gated}:
            need = Need(cell, request)
            most = most_gates(need, possible(matrix.tier(tier).group_options, relatives=False), tolerances)
            assert sum(need.covers(n) for n in gated) <= most <= 8, (cell.id, request)


def test_the_gates_of_a_case_are_those_of_the_tolerances_in_force(tmp_path: Path, own: Matrix) -> None:
    options, cell = own.tier("long").group_options, own.cells("long")[0]

    def most(request: str, *metrics: str) -> int:
        lines = "".join(f'[[tolerance]]\nmetric = "{name}"\nrelative = 0.1\n' for name in metrics)
        return most_gates(
            Need(cell, request),
            possible(options, relatives=False),
            loaded(tmp_path, f"run_alpha = 0.01\n{lines}"),
        )

    assert most("perplexity", "perplexity") == 1
    assert most("perplexity", "perplexity", "perplexity/bits_per_byte") == 2
    assert most("accuracy/arc_easy", "accuracy/*/acc", "perplexity") == 1
