"""Divergence of real models against float64, and in whole runs."""

from __future__ import annotations

import gc
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.backends.tree import TokenSequence, build_tree
from quantgate.items import Text
from quantgate.jobs import Job
from quantgate.measure.metrics import divergence
from quantgate.measure.session import Session

from selftest.measure.test_logprobs import log_softmax
from selftest.project import Accepted, Project, tiny_matrix

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quantgate.backends.base import Backend
    from quantgate.records import Metric

    from selftest.once import Once
    from selftest.tiny import TinyModel


def held_against_directly(backend: Callable[[], Backend], other: Callable[[], Backend]) -> Any:
    """KL of each scored token of the windows in float64, from all logits at once."""
    rows = []
    for begin in range(0, len(TOKENS), 64):
        window = TOKENS[begin : begin + 64]
        tree = build_tree([TokenSequence(tuple(window), 33)])
        both = []
        for load in (backend, other):
            model = load()
            model.reserve(64, 1)
            both.append(log_softmax(model.logits(tree).copy()))
        rows.append((np.exp(both[0]) * (both[0] - both[1])).sum(axis=1))
    return np.concatenate(rows)


TOKENS = np.random.default_rng(4).integers(1, 512, size=256).tolist()


def assert_equal_to_float64(
    folder: Path, reference: Callable[[], Backend], cell: Callable[[], Backend]
) -> None:
    text = Text(ids=TOKENS, starts=[0] * 257, bos=None, hash="t")
    (folder / "text-t.json").write_text(text.model_dump_json())
    (folder / "meta.json").write_text('{"vocabulary": 512}')
    path = folder / "logprobs" / "r.npy"

    def measure(backend: Callable[[], Backend], name: str) -> dict[str, Metric]:
        job = Job(
            cell=name, tier="s", fingerprint="x", backend="b", scheme_options={}, weights=folder, source_hash="w",
            workload=folder, requests=["divergence"], threads=1, output=folder / "o", reference="r",
            left={"divergence": path},
            group_options={"divergence": {"text": "t", "n_ctx": 64, "windows": 4}},
        )  # fmt: skip
        gc.freeze()  # as in `fakes.Here`
        session = Session(job, lambda *event: None)
        session.load(lambda *arguments: backend())
        return divergence.measure(session, [])

    assert measure(reference, "r") == {}
    expected = held_against_directly(reference, cell)
    assert expected.mean() > 1e-4, "or nothing is shown"
    metrics = measure(cell, "c")
    assert metrics["divergence/kl_mean"].value == pytest.approx(expected.mean(), abs=1e-6)
    assert metrics["divergence/kl_max"].value == pytest.approx(expected.max(), abs=1e-5)
    assert measure(reference, "c")["divergence/kl_mean"].value == pytest.approx(0, abs=1e-7)


def test_transformers_is_held_against_its_reference_as_in_float64(tiny: TinyModel, tmp_path: Path) -> None:
    from quantgate.backends.runtime.transformers import load

    assert_equal_to_float64(
        tmp_path,
        lambda: load(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1),
        lambda: load(tiny.safetensors, {"device": "cpu", "dtype": "bfloat16"}, 1),
    )


def test_llamacpp_is_held_against_its_reference_as_in_float64(tiny: TinyModel, tmp_path: Path) -> None:
    from quantgate.backends.runtime.llamacpp import load
    from quantgate.supply.checkpoints import quantize_gguf

    small = tmp_path / "q.gguf"
    quantize_gguf(small, report=lambda *event: None, gguf=str(tiny.gguf), ftype="Q4_0", threads=1)
    assert_equal_to_float64(
        tmp_path, lambda: load(tiny.gguf, {"device": "cpu"}, 1), lambda: load(small, {"device": "cpu"}, 1)
    )


FULL, Q4, Q8 = "tiny/llamacpp/F16", "tiny/llamacpp/Q4_K_M", "tiny/llamacpp/Q8_0"


def own_cache(project: Project, folder: Path) -> Project:
    """Log-probabilities, and nothing else, go to a new folder."""
    folder.mkdir(parents=True)
    kinds = ("assets", "checkpoints", "workloads")
    (folder / "entries").mkdir()
    for shared in (*kinds, "locks", *(f"entries/{kind}" for kind in kinds)):
        (source := project.cache / shared).mkdir(parents=True, exist_ok=True)
        (folder / shared).symlink_to(source)
    project.environment = {**project.environment, "QUANTGATE_CACHE": str(folder)}
    return project


def measures_divergence(project: Project) -> Project:
    """Three cells, of which perplexity and divergence are measured."""
    smoke = project.matrix["tiers"]["smoke"]
    smoke["cells"] = [Q4, FULL, Q8]  # the reference is not the first
    smoke["divergence"] = {"text": "boolq", "n_ctx": 32, "windows": 16, "block": 16}
    del smoke["memory"]
    return project


