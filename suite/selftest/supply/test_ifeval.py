"""IFEval: its rules read what a pinned package carries, and download nothing; their packages are an extra."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.errors import AssetError
from quantgate.items import NLTK_DATA, Questions
from quantgate.paths import FIXTURES
from quantgate.supply.assets import fetch, load_assets
from quantgate.supply.marks import mark
from quantgate.supply.tasks import load_task
from quantgate.supply.workload import make_workload

from selftest.run.test_as_is import quiet
from selftest.supply.harness import lines
from selftest.supply.test_questions import PLAIN

if TYPE_CHECKING:
    from selftest.tiny import TinyModel

WORDS = {
    "key": 1, "prompt": "Write two words in capital letters.",
    "instruction_id_list": ["change_case:capital_word_frequency"],
    "kwargs": [{"capital_frequency": 2, "capital_relation": "at least"}],
}  # fmt: skip
SENTENCES = {
    "key": 2, "prompt": "Write fewer than two sentences.",
    "instruction_id_list": ["length_constraints:number_sentences"],
    "kwargs": [{"num_sentences": 2, "relation": "less than"}],
}  # fmt: skip


def spec(folder: Path, nltk_data: Path) -> dict[str, Any]:
    place = {"jsonl": lines(folder, [WORDS, SENTENCES]), "split": "test", "nltk_data": str(nltk_data)}
    return {**place, "items": 2, **PLAIN}


def test_a_package_that_the_rules_lack_is_named_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "immutabledict", None)
    monkeypatch.setitem(sys.modules, "langdetect", None)
    with pytest.raises(
        AssetError,
        match=r"'ifeval': its rules need a package .*(immutabledict|langdetect).*'quantgate\[ifeval\]'",
    ):
        load_task("ifeval", spec(tmp_path, tmp_path))


def test_words_and_sentences_are_counted_without_a_download(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langdetect")
    nltk = pytest.importorskip("nltk")
    try:
        asset = fetch("punkt", load_assets(FIXTURES / "assets.toml"), on_progress=quiet)
    except AssetError as error:
        pytest.skip(f"the splitter is not in the cache and cannot be fetched: {error}")
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk, "download", lambda name: pytest.fail(f"{name} is downloaded"))
    make_workload(
        tmp_path / "made", report=lambda *_: None, tokenizer=str(tiny.safetensors), add_bos=None, key="",
        specs={"questions": {"ifeval": spec(tmp_path, asset / "llama_index/core/_static/nltk_cache")}},
    )  # fmt: skip
    asked = Questions.model_validate_json((tmp_path / "made" / "questions-ifeval.json").read_bytes())
    assert (asked.until, asked.limit) == ([], 1280)
    nltk.data.path.clear()
    given = tmp_path / "made" / NLTK_DATA
    marks = mark(asked, ["HELLO there, YOU.", "Dr. Smith came at 5 p.m. today."], given)
    assert (marks.metric, marks.solved) == ("prompt_level_strict_acc", [1, 1])
    assert mark(asked, ["HELLO there.", "He came. She went."], given).solved == [0, 0]
