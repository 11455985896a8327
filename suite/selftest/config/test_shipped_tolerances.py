"""fixtures/tolerances.toml: what it gates, how much it allows, and that it goes with every matrix."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.baselines.store import read
from quantgate.config.matrix import Matrix
from quantgate.config.tolerances import TOLERANCES, load_tolerances
from quantgate.judge.sensitivity import NOISY
from quantgate.run.gates import check_tolerances, most_gates, possible
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import Need

from selftest.config.tolerance_file import Q4, gate, reproduction_gate
from selftest.project import REPO, Accepted

TWO = ("accuracy/", "throughput/")
"""Groups whose cases are of one task or one timing each."""


def test_the_shipped_tolerances_follow_what_a_scheme_rounds(shipped: Matrix) -> None:
    tolerances = load_tolerances().for_tier("smoke", shipped.roundings())
    limits = {}
    for scheme in ("transformers/fp32", "llamacpp/F16", "bitsandbytes/nf4", "bitsandbytes/int8"):
        entry = reproduction_gate(tolerances, "perplexity", f"smollm2-135m/{scheme}")
        limits[scheme] = (entry.absolute, entry.here)
    assert limits == {
        "transformers/fp32": (1e-6, 1e-6),
        "llamacpp/F16": (5e-4, 2e-5),
        "bitsandbytes/nf4": (0.0048, 2e-5),
        "bitsandbytes/int8": (0.019, 2e-5),
    }
    unstated = reproduction_gate(tolerances, "perplexity", "mine/transformers/unstated")
    assert unstated.absolute == 0.019, "a scheme that does not say is held to the widest"


@pytest.mark.parametrize("group", ["accuracy/mean", "accuracy/arc_easy", "answers/pooled", "answers/gsm8k"])
def test_a_share_of_the_references_is_recorded_alone(group: str) -> None:
    assert load_tolerances().of(f"{group}/recovery", Q4) is None


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
        entry = gate(load_tolerances(), metric)
        assert (entry.relative or entry.absolute or 0.0) == 0.0


def test_the_shipped_file_asks_more_of_timings_side_by_side() -> None:
    for metric in ("prefill", "decode", "time_to_first_token"):
        stored, beside = (gate(load_tolerances(), f"throughput/{metric}", against=a) for a in (False, True))
        assert (beside.relative or 0) <= (stored.relative or 0) / 2


def test_the_shipped_perplexity_gate_is_not_loosened_by_a_broken_candidate() -> None:
    assert gate(load_tolerances(), "perplexity").noise is not None


def test_every_shipped_entry_can_match_in_the_shipped_matrix(shipped: Matrix) -> None:
    """An entry whose metric no tier measures would gate nothing."""
    check_tolerances(TOLERANCES, load_tolerances(), shipped)


def test_the_shipped_file_goes_with_every_matrix(user_matrix: Matrix) -> None:
    """Its entries for cells and tiers that a user does not have are for others; a copy of it may be extended."""
    check_tolerances(TOLERANCES, load_tolerances(), user_matrix)
    check_tolerances(Path("copy.toml"), load_tolerances(), user_matrix)


@pytest.mark.parametrize("tier", ["smoke", "nightly", "papers-outliers"])
def test_every_group_declares_what_it_gives(shipped: Matrix, tier: str) -> None:
    """Of the committed baselines: name, kind and link of each metric."""
    declared = possible(shipped.tier(tier).group_options)
    for cell in shipped.cells(tier):
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
def test_no_case_of_an_ab_run_has_more_gates_than_its_level_is_divided_by(shipped: Matrix, tier: str) -> None:
    """Of the committed baselines; absolute timings, which these have not, by name."""
    tolerances = load_tolerances().for_tier(tier)
    declared = possible(shipped.tier(tier).group_options, relatives=False)
    timings = ["throughput/prefill", "throughput/decode", "throughput/decode/generate", "throughput/load"]
    for cell in shipped.cells(tier):
        if (baseline := read(REPO / "baselines", cell.id, tier)) is None:
            continue  # of the model that is opted in to
        noisy = [*timings, *(n for n, m in baseline.metrics.items() if m.kind in NOISY and not m.relative)]
        gated = [n for n in noisy if tolerances.of(n, cell.id, against=True)]
        for request in {"/".join(n.split("/")[:2]) if n.startswith(TWO) else n.split("/")[0] for n in gated}:
            need = Need(cell, request)
            most = most_gates(need, declared, tolerances)
            assert sum(need.covers(n) for n in gated) <= most <= 8, (cell.id, request)