@pytest.fixture(scope="session")
def accepted_divergence(once: Once, tiny: TinyModel, environment: dict[str, str]) -> Accepted:
    """Measured and accepted once; tests work on copies (`diverging`)."""

    def new(folder: Path) -> Project:
        return measures_divergence(Project(folder / "p", tiny_matrix(tiny), dict(environment)))

    def make(folder: Path) -> None:
        result = own_cache(new(folder), folder / "cache").update("-m", "perplexity or divergence")
        (folder / "output").write_text(f"{result.status}\n{result.output}")

    folder = once("divergence", make)
    project = new(folder)
    project.environment["QUANTGATE_CACHE"] = str(folder / "cache")
    status, _, output = (folder / "output").read_text().partition("\n")
    return Accepted(project, project.left(int(status), output))


@pytest.fixture
def diverging(accepted_divergence: Accepted, tmp_path: Path) -> Project:
    """A copy with a cache of its own, in which the reference's log-probabilities are."""
    project = accepted_divergence.project.copy(tmp_path / "project")
    shutil.copytree(project.cache, tmp_path / "cache", symlinks=True)
    project.environment["QUANTGATE_CACHE"] = str(tmp_path / "cache")
    return project


def files(project: Project) -> list[Path]:
    folder = project.cache / "logprobs"
    return sorted(folder.iterdir()) if folder.exists() else []


def test_the_reference_is_computed_once_and_shared(accepted_divergence: Accepted, diverging: Project) -> None:
    result = accepted_divergence.result
    assert result.status == 0, result.output
    assert result.measured == [FULL, Q4, Q8], "the reference first, none twice"
    (file,) = files(diverging)
    assert set(result.cases) == {
        *(f"perplexity[{cell}]" for cell in (FULL, Q4, Q8)), f"divergence[{Q4}]", f"divergence[{Q8}]",
    }  # fmt: skip
    values = {c: diverging.measurement(c).metrics["divergence/kl_mean"].value for c in (Q4, Q8)}
    assert 0 < values[Q8] < values[Q4] / 10

    written = file.stat().st_ino
    again = diverging.run("-k", "divergence and Q4_K_M")
    assert again.status == 0, again.output
    assert again.measured == [Q4], "the file is there"
    assert again.verdict(Q4, "divergence/kl_mean").text == "equal to the last digit"
    assert [f.stat().st_ino for f in files(diverging)] == [written]

    file.unlink()
    alone = diverging.run("-k", "divergence and Q8_0")
    assert alone.measured == [FULL, Q8]
    assert [f.name for f in files(diverging)] == [file.name]
    assert diverging.measurement(FULL).requests == ["divergence"]
    assert diverging.measurement(FULL).metrics == {}

    file.unlink()
    reused = diverging.run("--reuse", "-k", "divergence and (Q4_K_M or Q8_0)")
    assert reused.measured == [], "no record is missing"


def test_a_file_that_was_removed_is_made_again_though_the_record_is_there(diverging: Project) -> None:
    (file,) = files(diverging)
    file.unlink()
    (diverging.results / "smoke" / f"{Q4}.json").unlink()
    result = diverging.run("--reuse", "-m", "perplexity or divergence", "-k", "F16 or Q4_K_M")
    assert result.measured == [f"{FULL}.logprobs", Q4]
    assert result.cases[f"divergence[{Q4}]"] == "passed"


def test_two_runs_at_once_do_not_disturb_each_other(diverging: Project, tmp_path: Path) -> None:
    other = diverging.copy(tmp_path / "other")
    files(diverging)[0].unlink()
    diverging.write()
    other.write()
    runs = [(p, p.start("-k", "divergence and Q4_K_M")) for p in (diverging, other)]
    for project, process in runs:
        result = project.finish(process)
        assert result.status == 0, result.output
        assert result.verdict(Q4, "divergence/kl_mean").text == "equal to the last digit"
    assert len(files(diverging)) == 1


def test_a_reference_that_fails_costs_its_cells_their_divergence_alone(project: Project) -> None:
    measures_divergence(project)
    schemes = {
        "broken": {"bits": 2, "ftype": "IQ2_XXS", "reference": "llamacpp/broken"},
        "q": {"bits": 4, "ftype": "Q4_K_M", "reference": "llamacpp/broken"},
    }
    project.matrix["backends"] = {"llamacpp": {"schemes": schemes}}
    cell = "tiny/llamacpp/q"
    project.matrix["tiers"]["smoke"]["cells"] = [cell, "tiny/llamacpp/broken"]
    result = project.run("-m", "perplexity or divergence")
    assert result.status == 10
    assert result.cases == {
        f"perplexity[{cell}]": "skipped", f"divergence[{cell}]": "failed",
        "perplexity[tiny/llamacpp/broken]": "failed",
    }  # fmt: skip
    assert "not measured: the reference tiny/llamacpp/broken failed" in result.output
