"""The session: time in forward passes, prompts, loading, and the memory of a phase."""

from __future__ import annotations

import mmap
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from quantgate.backends.spec import BackendSpec, SchemeOptions
from quantgate.measure.session import measure_cell

from selftest.measure.fakes import MB, VOCABULARY, Bigrams, Here, hold_memory

if TYPE_CHECKING:
    from collections.abc import Sequence


def test_time_in_forward_passes_is_counted_by_phase(here: Here) -> None:
    class Slow(Bigrams):
        def decode(self, ids: Sequence[int]) -> None:
            time.sleep(0.02)
            super().decode(ids)

    here.backend = Slow()
    session = here.session()
    begin = time.perf_counter()
    for phase in ("one", "other", "other"):
        session.phase = phase
        session.backend.decode([1])
    session.phase = "none"
    session.backend.weights()
    assert set(session.forward) == {"one", "other"}
    assert session.forward["one"] >= 0.02
    assert session.forward["other"] >= 0.04
    assert sum(session.forward.values()) <= time.perf_counter() - begin


def test_a_pass_of_a_server_is_counted_once(here: Here) -> None:
    class Server(Bigrams):
        def answer(self, sequence: Any) -> Any:
            time.sleep(0.02)

        def scores(self, sequences: Any) -> Any:
            return [self.answer(sequence) for sequence in sequences]

    here.backend = Server()
    session: Any = here.session()
    session.phase = "divergence"
    session.backend.answer(None)
    session.phase = "accuracy"
    begin = time.perf_counter()
    session.backend.scores([None, None])
    assert session.forward["divergence"] >= 0.02
    assert 0.04 <= session.forward["accuracy"] <= time.perf_counter() - begin


def test_prompts_are_the_same_every_time_and_within_the_vocabulary(here: Here) -> None:
    prompt = here.session().prompt(500)
    assert prompt == here.session().prompt(500)
    assert prompt[:20] == here.session().prompt(20)
    assert set(prompt) == set(range(VOCABULARY))


def resident() -> tuple[int, int]:
    """Anonymous and other resident bytes of this process, by psutil."""
    info = psutil.Process().memory_info()
    return info.rss - info.shared, info.shared


def test_an_allocation_counts_as_anonymous_memory(here: Here) -> None:
    session = here.session()
    anonymous, shared = resident()
    with session.memory_phase() as peak:
        hold_memory()
    assert 60 * MB < peak.anonymous - anonymous < 80 * MB
    assert peak.file - shared < 8 * MB
    assert peak.resident - anonymous - shared > 60 * MB
    with session.memory_phase() as later:
        pass
    assert peak.anonymous - later.anonymous > 48 * MB, "a phase does not inherit the peak of an earlier one"
    assert peak.resident - later.resident > 48 * MB


def test_a_mapped_file_counts_as_file_backed_memory(here: Here) -> None:
    """As llama.cpp maps its weights."""
    file = here.folder / "weights"
    with file.open("wb") as handle:
        handle.truncate(64 * MB)
    session = here.session()
    anonymous, shared = resident()
    with session.memory_phase() as peak, file.open("rb") as handle:
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        with mapped:
            assert int(np.frombuffer(mapped, dtype=np.uint8)[::4096].sum()) == 0  # touches every page
            time.sleep(0.1)
    assert 60 * MB < peak.file - shared < 80 * MB
    assert peak.anonymous - anonymous < 8 * MB
    assert peak.resident - anonymous - shared > 60 * MB


def test_loading_is_timed_and_its_peak_taken(here: Here) -> None:
    session = here.session()
    anonymous, _ = resident()

    def load(checkpoint: Path, options: dict[str, Any], threads: int) -> Any:
        assert (checkpoint, options, threads) == (here.folder, {}, 2)
        hold_memory()
        return here.backend

    session.load(load)
    assert session.load_peak.anonymous - anonymous > 48 * MB
    assert 0 < session.load_seconds < 60


def test_what_a_backend_imports_counts_to_no_loading(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cell on a GPU no server has imported it: CUDA cannot be used in a fork of a process that looked for it."""
    name = "imported_by_a_backend"
    (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen: list[bool] = []

    def load(checkpoint: Path, options: dict[str, Any], threads: int) -> Bigrams:
        seen.append(name in sys.modules)
        return Bigrams()

    spec = BackendSpec(options=SchemeOptions, capabilities=frozenset(), load=load, imports=(name,))
    monkeypatch.setattr("quantgate.measure.session.backends", lambda: {"fake": spec})
    measure_cell(here.new_job())
    assert seen == [True]
    del sys.modules[name]


def test_an_error_in_a_phase_ends_the_sampling(here: Here) -> None:

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), here.session().memory_phase():
        _ = 1 / 0
    assert threading.active_count() == before
