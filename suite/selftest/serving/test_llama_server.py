"""The dialect of llama-server: what is scored is what the model says, token by token."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from quantgate.backends.runtime.llamacpp import LlamaCpp
from quantgate.backends.tree import TokenSequence
from quantgate.errors import MeasurementError
from quantgate.measure.scoring import score
from quantgate.serving.client import Client
from quantgate.serving.dialect import Vocabulary
from quantgate.serving.llama_server import LlamaServer
from quantgate.serving.replies import checked
from quantgate.serving.vocabulary import vocabulary_of

from selftest.serving.fake import Fake, incomplete, serving
from selftest.serving.models import BEGIN, END, PIECES, Bigrams, Gguf
from selftest.tiny import TEXT, TinyModel

MODEL = Bigrams()
WORDS = Vocabulary(len(PIECES), frozenset({BEGIN, END}), incomplete(PIECES))
EURO = [1, 2, 6, 7, 3, 4, 5, 8]
"""Two characters of two tokens each are in it."""


@contextmanager
def talking(defect: str = "") -> Iterator[tuple[LlamaServer, Fake]]:
    fake = Fake(MODEL, defect)
    with serving(fake) as url:
        yield LlamaServer(Client(url, pause=0.001, timeout=5), WORDS), fake


def truth(ids: Sequence[int], start: int) -> list[float]:
    rows = MODEL.rows(list(ids))
    return [float(rows[n - 1][ids[n]]) for n in range(start, len(ids))]


@pytest.mark.parametrize(
    ("ids", "start"),
    [([1, 2, 3, 8, 9], 1), ([1, 2, 3, 8, 9], 4), (EURO, 1), (EURO, 3), ([1, END, 2, BEGIN, 3, END], 1)],
)
def test_every_token_gets_its_log_probability(ids: list[int], start: int) -> None:
    """Ordinary ones, those that leave a character incomplete, and ends of texts."""
    with talking() as (server, _):
        answer = checked(server.score(ids, start, 4), ids, start)
    assert answer.logprobs == pytest.approx(truth(ids, start), abs=1e-12)
    rows = MODEL.rows(ids)[start - 1 : -1]
    assert answer.tokens.tolist() == [np.argsort(-row)[:4].tolist() for row in rows]
    assert answer.likeliest.tolist() == [
        row.argmax() == token for row, token in zip(rows, ids[start:], strict=True)
    ]


def test_a_text_is_one_request_and_nothing_of_it_is_taken_from_a_cache() -> None:
    ids = [1, 2, 3, 8, 9, 10, 1, 2]
    with talking() as (server, fake):
        server.score(ids, 3, 4)
    ((path, body),) = fake.asked
    assert path == "/completion"
    assert body["prompt"] == ids[:3]
    assert body["cache_prompt"] is False
    assert re.findall(r"\d+", body["grammar"]) == [str(token) for token in ids[3:]]


def test_a_server_without_such_grammars_is_refused() -> None:
    with (
        talking("no grammar") as (server, _),
        pytest.raises(MeasurementError, match="it has no grammars of token ids"),
    ):
        server.score([1, 2, 2, 2, 2], 1, 4)


def test_what_it_writes_is_greedy() -> None:
    with talking() as (server, fake):
        assert server.write([1, 2], 6) == fake.greedy([1, 2], 6)
        counted = [count for _, count in server.stream([1, 2], 7)]
    assert sum(counted) == 7


def test_a_served_gguf_scores_as_in_process(tiny: TinyModel) -> None:
    model = Gguf(tiny.gguf)
    ids = tuple(model.tokenize(TEXT)[:60])
    words = vocabulary_of(tiny.gguf)
    assert words == Vocabulary(512, frozenset({0}), incomplete(model.pieces))
    assert len(words.incomplete) == 128, "bytes beyond ASCII"
    assert vocabulary_of(tiny.safetensors) == words
    with serving(Fake(model)) as url:
        server = LlamaServer(Client(url, timeout=30), words)
        assert server.tokenize("The miller rose") == model.tokenize("The miller rose")
        answer = checked(server.score(ids, 1, 8), ids, 1)
    backend = LlamaCpp(tiny.gguf, {"device": "cpu"}, 1)
    ((scored,),) = score(backend, [[TokenSequence(ids, 1)]], len(ids))
    assert answer.logprobs == pytest.approx(scored.logprobs, abs=1e-4)
    assert answer.likeliest.tolist() == scored.greedy.tolist()
