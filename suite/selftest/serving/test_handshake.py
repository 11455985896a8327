"""Each defect of a server is refused with what it does; a sound one is not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from quantgate.errors import MeasurementError
from quantgate.serving.client import Client
from quantgate.serving.dialect import Dialect, Vocabulary
from quantgate.serving.dialects import DIALECTS
from quantgate.serving.handshake import handshake
from quantgate.serving.replies import Answer, checked

from selftest.serving.fake import CONTEXT, Fake, incomplete, serving
from selftest.serving.models import BEGIN, END, PIECES, Bigrams

TEXTS = [piece.decode(errors="replace") for piece in PIECES]
WORDS = Vocabulary(len(PIECES), frozenset({BEGIN, END}), incomplete(PIECES), TEXTS)
POOL = [1, 2, 3, 8, 9, 10]


def shake(dialect: str, defect: str = "", top: int = 6, limit: float = 2.0) -> tuple[float, Dialect]:
    with serving(Fake(Bigrams(), defect)) as url:
        server = DIALECTS[dialect](Client(url, pause=0.001, timeout=limit), WORDS)

        def ask(ids: Sequence[int], start: int) -> Answer:
            return checked(server.score(ids, start, min(top, server.tops)), ids, start)

        write = server.write if server.writes else None
        return handshake(ask, POOL, WORDS.size, write, CONTEXT), server


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_sound_server_is_taken(dialect: str) -> None:
    spread, server = shake(dialect)
    assert spread == 0
    assert server.client.retries == 0


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("defect", "retries"), [("503 three times", 3), ("429 once", 1), ("connection lost", 1)]
)
def test_what_can_be_tried_again_is_and_counts(dialect: str, defect: str, retries: int) -> None:
    assert shake(dialect, defect)[1].client.retries == retries


def test_a_server_that_does_not_repeat_is_marked_with_its_spread() -> None:
    spread, _ = shake("llama-server", "not repeatable")
    assert 1e-4 < spread < 1e-2


DEFECTS = {
    "begin added": r"24 tokens were sent|prompt of 1 tokens was sent, and the server evaluated 2: it adds tokens",
    "context cut": r"and the server (evaluated 12|names 13)|are missing: the context is cut without an error",
    "token lost": r"and the server (evaluated|scored) \d+|scored other tokens than were sent: ",
    "echo ignored": r"the server (sent [01] log-probabilities: it )?ignores (the wish|echo)|has no completion_prob",
    "off by one": r"changes with the token that stands there: .*the next place \(off by one\)",
    "off by one, early": r"does not depend on the token before it: .*the place before \(off by one\)",
    "after sampling": r"contradicts itself|probabilities after sampling",
    "cache": r"other numbers after one that shares its beginning .*prefix cache off",
    "nan": r"the log-probability of token \d+ is (nan|None), which is not a number",
    "positive": r"above 0: these are not log-probabilities|above 0",
    "all equal": r"all 23 tokens of a random text have the log-probability -2.4849: a constant",
    "penalty": r"asked for its likeliest tokens, the server writes token \d+, which is .* penalties of its own",
    "no json": r"the server's answer is not JSON: <html>",
    "503": r"the server answers 503 .*, 4 times",
    "400": r"the server answers 400",
    "hangs": r"no answer within 0.1 s",
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_is_refused_with_what_the_server_does(dialect: str, defect: str) -> None:
    if defect == "penalty" and not DIALECTS[dialect].writes:
        pytest.skip("nothing that it writes is read")
    with pytest.raises(MeasurementError, match=DEFECTS[defect]) as caught:
        shake(dialect, defect, limit=0.1 if defect == "hangs" else 2.0)
    assert str(caught.value).startswith("nothing of this server is measured: ")


def test_a_server_that_takes_texts_alone_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(MeasurementError, match=r"takes texts and no token ids: .*use its own dialect"):
        shake("openai", "texts alone")
