"""The proof by faults: the catalogue fits the suite, faults run for real, and misses are reported."""

from __future__ import annotations

import functools
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from quantgate.config.tolerances import load_tolerances
from quantgate.measure.groups import metric_groups
from quantgate.proofs.faults import worker
from quantgate.proofs.faults.catalogue import CATALOGUE, named, of_tier
from quantgate.proofs.faults.outcome import Outcome, by_gate, outcome, red
from quantgate.proofs.faults.registry import Fault
from quantgate.records import Status, Verdict
from quantgate.run.gates import possible
from quantgate.run.inputs import load_matrix

from selftest.forked import start
from selftest.project import Project
from selftest.tiny import TinyModel

MODEL = "smollm2-135m"


def prove(project: Project, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Exit status, what was printed, and the rows by fault."""
    report = project.folder / "faults.json"
    options = ("--matrix", "--text", "--baselines", "--results", "--threads")
    words = [word for name in options for word in (name, str(project.options[name]))]
    words += ["--json", str(report), *arguments]
    status, output = start("quantgate.proofs.faults", words, project.folder, project.environment).finish(600)
    rows = json.loads(report.read_bytes()) if report.exists() else []
    return status, output, {row["fault"]: row for row in rows}


def verdict(metric: str, status: Status, **further: Any) -> Verdict:
    return Verdict(cell="tiny/llamacpp/F16", metric=metric, status=status, **further)


def fault(*gates: str, **further: Any) -> Fault:
    return Fault("a-fault", "weights", "something is wrong", "llamacpp/F16", gates, lambda: None, **further)


# --- the catalogue --------------------------------------------------------------------------------


matrix = functools.cache(load_matrix)
"""The one of fixtures/."""


@functools.cache
def gated_metrics(cell: str, tier: str) -> set[str]:
    """Names of all metrics of a cell that have a gate, by what their groups declare."""
    declared = possible(matrix().tier(tier).group_options)
    names = {*declared, *(f"{name}/reproduction" for name in declared)}
    tolerances = load_tolerances().for_tier(tier, matrix().roundings())
    return {
        name
        for name in names
        if tolerances.of(name, cell, against=True) or tolerances.of_expected(name, cell)
    }


def test_the_catalogue_covers_every_backend() -> None:
    backends = [fault.cell.partition("/")[0] for fault in CATALOGUE.values()]
    assert all(backends.count(one) >= 5 for one in ("transformers", "bitsandbytes", "llamacpp"))


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_fault_names_cells_groups_and_gates_that_exist(name: str) -> None:
    fault = CATALOGUE[name]
    cell, tier = f"{MODEL}/{fault.cell}", fault.tier or "smoke"
    assert cell in [c.id for c in matrix().cells(tier)]
    assert set(fault.groups) <= set(metric_groups())
    assert fault.gates
    for gate in fault.gates:
        there = any(fnmatchcase(metric, gate) for metric in gated_metrics(cell, tier))
        assert there != bool(fault.no_gate), gate


def test_descriptions_tell_the_faults_apart() -> None:
    assert len({fault.text for fault in CATALOGUE.values()}) == len(CATALOGUE)


def test_a_tier_has_its_own_faults_or_those_of_no_tier() -> None:
    assert {fault.kind for fault in of_tier("generation")} == {"writing"}
    assert len(of_tier("generation")) == 8
    assert of_tier("smoke") == of_tier("nightly")
    assert not [fault for fault in of_tier("smoke") if fault.tier]


def test_an_unknown_fault_ends_with_the_names_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.main(["layer-scaledd", "job.json"]) == 4
    message = capsys.readouterr().err
    assert message.startswith("no fault 'layer-scaledd'. Did you mean 'layer-scaled'? Allowed: ")
    assert named("layer-scaled").cell == "transformers/fp32"


# --- outcomes -------------------------------------------------------------------------------------


def test_the_fault_of_a_model_in_fp32_quantizes_nothing(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantgate.backends.runtime.bitsandbytes import BitsAndBytes

    monkeypatch.setattr(BitsAndBytes, "quantization", BitsAndBytes.quantization)  # put back afterwards
    named("loaded-in-fp32").apply()
    options = {"bits": 8, "dtype": "float32", "device": "cpu", "load_in_8bit": True}
    assert BitsAndBytes(tiny.safetensors, options, 1).weights().quantized_share == 0


def test_a_fault_is_caught_when_each_of_its_gates_is_red() -> None:
    both = [verdict("perplexity", Status.REGRESSION), verdict("memory/peak_resident", Status.REGRESSION)]
    assert outcome(fault("perplexity", "memory/*"), both) == Outcome.CAUGHT
    assert outcome(fault("perplexity", "memory/*"), both[:1]) == Outcome.ELSEWHERE
    assert outcome(fault("perplexity"), both[1:]) == Outcome.ELSEWHERE


def test_an_absolute_gate_catches_a_fault_and_is_no_failure_of_it() -> None:
    beyond = verdict("decoding/kl_mean", Status.ERROR, measured=0.5)
    assert outcome(fault("decoding/kl_mean"), [beyond]) == Outcome.CAUGHT
    assert outcome(fault("decoding/kl_mean"), [verdict("decoding", Status.ERROR)]) == Outcome.BROKEN


def test_what_does_not_repeat_itself_is_seen_in_a_line_and_by_no_gate() -> None:
    noisy = fault("perplexity/reproduction", line=True)
    unequal = verdict("perplexity/reproduction", Status.PASS, unequal=True)
    assert outcome(noisy, [unequal]) == Outcome.REPORTED
    assert outcome(noisy, [verdict("perplexity/reproduction", Status.PASS)]) == Outcome.MISSED
    assert outcome(noisy, [unequal, verdict("perplexity", Status.REGRESSION)]) == Outcome.ELSEWHERE


@pytest.mark.parametrize("status", [Status.PASS, Status.IMPROVEMENT, Status.INCONCLUSIVE, Status.NO_BASELINE])
def test_what_does_not_fail_a_case_does_not_catch_a_fault(status: Status) -> None:
    assert outcome(fault("perplexity"), [verdict("perplexity", status)]) == Outcome.MISSED
    assert outcome(None, [verdict("perplexity", status)]) == Outcome.CLEAN


def test_another_machine_catches_no_fault() -> None:
    elsewhere = verdict("memory/peak_resident", Status.NOT_COMPARABLE, by_machine=True)
    assert red([elsewhere]) == []
    here = verdict("memory/peak_resident", Status.NOT_COMPARABLE)
    assert red([elsewhere, here]) == [here]


def test_anything_red_without_a_fault_is_a_false_alarm() -> None:
    assert outcome(None, [verdict("perplexity", Status.REGRESSION)]) == Outcome.FALSE_ALARM


def test_an_error_catches_only_the_fault_that_causes_it() -> None:
    error = verdict("perplexity", Status.ERROR, text="the model's logits are not finite (first at token 3)")
    assert outcome(fault("perplexity", ends="not finite"), [error]) == Outcome.CAUGHT
    assert outcome(fault("perplexity"), [error]) == Outcome.BROKEN
    other = verdict("memory", Status.ERROR, text="AttributeError: no such layer")
    assert outcome(fault("perplexity", ends="not finite"), [error, other]) == Outcome.BROKEN


def test_tasks_share_one_line_with_the_largest_change() -> None:
    verdicts = [
        verdict(
            f"accuracy/{task}/margin", Status.REGRESSION, change=change, change_unit="absolute", unit="nats"
        )
        for task, change in (("piqa", -0.2), ("arc_easy", -0.5))
    ]
    assert by_gate(verdicts) == ["accuracy/*/margin -0.5 nats (2 tasks)"]
    assert by_gate(verdicts[:1]) == ["accuracy/piqa/margin -0.2 nats"]


# --- for real -------------------------------------------------------------------------------------


def test_faults_turn_their_gates_red_and_one_that_no_gate_sees_fails_the_proof(baselined: Project) -> None:
    """The base that `rope-base-10000` sets is the one that the tiny model has."""
    names = ("logits-overflow", "last-window-dropped", "one-character", "tokenizer-normalizes")
    markdown, chosen = baselined.folder / "faults.md", "|".join((*names, "rope-base-10000"))
    status, output, rows = prove(baselined, "-k", chosen, "--markdown", str(markdown))
    assert status == 1, output
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "none on llamacpp/Q4_K_M": "clean",
        **dict.fromkeys(names, "caught"),
        "rope-base-10000": "missed",
    }
    statuses = {
        name: {v["metric"]: v["status"] for v in row["verdicts"] if v["status"] != "pass"}
        for name, row in rows.items()
    }
    assert statuses["one-character"]["perplexity/reproduction"] == "changed"
    assert statuses["last-window-dropped"]["perplexity"] == "not comparable"
    assert statuses["tokenizer-normalizes"] == {"tokenizer/mismatches": "regression"}
    assert statuses["logits-overflow"] == {"perplexity": "error"}
    assert "5 faults: 4 caught, 1 missed; 1 control: 1 clean" in output
    head, table, summary = markdown.read_text().split("\n\n")
    assert head.startswith("Generated by `python -m quantgate.proofs.faults --matrix ")
    assert "\nMachine: " in head
    assert len(table.splitlines()) == 2 + len(rows)
    assert summary.startswith("5 faults: 4 caught, 1 missed; 1 control: 1 clean; ")


@pytest.mark.slow
def test_what_varies_is_compared_with_clean_processes_in_alternation(project: Project) -> None:
    project.matrix["tiers"]["smoke"]["memory"]["processes"] = 1
    project.write()
    status, output, rows = prove(project, "-k", "buffer-kept", "--pairs", "2")
    assert status == 0, output
    control, row = rows["none on llamacpp/Q4_K_M, beside clean"], rows["buffer-kept"]
    assert (control["outcome"], row["outcome"]) == ("clean", "caught")
    peaks = [v for v in row["verdicts"] if v["metric"].startswith("memory/peak_")]
    kept = {v["metric"]: v["measured"] - v["baseline"] for v in peaks}
    # The peak of loading is over before the buffer is there.
    assert kept.pop("memory/peak_load_anonymous") < 72e6
    assert set(kept) == {f"memory/peak_{p}" for p in ("prefill_anonymous", "decode_anonymous", "resident")}
    assert all(60e6 < size < 72e6 for size in kept.values()), kept


def test_a_cache_that_forgets_in_generation_only_is_caught(project: Project) -> None:
    """Perplexity and accuracy never decode token by token."""
    smoke = project.matrix["tiers"]["smoke"]
    smoke["decoding"] = {"text": "boolq", "context": 300, "tokens": 40}
    smoke["cells"] = ["tiny/llamacpp/Q4_K_M"]
    assert project.update("-m", "decoding").status == 0
    status, output, rows = prove(
        project, "-k", "generation-drops-oldest|lost-cache-entry|logits-scaled|^memory slow-leak llamacpp"
    )
    assert status == 0, output
    assert len(rows) == 5
    for name in ("lost-cache-entry", "logits-scaled-after-long-prompt", "slow-leak"):
        assert rows[name]["outcome"] == "caught", rows[name]["red"]
    assert rows["lost-cache-entry"]["upgraded"]
    assert rows["none on llamacpp/Q4_K_M"]["upgraded"] == []
    assert rows["none on llamacpp/Q4_K_M"]["outcome"] == "clean"
    (verdict,) = (v for v in rows["generation-drops-oldest"]["verdicts"] if v["metric"] == "decoding/kl_mean")
    assert (verdict["status"], rows["generation-drops-oldest"]["outcome"]) == ("regression", "caught")
    assert abs(verdict["baseline"]) < 1e-3 < verdict["measured"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-k", "nothing-like-this"), "-k nothing-like-this: no fault matches; --list shows them all"),
        (("-k", "("), "-k (: is not a regular expression"),
        (("-k", "layer-scaled"), "tier smoke has no cell tiny/transformers/fp32"),
        (("-k", "norm-gains-lost"), "tiny/llamacpp/Q4_K_M has no baseline in "),
        (("-k", "gold-labels-changed"), "tier smoke measures none of accuracy"),
        (("-k", "buffer-kept", "--pairs", "1"), "--pairs 1: must be 2 or more"),
        (("--tier", "smok"), "Did you mean 'smoke'?"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_is_measured(
    project: Project, arguments: tuple[str, ...], message: str
) -> None:
    project.write()
    status, output, rows = prove(project, *arguments)
    assert (status, rows) == (4, {})
    assert message in output
    assert not project.results.exists()


def test_the_list_measures_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    done = start("quantgate.proofs.faults", ["--list", "-k", "rope-base-10000"], tmp_path, environment)
    _, output = done.finish(600)
    assert output == "rope-base-10000: RoPE base 10,000 for 100,000 (llamacpp/Q4_K_M): perplexity\n"
