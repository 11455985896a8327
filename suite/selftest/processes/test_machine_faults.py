"""What the machine, the disk or another run does to a run: an error with path and remedy, and never a wrong number."""

from __future__ import annotations

import errno
import importlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from quantgate.errors import MeasurementError
from quantgate.jobs import Job
from quantgate.locks import locked
from quantgate.records import Measurement, Metric
from quantgate.run.process import Process, file_error, sibling

from selftest.project import Project

F16, Q4 = "tiny/llamacpp/F16", "tiny/llamacpp/Q4_K_M"


# --- records


def job(folder: Path) -> Job:
    return Job(
        cell=F16, tier="smoke", fingerprint="f", run="this", backend="llamacpp", scheme_options={}, weights=folder,
        source_hash="s", workload=folder, requests=["perplexity"], group_options={}, threads=1,
        output=folder / "F16~part.json",
    )  # fmt: skip


def record(**changes: Any) -> str:
    fields = {"cell": F16, "tier": "smoke", "fingerprint": "f", "run": "this", "requests": ["perplexity"]}
    return Measurement.model_validate(
        {**fields, "created": "now", "complete": True, **changes}
    ).model_dump_json()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (record(run="yesterday"), "its run is 'yesterday', not 'this'"),
        (record(cell=Q4), f"its cell is '{Q4}', not '{F16}'"),
        (record(tier="full"), "its tier is 'full'"),
        (record(fingerprint="g"), "its fingerprint is 'g', not 'f'"),
        (record(requests=[]), "its requests is"),
        (record(complete=False), "is not complete"),
        (None, "left no measurement"),
        ("", "is not a measurement of this version"),
        ("[]", "is not a measurement of this version"),
        ("[" * 100_000, "is not a measurement of this version"),
        ('{"cell": 1}', "is not a measurement of this version"),
        (record()[:-20], "is not a measurement of this version"),
        ("\0" * 100, "is not a measurement of this version"),
    ],
)
def test_only_a_record_of_this_very_job_is_taken(tmp_path: Path, content: str | None, message: str) -> None:
    expected = job(tmp_path)
    if content is not None:
        expected.output.write_text(content)
    task: Any = SimpleNamespace(place="")
    with pytest.raises(MeasurementError, match=r"F16~part\.json: ") as caught:
        Process(expected, task).read()
    assert message in str(caught.value)


def test_the_record_of_the_job_is_taken_and_gets_its_conditions(tmp_path: Path) -> None:
    expected = job(tmp_path).model_copy(update={"conditions": {"token": "put"}})
    value = Metric(kind="exact", value=1.0, unit="bytes", better="lower", conditions={"source": "s"})
    expected.output.write_text(record(metrics={"size": value}))
    task: Any = SimpleNamespace(place="")
    read = Process(expected, task).read()
    assert read.run == "this"
    assert read.metrics["size"].conditions == {"source": "s", "token": "put"}


def test_processes_and_schemes_do_not_share_files() -> None:
    """`Q4.2` is a scheme's name, `Q4~2` cannot be one."""
    assert sibling(Path("Q4.json"), "2") == Path("Q4~2.json")
    assert sibling(Path("Q4.2.json"), "part") == Path("Q4.2~part.json")
    assert sibling(Path("Q4~2.log"), "part") == Path("Q4~2~part.json")


def test_files_of_before_do_not_disturb_a_run(project: Project) -> None:
    """Whatever stands where a run writes, its own measurement takes the place. One kind of content a cell."""
    contents = [b"", b"{", b"[]", b"\xff\xfe", b"[" * 50_000, b'{"run": "x"}']
    schemes = [f"F16-{number}" for number in range(len(contents))]
    cells = [f"tiny/llamacpp/{scheme}" for scheme in schemes]
    project.matrix["backends"] = {
        "llamacpp": {"schemes": {name: {"bits": 16, "ftype": "F16"} for name in schemes}}
    }
    project.matrix["tiers"]["smoke"]["cells"] = cells
    folder = project.results / "smoke" / "tiny" / "llamacpp"
    folder.mkdir(parents=True)
    for scheme, content in zip(schemes, contents, strict=True):
        for ending in (".json", "~part.json", "~error.json", "~job.json", ".log", ".lock"):
            (folder / f"{scheme}{ending}").write_bytes(content)
    result = project.run("-m", "perplexity", "--reuse")
    assert (result.status, sorted(result.processes)) == (0, sorted(cells)), result.output
    assert all(project.measurement(cell).complete for cell in cells)


# --- one run a folder


def test_a_folder_of_results_takes_one_run_at_a_time(project: Project) -> None:
    with locked(project.results / ".lock", "test"):
        result = project.run("-k", "perplexity")
        assert (result.status, result.processes) == (4, [])
        assert f"{project.results}: process " in result.output
        assert "name another folder with --results" in result.output
        together = project.run("-k", "perplexity", "-n", "1")
        assert (together.status, together.processes) == (4, [])
        assert "name another folder with --results" in together.output


def test_options_that_do_not_go_with_processes_side_by_side_are_refused_once(project: Project) -> None:
    arguments = ("--dist", "load", "--tx", "2*popen", "-m", "perplexity")
    result = project.run(*arguments, "--update-baselines", "--reason", "x")
    assert result.status == 4
    assert (
        result.output.count("--update-baselines cannot be combined with --tx: one process writes baselines")
        == 1
    )
    assert "replacing crashed worker" not in result.output


# --- exit status 1 means regression


