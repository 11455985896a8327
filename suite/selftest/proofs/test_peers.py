"""The comparison with other tools: bounds, rows and table, configuration, command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from quantgate.config.toml_input import read_toml
from quantgate.errors import InputError, MeasurementError
from quantgate.proofs.checks import Check, Outcome, Row, lines, number
from quantgate.proofs.command import choose
from quantgate.proofs.peers import __main__ as command_line
from quantgate.proofs.peers.bed import Bed, Pairs, one_after_the_other
from quantgate.proofs.peers.catalogue import Entry, catalogue
from quantgate.proofs.peers.config import load_config
from quantgate.proofs.peers.outcome import (
    LAYOUT,
    agreement,
    gain,
    largest_difference,
    other_predictions,
    paired,
    share,
)
from quantgate.proofs.table import to_json
from quantgate.run.inputs import load_matrix
from quantgate.supply.sources import TASKS

from selftest.project import REPO


def test_agreement_is_of_medians_and_in_both_directions() -> None:
    result = agreement("prefill", [90.0, 97.0, 104.0], [100.0, 100.0, 50.0], "tokens/s", 0.03)
    assert (result.ours, result.peer) == (97.0, 100.0)
    assert result.difference == pytest.approx(0.03)
    assert result.peer_all == [100.0, 100.0, 50.0]
    assert agreement("prefill", [103.1], [100.0], "tokens/s", 0.03).outcome == Outcome.OUTSIDE
    assert agreement("prefill", [102.9], [100.0], "tokens/s", 0.03).outcome == Outcome.WITHIN
    assert agreement("prefill", [50.0], [100.0], "tokens/s", None).outcome == Outcome.SHOWN


def test_of_pairs_it_is_the_median_ratio() -> None:
    """Each pair met another machine; what the medians of the sides say is off."""
    ours, peer = [100.0, 49.0, 81.0], [100.0, 50.0, 80.0]
    assert paired(agreement("decode", ours, peer, "tokens/s", 0.03)).difference == pytest.approx(0.0)
    assert paired(
        agreement("decode", ours, [2 * p for p in peer], "tokens/s", 0.03)
    ).difference == pytest.approx(0.5)
    assert paired(share("time", [2.0, 30.0, 1.0], [1.0, 10.0, 1.0], 1.05)).difference == 2.0


@pytest.mark.parametrize(("ours", "outcome"), [(10.4, Outcome.WITHIN), (10.6, Outcome.OUTSIDE)])
def test_a_share_of_the_peers_time(ours: float, outcome: Outcome) -> None:
    result = share("wall time", [ours, 99.0, 1.0], [10.0], 1.05)
    assert result.difference == pytest.approx(ours / 10)
    assert result.outcome == outcome


@pytest.mark.parametrize(("ours", "outcome"), [(4.0, Outcome.WITHIN), (4.1, Outcome.OUTSIDE)])
def test_a_multiple_of_our_time(ours: float, outcome: Outcome) -> None:
    result = gain("all tasks", [ours], [10.0, 30.0, 1.0], 2.5)
    assert result.difference == pytest.approx(10 / ours)
    assert result.outcome == outcome
    assert gain("all tasks", [ours], [10.0], None).outcome == Outcome.SHOWN


def test_the_largest_difference_is_over_all_choices() -> None:
    ours = [[-1.0, -2.0], [-3.0, -4.0, -5.0]]
    theirs = [[-1.1, -2.0], [-3.0, -4.5, -5.25]]
    assert largest_difference(ours, theirs) == pytest.approx(0.5)


def test_another_prediction_counts_unless_it_is_a_tie() -> None:
    theirs, ours = [[-1.0, -1.04], [-1.0, -3.0]], [[-1.03, -1.02], [-1.0, -3.0]]
    one = [[1.0, 1.0], [1.0, 1.0]]
    assert other_predictions(ours, theirs, one, tie=0.05) == 0
    assert other_predictions(ours, theirs, one, tie=0.03) == 1
    # Divided by lengths of 10, the two are 0.004 apart, and still 0.04 nats of a log-likelihood.
    ten = [[10.0, 10.0], [10.0, 10.0]]
    assert other_predictions(ours, theirs, ten, tie=0.05) == 0
    assert other_predictions(ours, theirs, ten, tie=0.03) == 1


def check(difference: float, limit: float | None = 1.0) -> Check:
    return Check(what="x", difference=difference, difference_unit="nats", limit=limit)


def rows() -> list[Row]:
    return [
        Row(name="good", text="a row", checks=[check(0.5), check(7.0, None)], seconds=60.0),
        Row(name="bad", text="a row", checks=[check(0.5), check(2.0)], seconds=1.0),
        Row(name="broken", text="a row", error="first line\n\nsecond line"),
    ]


def test_a_row_is_as_bad_as_its_worst_check() -> None:
    assert [row.outcome for row in rows()] == ["within", "outside", "error"]
    assert LAYOUT.summary(rows()) == "3 rows: 1 within, 1 outside, 1 error; 1 min 01 s"


def test_what_is_outside_or_broken_fails_the_run_and_nothing_else() -> None:
    good, bad, broken = rows()
    assert not LAYOUT.failed([good])
    assert LAYOUT.failed([good, bad])
    assert LAYOUT.failed([broken])


def test_the_table_has_a_line_for_each_check() -> None:
    good, _, broken = rows()
    assert lines(good) == [
        ("good", "x", "-", "-", "0.5 nats", "at most 1 nats", "within"),
        ("", "x", "-", "-", "7 nats", "-", "shown"),
    ]
    assert [line[-1] for line in lines(broken)] == ["error"]
    text = LAYOUT.to_markdown(rows(), ["kernels: AVX2"], "python -m x")
    head, table, *rest = text.split("\n\n")
    assert re.match(r"Generated by `python -m x` on \d{4}-\d\d-\d\d\.\nMachine: .+ cores, .+ GB\.$", head)
    assert len(table.splitlines()) == 2 + 5
    assert all(line.replace("\\|", "").count("|") == 8 for line in table.splitlines())
    assert rest[0] == "kernels: AVX2"
    assert rest[1] == "broken: first line\nsecond line"
    assert rest[-1].startswith("3 rows: ")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2e-4, "relative", "0.02 %"), (0.0015, "fraction", "0.15 points"), (2.6951, "x", "2.7 x"),
        (1.0, "items", "1 item"), (8.96e-5, "nats", "9e-05 nats"),
    ],
)  # fmt: skip
def test_differences_are_shown_in_their_unit(value: float, unit: Any, text: str) -> None:
    assert number(value, unit) == text


def test_json_has_every_value_that_was_taken() -> None:
    row = Row(name="n", text="t", checks=[share("wall time", [1.0, 3.0, 2.0], [4.0], 1.05)])
    (result,) = json.loads(to_json([row]))
    assert result["checks"][0]["ours_all"] == [1.0, 3.0, 2.0]
    assert result["checks"][0]["difference"] == 0.5


def bed(tmp_path: Path, **more: Any) -> Bed:
    return Bed(
        config=load_config(), matrix=load_matrix(), threads=1, repeats=1, results=tmp_path, text=None,
        say=lambda *_: None, **more,
    )  # fmt: skip


def test_an_error_stays_in_its_row(tmp_path: Path) -> None:
    def failing(bed: Bed) -> list[Check]:
        raise MeasurementError("the tool crashed")

    def faulty(bed: Bed) -> list[Check]:
        raise ZeroDivisionError

    compares = [lambda bed: [check(0.1)], failing, faulty]
    result = [command_line.compare(Entry("n", "t", one), bed(tmp_path)) for one in compares]
    assert [row.outcome for row in result] == ["within", "error", "error"]
    assert result[1].error == "the tool crashed"
    assert "ZeroDivisionError" in result[2].error


def test_sides_take_turns_and_what_was_taken_is_kept() -> None:
    order: list[str] = []

    def side(name: str) -> int:
        order.append(name)
        return len(order)

    pair = Pairs(one_after_the_other(lambda: side("ours"), lambda: side("peer")))
    assert pair.take(1) == ([1], [2])
    ours, peer = pair.take(3)
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert (ours, peer) == ([1, 4, 5], [2, 3, 6])


def test_the_catalogue_has_every_row_of_the_readme() -> None:
    names = [entry.name for entry in catalogue(load_config())]
    assert len(names) == len(set(names))
    assert set(names) >= {
        "likelihood/transformers/fp32", "likelihood/llamacpp/F32", "likelihood/llamacpp/F16",
        *(f"perplexity/{scheme}" for scheme in ("F16", "Q8_0", "Q4_K_M", "Q4_0", "Q2_K")),
        "likelihood/five-shot/transformers/fp32", "likelihood/five-shot/llamacpp/F16", "divergence/Q4_K_M",
        "speed/scoring/zero-shot", "speed/scoring/five-shot", "speed/perplexity/F16",
        *(f"speed/throughput/{scheme}" for scheme in ("F16", "Q8_0", "Q4_K_M")),
    }  # fmt: skip


def test_the_configuration_fits_matrix_and_tasks() -> None:
    config, matrix, tasks = load_config(), load_matrix(), read_toml(TASKS)
    assert config.model in matrix.models
    for cell in config.cells:
        backend, scheme = cell.split("/")
        assert scheme in matrix.backends[backend].schemes
    assert {*config.likelihood.tasks, *config.scoring.tasks} <= set(tasks["tasks"])
    assert {config.perplexity.text, config.divergence.text} <= set(tasks["texts"])


def test_rows_are_chosen_by_their_name() -> None:
    entries = catalogue(load_config())

    def named(entry: Entry) -> str:
        return entry.name

    assert [e.name for e in choose(entries, "^perplexity/Q4", "row", named)] == [
        "perplexity/Q4_K_M",
        "perplexity/Q4_0",
    ]
    with pytest.raises(InputError, match="no row matches; --list shows them all"):
        choose(entries, "perplexty", "row", named)
    with pytest.raises(InputError, match="is not a regular expression"):
        choose(entries, "(", "row", named)


def test_list_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--list", "-k", "bench|throughput"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "speed/throughput/F16: F16 against llama-bench"
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-k", "nothing-like-it"], "-k nothing-like-it: no row matches"),
        (["--repeats", "0"], "--repeats 0: must be 1 or more"),
        (["--text", "/nowhere.txt"], "--text /nowhere.txt: no such file"),
        (["--model", "smollm"], "has no model 'smollm'; there are: smollm2-135m"),
        (["--config", "/nowhere.toml"], "/nowhere.toml: no such file"),
    ],
)
def test_wrong_input_ends_with_status_4(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(arguments) == 4
    assert message in capsys.readouterr().err


def test_a_scheme_that_the_matrix_lacks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read_toml(REPO / "fixtures" / "peers.toml")
    table["perplexity"]["schemes"] = ["F16", "Q4_K_X"]
    path = tmp_path / "peers.toml"
    path.write_text(tomlkit.dumps(table))
    assert command_line.main(["--config", str(path)]) == 4
    assert re.search(
        r"peers\.toml: no cell of .*matrix\.toml: llamacpp/Q4_K_X$", capsys.readouterr().err.strip()
    )
