"""The real llama-server, where there is one: `tox -e served` builds it."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest
from quantgate.backends.base import Stops
from quantgate.backends.runtime.llamacpp import LlamaCpp
from quantgate.backends.runtime.served import Served
from quantgate.backends.tree import TokenSequence
from quantgate.config.matrix import Scheme
from quantgate.measure.scoring import score
from quantgate.run.inputs import load_matrix
from quantgate.serving.programs import LLAMA_SERVER, why_missing

from selftest.tiny import TEXT, TinyModel

pytestmark = pytest.mark.skipif(bool(why_missing(LLAMA_SERVER)), reason=why_missing(LLAMA_SERVER))


def shipped() -> Scheme:
    """The scheme of matrix.toml: its command is what is tried here."""
    return load_matrix().backends["served"].schemes["Q8_0"]


@pytest.fixture
def served(tiny: TinyModel) -> Iterator[Served]:
    server = Served(tiny.gguf, shipped().scheme_options, 1)
    try:
        yield server
    finally:
        server.close()


def test_it_scores_and_writes_what_the_same_weights_do_in_process(served: Served, tiny: TinyModel) -> None:
    backend = LlamaCpp(tiny.gguf, {"device": "cpu", "n_ubatch": 1}, 1)
    tokens = served.tokenize(TEXT)
    assert tokens == backend.tokenize(TEXT)
    assert served.handshake(tokens) == "", "it repeats to the last digit"
    ids = tuple(tokens[:60])
    answer = served.answer(TokenSequence(ids, 1))
    ((scored,),) = score(backend, [[TokenSequence(ids, 1)]], len(ids))
    assert answer.logprobs == pytest.approx(scored.logprobs, abs=1e-4)
    assert answer.likeliest.tolist() == scored.greedy.tolist()
    assert served.generate(ids[:20], 12, Stops()) == backend.generate(ids[:20], 12, Stops())
    assert served.retries == 0


def test_nothing_of_it_is_left(served: Served) -> None:
    assert served._server is not None
    processes = served._server.processes()
    assert processes
    served.close()
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)
