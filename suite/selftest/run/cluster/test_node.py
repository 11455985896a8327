"""A node's side without Ray: what `measure_cells` leaves behind and hands back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from quantgate.cache import kept
from quantgate.run.cluster import node
from quantgate.run.cluster.work import Setup, Work
from quantgate.run.inputs import load_matrix

from selftest.plugin.runs import F16, Q4, exact
from selftest.project import Project

REQUESTS = ["perplexity", "divergence"]


def setup_of(project: Project, windows: int, time_limit: float = 300.0) -> Setup:
    """A run of this project's smoke tier that measures divergence on so many windows."""
    divergence = {"text": "boolq", "n_ctx": 32, "windows": windows, "block": 16}
    project.matrix["tiers"]["smoke"].update(divergence=divergence, time_limit=time_limit)
    project.write()
    text = (project.text.name, project.text.read_bytes())
    return Setup(
        load_matrix(project.matrix_file), "smoke", 1, f"{windows} {project.folder.parent.name}", text
    )


@pytest.fixture(autouse=True)
def _on_a_node(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("QUANTGATE_CACHE", "PYTHONPATH"):
        monkeypatch.setenv(name, environment[name])
    yield
    node._leave()


def test_a_node_measures_what_a_run_here_does_and_leaves_nothing(baselined: Project) -> None:
    """The reference on one node; then, on another that has none of its files, a cell that reads what it left."""
    setup = setup_of(baselined, windows=2)
    error, (reference,), left = node.measure_cells(setup, [Work(F16, REQUESTS)])
    assert error == reference.error == ""
    assert reference.record is not None
    assert exact(reference.record)["perplexity"] == baselined.measurement(F16).metrics["perplexity"]
    assert f"smoke/{F16}.log" in reference.logs
    (name,) = left
    file = Path(baselined.environment["QUANTGATE_CACHE"]) / "logprobs" / name
    assert file.read_bytes() == left[name].tobytes()
    assert not list(Path(reference.folder).glob("*"))

    node._leave()
    kept.discard(file)
    assert not Path(reference.folder).exists()
    _, (cell,), none_left = node.measure_cells(setup, [Work(Q4, REQUESTS)])
    assert cell.record is not None
    assert cell.record.metrics["divergence/kl_mean"].value > 0
    assert none_left == {}
    assert file.exists()  # made here, as nobody brought it


def test_without_its_reference_a_cell_goes_without_what_reads_it(baselined: Project) -> None:
    work = Work(Q4, REQUESTS)
    _, (cell,), _ = node.measure_cells(setup_of(baselined, windows=3), [work], reference_error="it crashed")
    assert cell.record is not None
    assert cell.record.requests == ["perplexity"]


def test_an_error_is_that_of_its_cell(baselined: Project) -> None:
    setup = setup_of(baselined, windows=2, time_limit=1e-3)
    error, (cell,), left = node.measure_cells(setup, [Work(F16, ["perplexity"])])
    assert "took longer than its time limit of 0.001 s" in error
    assert cell.error == error
    assert cell.record is None
    assert left == {}
