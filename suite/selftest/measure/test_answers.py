"""Questions answered in writing: texts and results of a model are those of lm-evaluation-harness's own class."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.errors import MeasurementError
from quantgate.items import TOKENIZER, Questions
from quantgate.jobs import Needs, Posed
from quantgate.measure.metrics import answers
from quantgate.run.measurer import check_measured
from quantgate.supply.encoder import Encoder
from quantgate.supply.questions import make_questions

from selftest.measure.fakes import Here
from selftest.supply.harness import harness
from selftest.supply.test_questions import CHAT
from selftest.tiny import TEXT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from quantgate.records import Metric

    from selftest.tiny import TinyModel

LIMIT = 24
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def backend(tiny: TinyModel) -> Any:
    from quantgate.backends.runtime.transformers import Transformers

    return Transformers(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1)


@pytest.fixture(scope="module")
def encoder(tiny: TinyModel) -> Encoder:
    made = Encoder(tiny.safetensors, None)
    made.tokenizer.chat_template = CHAT
    return made


def documents(gold: Sequence[str]) -> list[dict[str, Any]]:
    """Questions of the shape of GSM8K in words that the model knows, with these right answers."""
    return [
        {"question": " ".join(WORDS[9 * n : 9 * n + 8 + n % 3]), "answer": f"So.\n#### {right}"}
        for n, right in enumerate(gold)
    ]


def prepared(here: Here, encoder: Encoder, rows: list[dict[str, Any]], **further: Any) -> Questions:
    path = here.folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"doc": row}) + "\n" for row in rows))
    posed = Posed(items=len(rows), **{"chat": False, "fewshot": 0, **further})
    place = {"jsonl": str(path), "documents": "requests", "split": "test"}
    questions = make_questions("gsm8k", {**place, **posed.model_dump()}, encoder)
    here.write("questions-gsm8k.json", questions.model_dump_json())
    encoder.tokenizer.backend_tokenizer.save(str(here.folder / TOKENIZER))
    here.write("meta.json", json.dumps({"vocabulary": encoder.vocabulary}))
    return questions


def measured(here: Here, *parts: str, **options: Any) -> dict[str, Metric]:
    return here.measure(answers, *parts, **{"tasks": ["gsm8k"], "tokens": LIMIT, **options})


def by_the_harness(backend: Any, encoder: Encoder, rows: list[dict[str, Any]], chat: bool) -> dict[str, Any]:
    """What lm-eval makes of the same questions with its own class, a sequence in a batch."""
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM

    task = harness("gsm8k", rows, "gsm8k/gsm8k.yaml")
    task.set_config("num_fewshot", 0)
    task.set_config("generation_kwargs", {"max_gen_toks": LIMIT}, update=True)
    model = HFLM(pretrained=backend._model, tokenizer=encoder.tokenizer, batch_size=1)
    results: dict[str, Any] = evaluator.evaluate(
        model,
        {"tasks": {"gsm8k": task}, "groups": {}, "group_map": {}},
        bootstrap_iters=0,
        apply_chat_template=chat,
    )
    return results


@pytest.mark.parametrize("chat", [False, True])
def test_answers_and_marks_are_those_of_the_harnesss_own_class(
    chat: bool, tmp_path: Path, backend: Any, encoder: Encoder
) -> None:
    here = Here(tmp_path, backend)
    rows = documents(["1"] * 6)
    questions = prepared(here, encoder, rows, chat=chat)
    texts = measured(here)["answers/gsm8k/texts/length"].raw["ids"]
    session = here.session()
    written = [answers.answer_of(session, questions, text) for text in texts]
    # What every second question asks for is the last number that the model writes.
    rows = documents([digits(text) if n % 2 else "777" for n, text in enumerate(written)])
    prepared(here, encoder, rows, chat=chat)
    metrics = measured(here)
    theirs = by_the_harness(backend, encoder, rows, chat)
    samples = [one for one in theirs["samples"]["gsm8k"] if one["filter"] == "flexible-extract"]
    samples.sort(key=lambda one: one["doc_id"])
    assert [one["resps"][0][0] for one in samples] == written
    solved = metrics["answers/gsm8k/solved"]
    assert solved.samples == [one["exact_match"] for one in samples]
    assert 0 < solved.value < 1
    of_harness = {name: theirs["results"]["gsm8k"][f"exact_match,{name}"] for name in solved.raw["by filter"]}
    assert solved.raw["by filter"] == pytest.approx(of_harness)
    assert metrics["answers/gsm8k/format"].value == 0, "it never writes ####"
    assert solved.conditions["chat"] is chat


def digits(text: str) -> str:
    import re

    numbers = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)
    return str(next(part for part in numbers[-1] if part)) if numbers else "0"


def test_items_of_all_tasks_are_pooled_and_texts_are_kept(
    tmp_path: Path, backend: Any, encoder: Encoder
) -> None:
    here = Here(tmp_path, backend)
    prepared(here, encoder, documents(["1"] * 3))
    here.write("questions-other.json", (tmp_path / "questions-gsm8k.json").read_text())
    metrics = measured(here, tasks=["gsm8k", "other"])
    assert len(metrics["answers/pooled/solved"].samples or ()) == 6
    assert metrics["answers/pooled/format"].answers
    assert metrics["answers/pooled/solved"].conditions.keys() == {"gsm8k"}, (
        "by the task's name in the harness"
    )
    assert measured(here, "gsm8k", tasks=["gsm8k", "other"]).keys() == {
        f"answers/gsm8k/{name}" for name in ("solved", "format", "texts/length", "texts/limit", "texts/loops")
    }
    assert all(1 <= len(ids) <= LIMIT for ids in metrics["answers/gsm8k/texts/length"].raw["ids"])


def test_a_task_that_does_not_fit_leaves_the_others(tmp_path: Path, backend: Any, encoder: Encoder) -> None:
    here = Here(tmp_path, backend)
    prepared(here, encoder, documents(["1", "2"]))
    long = Questions.model_validate_json((tmp_path / "questions-gsm8k.json").read_bytes())
    here.write("questions-long.json", long.model_copy(update={"items": [[1] * 500]}).model_dump_json())
    here.write("questions-vast.json", long.model_copy(update={"items": [[1] * 513]}).model_dump_json())
    here.options = {"answers": {"tasks": ["gsm8k", "long", "vast"], "tokens": LIMIT}}
    session = here.session()
    metrics = answers.measure(session, [])
    assert "answers/gsm8k/solved" in metrics
    assert not [name for name in metrics if "long" in name or "vast" in name or "pooled" in name]
    message = (
        "the model has 512 positions, the longest prompt has 500 tokens and a text up to 24: "
        "set tokens of the tier's answers to 12 at the most, or set a lower fewshot, or leave the task out"
    )
    assert message in session.unmeasured["answers/long"]
    assert "up to 24: set a lower fewshot, or leave the task out" in session.unmeasured["answers/vast"]
    assert session.unmeasured.keys() == {"answers/long", "answers/vast", "answers/pooled"}


def test_a_task_after_which_nothing_is_written_leaves_the_others(
    tmp_path: Path, backend: Any, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Here(tmp_path, backend)
    prepared(here, encoder, documents(["1", "2"]))
    texts = iter([[5], []])
    monkeypatch.setattr(backend, "generate", lambda *_: next(texts))
    here.options = {"answers": {"tasks": ["gsm8k"], "tokens": LIMIT}}
    session = here.session()
    assert answers.measure(session, ["gsm8k"]) == {}
    message = "nothing was written after prompt 2 of task 'gsm8k'"
    assert session.unmeasured == {"answers/gsm8k": message}


def test_a_part_that_was_not_measured_is_the_error_of_its_case_alone() -> None:
    from quantgate.records import Measurement

    record = Measurement(
        cell="m/b/s", tier="t", fingerprint="f", created="now", requests=["answers/long", "answers/gsm8k"],
        unmeasured={"answers/long": "too long"},
    )  # fmt: skip
    check_measured(record, "answers/gsm8k")
    with pytest.raises(MeasurementError, match="too long"):
        check_measured(record, "answers/long")


def test_an_answer_is_cut_as_the_harness_cuts_it(tmp_path: Path, encoder: Encoder) -> None:
    from lm_eval.models.utils import postprocess_generated_text

    here = Here(tmp_path)
    questions = prepared(here, encoder, documents(["1", "2"]))
    here.write("meta.json", json.dumps({"vocabulary": 7}))
    session = here.session()
    for until in (["lamp", "the"], ["the", "lamp"], ["p and", "lamp"]):
        text = "He carried a lamp and the ladder."
        cut = answers.answer_of(
            session, questions.model_copy(update={"until": until}), [*encoder.encode(text), 0]
        )
        assert cut == postprocess_generated_text(text, until, None)


def test_what_it_needs_and_expects() -> None:
    options = answers.Options(tasks=["gsm8k", "triviaqa"], items=5, fewshot=2, chat=False)
    posed = Posed(items=5, chat=False, fewshot=2)
    assert answers.needs(options) == Needs(questions={"gsm8k": posed, "triviaqa": posed})
    expected = answers.expected(options)
    assert len(expected["answers/gsm8k/solved"].samples or ()) == 5
    assert len(expected["answers/pooled/format"].samples or ()) == 10
