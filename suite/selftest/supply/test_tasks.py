"""Tasks beside those of smoke: documents made of an asset's rows; prompts and choices held against
lm-evaluation-harness where it has the task."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.errors import AssetError, InputError
from quantgate.items import MISSING
from quantgate.measure.metrics import accuracy
from quantgate.supply.encoder import Encoder
from quantgate.supply.tasks import load_task, make_task
from quantgate.supply.workload import make_workload

from selftest.supply.harness import harness, joined, lines, requests, scores, texts

if TYPE_CHECKING:
    from selftest.tiny import TinyModel


BBQ: list[dict[str, Any]] = [
    {
        "passage": "Ann and Bo were in the shop.",
        "question": "Who stole?\nPlease choose the correct option ",
        "options": "A. Not known\nB. Ann \nC. Bo",
        "answer": ["Not known"],
    },
    {
        "passage": "Ann and Bo were in the shop. Ann stole.",
        "question": "Who stole?\nPlease choose the correct option ",
        "options": "A. Bo\nB. Not enough info\nC. Ann ",
        "answer": ["Ann "],
    },
]
STEREOSET = [
    {
        "type": "intersentence", "bias_type": "race", "context": "He is Swiss.", "stereotype": "He is on time.",
        "anti-stereotype": "He is late.", "unrelated": "Cats purr.",
    },
    {
        "type": "intrasentence", "bias_type": "profession", "context": "The nurse was BLANK.",
        "stereotype": "The nurse was kind.", "anti-stereotype": "The nurse was rude.",
        "unrelated": "The nurse was blue.",
    },
]  # fmt: skip


SUBJECTS = ("abstract_algebra", "high_school_european_history", "us_foreign_policy")


def test_questions_of_mmlu_are_put_as_the_harnesss_subjects_put_them(tiny: TinyModel, tmp_path: Path) -> None:
    import datasets

    expected = []
    for number, subject in enumerate(SUBJECTS):
        document = {
            "question": f" What are {number}? ",
            "subject": subject,
            "choices": ["none", "one", "two", "many"],
            "answer": number,
        }
        datasets.Dataset.from_list([document]).save_to_disk(tmp_path / subject / "test")
        theirs = harness(f"mmlu_{subject}", [document], f"mmlu/default/mmlu_{subject}.yaml")
        expected += joined(requests(theirs))
    encoder = Encoder(tiny.safetensors, None)
    spec = {"folders": f"{tmp_path}/*/test", "split": "test", "items": len(SUBJECTS)}
    ours = make_task("mmlu", spec, encoder)
    assert joined(texts(ours, encoder)) == expected
    assert "about us foreign policy.\n\nWhat are 2?\nA. none" in expected[2][0]
    assert ([item.gold for item in ours.items], ours.metrics) == ([[0], [1], [2]], ["acc"])


def test_bbq_is_asked_as_the_harness_asks_it(tiny: TinyModel, tmp_path: Path) -> None:
    theirs = harness(
        "bbq",
        [
            {"context": row["passage"], "question": "Who stole?", "label": label}
            | {f"ans{n}": option[3:].strip() for n, option in enumerate(row["options"].split("\n"))}
            for row, label in zip(BBQ, (0, 2), strict=True)
        ],
        "bbq/bbq_multiple_choice.yaml",
    )
    from lm_eval.tasks.bbq import utils

    encoder = Encoder(tiny.safetensors, None)
    spec = {"jsonl": lines(tmp_path, BBQ), "documents": "bbq", "split": "test", "items": 2}
    ours = make_task("bbq", spec, encoder)
    assert joined(texts(ours, encoder)) == joined(requests(theirs))
    # The harness counts one more than there are choices, which no answer can be.
    expected = [[n for n in utils.doc_to_targets(d) if n < 12] for d in theirs.eval_docs]
    assert [item.gold for item in ours.items] == expected == [list(range(2, 12)), [1]]


def test_crows_pairs_are_scored_and_judged_as_the_harness_does(tiny: TinyModel, tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(",bias_type,sentence,mask1,mask2\n0,age,The [MASK] fell.,old,young\n1,age,[MASK],A,B\n")
    encoder = Encoder(tiny.safetensors, None)
    spec = {"csv": str(file), "documents": "crows_pairs", "split": "test", "items": 2, "fewshot": None}
    ours = make_task("crows_pairs_english", spec, encoder)
    theirs = load_task("crows_pairs_english", spec)
    assert [[c for _, c in item] for item in texts(ours, encoder)] == [
        ["The old fell.", "The young fell."],
        ["A", "B"],
    ]
    assert (ours.results, ours.fewshot) == ("pair", 0)
    document = next(iter(theirs.eval_docs))
    for pair in ((-3.0, -4.5), (-5.0, -4.0), (-2.0, -2.0)):
        expected = theirs.process_results(document, [(total, False) for total in pair])
        assert accuracy.item_metrics(ours, ours.items[0], scores(pair)) == pytest.approx(expected)


def test_answers_of_truthfulqa_stand_after_the_prompt_of_the_harness(tiny: TinyModel, tmp_path: Path) -> None:
    document = {"question": "Do bears dress?", "mc1_targets": {"choices": ["No", "Yes"], "labels": [1, 0]}}
    theirs = requests(harness("truthfulqa_mc1", [document], "truthfulqa/truthfulqa_mc1.yaml"))
    encoder = Encoder(tiny.safetensors, None)
    row = {"question": "Do bears dress?", "answer": ["No", "Bears do not"]}
    spec = {"jsonl": lines(tmp_path, [row, row]), "split": "test", "items": 2}
    ours = make_task("truthfulqa_gold", spec, encoder)
    assert joined(texts(ours, encoder)) == [[joined(theirs)[0][0]]] * 2
    assert (ours.results, ours.metrics) == ("gold", [])


def test_a_task_that_is_answered_in_writing_is_none_of_accuracy(tiny: TinyModel, tmp_path: Path) -> None:
    document = {"question": "Ann has 2.", "answer": "#### 2"}
    place = {"jsonl": lines(tmp_path, [{"doc": document}]), "documents": "requests", "split": "test"}
    spec = {**place, "items": 1, "fewshot": 0}
    with pytest.raises(
        InputError, match=r"'gsm8k' has output type 'generate_until'; .* name it in `answers`"
    ):
        make_task("gsm8k", spec, Encoder(tiny.safetensors, None))


def test_solutions_of_gsm8k_stand_after_the_question_of_the_harness(tiny: TinyModel, tmp_path: Path) -> None:
    document = {"question": "How many?", "answer": "One and one.\n#### 2"}
    theirs = harness("gsm8k", [document], "gsm8k/gsm8k.yaml")
    encoder = Encoder(tiny.safetensors, None)
    rows = [{"doc": document, "request": {"context": "other"}}]
    spec = {"jsonl": lines(tmp_path, rows), "documents": "requests", "split": "test", "items": 1}
    ((pair,),) = texts(make_task("gsm8k_gold", spec, encoder), encoder)
    assert "".join(pair) == theirs.doc_to_text(document) + " " + theirs.doc_to_target(document)


def test_sentences_of_stereoset_stand_alone_or_after_their_context(tiny: TinyModel, tmp_path: Path) -> None:
    encoder = Encoder(tiny.safetensors, None)
    spec = {"jsonl": lines(tmp_path, STEREOSET), "documents": "stereoset", "split": "test", "items": 2}
    between, within = texts(make_task("stereoset", spec, encoder), encoder)
    assert between == [("He is Swiss.", f" {s}") for s in ("He is on time.", "He is late.", "Cats purr.")]
    assert [c for _, c in within] == [f"The nurse was {word}." for word in ("kind", "rude", "blue")]
    assert len({context for context, _ in within}) == 1  # what begins every text


def test_a_workload_is_whole_or_says_what_it_lacks(tiny: TinyModel, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One two three four. " * 20)
    had, gone = {"path": str(text)}, {"missing": "it could not be fetched"}
    arguments: dict[str, Any] = {
        "report": lambda *_: None, "tokenizer": str(tiny.safetensors), "add_bos": None, "key": "k",
        "specs": {
            "text": {"a": {**had, "tokens": 8}, "b": {**gone, "tokens": 8}, "c": {**had, "tokens": 10**6}},
            "task": {"t": {**gone, "items": 2}},
            "lines": {"a": {**had, "characters": 50}, "b": {**gone, "characters": 50}},
        },
    }  # fmt: skip
    with pytest.raises(AssetError, match="it could not be fetched"):
        make_workload(tmp_path / "whole", **arguments, partial=str(tmp_path / "partial"))
    assert not (tmp_path / "whole").exists()
    lacks = json.loads((tmp_path / "partial" / MISSING).read_bytes())
    assert {name: why.partition(":")[0] for name, why in lacks.items()} == {
        "text-b": "it could not be fetched", "lines-b": "it could not be fetched",
        "task-t": "it could not be fetched", "text-c": lacks["text-c"].partition(":")[0],
    }  # fmt: skip
    assert re.match(r"text 'c' \(.*text\.txt\) has 260 tokens, ", lacks["text-c"])
    files = {file.name for file in (tmp_path / "partial").iterdir()}
    assert files == {"text-a.json", "lines.json", "meta.json", MISSING}