def test_a_deeply_nested_baseline_is_an_error_of_its_cell_alone(baselined: Project) -> None:
    import hashlib

    (summary,) = (baselined.baselines / Q4).glob("smoke.toml")
    (raw,) = (baselined.baselines / Q4).glob("smoke.*.json")
    nested = b"[" * 100_000
    digest = hashlib.sha256(nested).hexdigest()
    old = hashlib.sha256(raw.read_bytes()).hexdigest()
    raw.unlink()
    raw.with_name(f"smoke.{digest[:12]}.json").write_bytes(nested)
    summary.write_text(summary.read_text().replace(old, digest).replace(old[:12], digest[:12]))
    result = baselined.run("--reuse", "-m", "perplexity")
    assert (result.status, result.failed()) == (10, [f"perplexity[{Q4}]"])
    assert "not what quantgate writes" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "hook", ["finish.update_baselines", "finish.summarize", "finish.shorten_failures", "wiring.Wiring.close"]
)
def test_an_unforeseen_error_of_a_hook_is_no_regression(baselined: Project, hook: str) -> None:
    module, _, name = hook.rpartition(".")
    (baselined.folder / "broken_hook.py").write_text(
        "from quantgate.plugin import finish, wiring\n"
        "def fail(*arguments): raise LookupError('unforeseen')\n"
        f"{module}.{name} = fail\n"
    )
    update = ("--update-baselines", "--reason", "x") if "update" in hook else ()
    result = baselined.run("--reuse", "-m", "perplexity", "-p", "broken_hook", *update)
    assert result.status == (0 if "close" in hook else 10), result.output
    assert "quantgate itself failed: LookupError in broken_hook.py:2: unforeseen" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "command", ["cache", *(f"proofs.{p}" for p in ("papers", "pocket", "power", "faults", "peers"))]
)
def test_wrong_options_end_with_one_status(command: str) -> None:
    main = importlib.import_module(f"quantgate.{command}.__main__").main
    with pytest.raises(SystemExit) as caught:
        main(["--no-such-option"])
    assert caught.value.code == 4


def test_an_expression_of_papers_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from quantgate.proofs.papers.__main__ import main

    assert main(["-k", "("]) == 4
    assert "-k (: is not a regular expression: missing )" in capsys.readouterr().out


# --- paths


def test_a_cache_at_a_path_that_is_no_utf8_is_a_usage_error(project: Project) -> None:
    result = project.run(
        "-k", "perplexity", QUANTGATE_CACHE=os.fsdecode(os.fsencode(project.folder) + b"/\xe9")
    )
    assert (result.status, result.processes) == (4, [])
    assert r"/\udce9: is not UTF-8" in result.output
    assert "Traceback" not in result.output


# --- what a machine lacks


def test_without_clear_refs_memory_alone_is_an_error(project: Project) -> None:
    """As where /proc is mounted read-only."""
    project.matrix["tiers"]["smoke"]["memory"]["processes"] = 1
    project.write()
    (project.folder / "sitecustomize.py").write_text(
        "import errno, pathlib\n"
        "write = pathlib.Path.write_text\n"
        "def refuse(self, *a, **k):\n"
        "    if str(self) == '/proc/self/clear_refs':\n"
        "        raise OSError(errno.EROFS, 'Read-only file system', str(self))\n"
        "    return write(self, *a, **k)\n"
        "pathlib.Path.write_text = refuse\n"
    )
    project.environment["PYTHONPATH"] += f":{project.folder}"  # which the servers read
    result = project.run("-k", F16, "-m", "perplexity or memory")
    assert (result.status, result.failed()) == (10, [f"memory[{F16}]"])
    assert (
        "peaks of memory cannot be measured here (/proc/self/clear_refs: Read-only file system)"
        in result.output
    )
    assert result.cases[f"perplexity[{F16}]"] == "skipped", "no baseline yet"
    assert result.verdict(F16, "perplexity").measured


def test_a_cache_that_is_only_read_gives_what_it_has(baselined: Project, tmp_path: Path) -> None:
    """The reference's log-probabilities then go to the results; what would have to be made is named with a remedy."""
    smoke = baselined.matrix["tiers"]["smoke"]
    smoke["divergence"] = {"text": "boolq", "n_ctx": 32, "windows": 16, "block": 16}
    cache = baselined.take_cache(tmp_path / "cache")  # texts of perplexity, and no log-probabilities
    (baselined.folder / "read_only.py").write_text(
        "from quantgate import files\n"
        "from quantgate.run import bench\n"
        f"cache = {str(cache)!r}\n"
        "check = files.writable\n"
        "bench.writable = lambda folder: not str(folder).startswith(cache) and check(folder)\n"
    )
    result = baselined.run("-m", "divergence", "-k", Q4, "-p", "read_only")
    assert result.status == 0, result.output
    assert not (cache / "logprobs").exists()
    assert list((baselined.results / "logprobs").glob("tiny-llamacpp-F16-*"))


@pytest.mark.parametrize(
    ("number", "below", "message"),
    [
        (
            errno.EROFS,
            "cache",
            "Read-only file system; name a folder that can be written with QUANTGATE_CACHE",
        ),
        (errno.EACCES, "results", "Permission denied; name a folder that can be written with --results"),
        (
            errno.ENOSPC,
            "results",
            "No space left on device; free some space there, or name another folder with --results",
        ),
        (errno.EACCES, ".", "Permission denied; name a folder that can be written with QUANTGATE_CACHE"),
        (errno.EIO, "cache", "Input/output error"),
    ],
)
def test_errors_of_the_disk_name_path_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, below: str, message: str
) -> None:
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    file = str(tmp_path if below == "." else tmp_path / below / "x")
    assert str(file_error(OSError(number, os.strerror(number), file))) == f"{file}: {message}"
