"""The rows on written answers: lm-evaluation-harness asks, writes and marks by itself, and the suite does the same."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.backends.base import Stops
from quantgate.errors import MeasurementError
from quantgate.proofs.peers import answers
from quantgate.supply.encoder import Encoder
from quantgate.supply.questions import make_questions

from selftest.supply.copies import edit
from selftest.supply.test_questions import CHAT, spec

if TYPE_CHECKING:
    from pathlib import Path

    from selftest.tiny import TinyModel

TOKENS = 8


@pytest.mark.parametrize("chat", [False, True])
def test_the_harness_writes_the_same_tokens(chat: bool, tiny: TinyModel, tmp_path: Path) -> None:
    from quantgate.backends.runtime.transformers import Transformers

    folder = tmp_path / "model"
    shutil.copytree(tiny.safetensors, folder)
    edit(folder / "tokenizer_config.json", chat_template=CHAT)
    place = spec(tmp_path, chat=chat, fewshot=1)
    answers.write(
        tmp_path / "theirs.json", report=lambda *_: None, model=str(folder), add_bos=None, task="gsm8k", spec=place,
        tokens=TOKENS, threads=1,
    )  # fmt: skip
    theirs = answers.Answered.model_validate_json((tmp_path / "theirs.json").read_bytes())
    encoder = Encoder(folder, None)
    questions = make_questions("gsm8k", place, encoder)
    backend: Any = Transformers(folder, {"device": "cpu", "dtype": "float32"}, 1)
    stops = Stops(
        frozenset(questions.ends),
        tuple(questions.until),
        lambda ids: str(encoder.tokenizer.decode(list(ids))),
    )
    assert theirs.prompts == questions.items
    assert theirs.texts == [backend.generate(ids, TOKENS, stops) for ids in questions.items]
    assert len({tuple(text) for text in theirs.texts}) > 1
    assert theirs.shares == {"strict-match": 0, "flexible-extract": 0}
    assert ("assistant:" in encoder.tokenizer.decode(theirs.prompts[0])) is chat


def test_items_with_another_token_are_counted() -> None:
    check = answers._others("other texts", [[1, 2], [3], [4]], [[1, 2], [3, 4], [5]])
    assert (check.what, check.difference, check.limit) == ("other texts of 3", 2, 0)
    with pytest.raises(MeasurementError, match="1 items here, 2 in lm-eval"):
        answers._others("x", [[1]], [[1], [2]])


def test_the_shipped_rows_are_plain_and_in_chat() -> None:
    from quantgate.proofs.peers.catalogue import catalogue
    from quantgate.proofs.peers.config import load_config

    names = [entry.name for entry in catalogue(load_config())]
    assert [name for name in names if name.startswith("answers/")] == ["answers/plain", "answers/chat"]
    assert load_config().answers.items == 32
