"""llama.cpp's tools: compiled, run beside the suite, their output read."""

from __future__ import annotations

import json
import shlex
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from quantgate.errors import MeasurementError
from quantgate.proofs.peers import build, parse, tools
from quantgate.proofs.peers.bed import Bed
from quantgate.proofs.peers.config import load_config
from quantgate.proofs.peers.tools import Tools
from quantgate.records import Measurement
from quantgate.run.inputs import load_matrix
from quantgate.serving.programs import LLAMA_SERVER
from quantgate.supply.assets import load_assets
from quantgate.supply.sources import ASSETS

from selftest.project import REPO, Project

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
    result = parse.kl_statistics(DIVERGENCE).model_dump()
    expected = {
        "mean": 0.182726,
        "q99": 0.654237,
        "largest": 0.905846,
        "delta_p_rms": 0.02615,
        "same_top": 0.70635,
    }
    assert result == pytest.approx(expected)


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


def test_the_source_is_that_of_the_pinned_package() -> None:
    packages = [load_assets(ASSETS)[name].parts[0] for name in (build.ASSET, LLAMA_SERVER)]
    pins = (REPO / "fixtures" / "constraints.txt").read_text().splitlines()
    for package in packages:
        assert f"llama_cpp_python=={package.version}" in pins


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_tool_gets_threads_and_its_output_is_kept(tmp_path: Path) -> None:
    program(tmp_path, "tool", 'echo "$@"; echo "log of $OMP_NUM_THREADS" >&2')
    run = Tools(tmp_path, threads=3, logs=tmp_path / "logs").run
    ran = run("tool", ["--model", "m"], "first")
    assert ran.output == "--model m --threads 3\n"
    assert ran.log == "log of 3\n"
    assert (tmp_path / "logs" / "first.out").read_text() == ran.output
    assert 0 < ran.seconds < 60


def test_a_tool_that_fails_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    program(tmp_path, "tool", "echo cannot load model >&2; exit 3")
    with pytest.raises(
        MeasurementError, match=r"(?s)tool ended with exit status 3.*\| cannot load model.*full log"
    ):
        Tools(tmp_path, threads=1, logs=tmp_path / "logs").run("tool", [], "first")


def test_command_lines_of_the_tools() -> None:
    model, text, logits = Path("m.gguf"), Path("t.txt"), Path("l.bin")
    line = tools.perplexity(model, text, 512, 20)
    assert shlex.join(line) == "--model m.gguf --file t.txt --ctx-size 512 --chunks 20"
    assert tools.save_logits(model, text, 512, 20, logits) == [*line, "--save-all-logits", "l.bin"]
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
    made.__dict__["tools"] = Tools(folder, threads=1, logs=made.logs)  # nothing is built
    return made


def beside(bed: Bed, tool: str = "tool") -> Callable[[int], tuple[Measurement, tools.ToolRun]]:
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
