"""Marks of written answers are those of lm-evaluation-harness."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.errors import MeasurementError
from quantgate.items import Questions
from quantgate.supply.encoder import Encoder
from quantgate.supply.marks import mark
from quantgate.supply.questions import make_questions

from selftest.supply.harness import harness, lines
from selftest.supply.test_questions import DOCUMENTS, ITEMS, PLAIN, spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from selftest.tiny import TinyModel


def questions(documents: Sequence[dict[str, Any]] = DOCUMENTS, name: str = "gsm8k") -> Questions:
    return Questions(
        name=name, version="3", chat=False, template="", fewshot=0, until=[], limit=8, ends=[0],
        items=[[1]] * len(documents), documents=list(documents), data_hash="d", token_hash="t",
    )  # fmt: skip


ANSWERS = [
    "2 and 2.\n#### 4", "The answer is 6.", "#### 9", "no idea", "", "#### 14 or 15", "16.", "Nine.\n#### 18",
]  # fmt: skip


def by_the_harness(answers: Sequence[str]) -> dict[str, Any]:
    """What lm-eval's own evaluation says of these answers: its model writes them."""
    from lm_eval import evaluator
    from lm_eval.api.model import LM

    class Writes(LM):  # type: ignore[misc]
        def generate_until(self, requests: Any) -> list[str]:
            return [answers[request.doc_id] for request in requests]

        def loglikelihood(self, requests: Any) -> Any:
            raise NotImplementedError

        def loglikelihood_rolling(self, requests: Any) -> Any:
            raise NotImplementedError

    task = harness("gsm8k", DOCUMENTS, "gsm8k/gsm8k.yaml")
    task.set_config("num_fewshot", 0)
    tasks = {"tasks": {"gsm8k": task}, "groups": {}, "group_map": {}}
    results: dict[str, Any] = evaluator.evaluate(Writes(), tasks, bootstrap_iters=0)
    return results


def test_marks_are_those_of_the_harnesss_own_evaluation() -> None:
    theirs, ours = by_the_harness(ANSWERS), mark(questions(), ANSWERS)
    assert ours.metric == "exact_match"
    for name, marks in ours.by_filter.items():
        samples = [one for one in theirs["samples"]["gsm8k"] if one["filter"] == name]
        assert marks == [one["exact_match"] for one in sorted(samples, key=lambda one: one["doc_id"])]
        assert sum(marks) / 8 == theirs["results"]["gsm8k"][f"exact_match,{name}"]
    assert ours.by_filter["strict-match"] == [1, 0, 0, 0, 0, 1, 0, 1]
    assert ours.by_filter["flexible-extract"] == [1, 1, 0, 0, 0, 0, 1, 1]
    assert ours.solved == [1, 1, 0, 0, 0, 1, 1, 1]
    assert ours.format == [1, 0, 1, 0, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("task", "documents"),
    [
        (
            "triviaqa",
            [
                {"question": "Who wrote Dracula", "answer": {"aliases": ["Bram Stoker", "Abraham Stoker"]}},
                {"question": "How many legs has an ant", "answer": {"aliases": ["six", "6"]}},
            ],
        ),
        (
            "squad_written",
            [
                {
                    "query": "Background: ... Question: By whom?\nAnswer:",
                    "answers_text": ["Bram Stoker", "Abraham Stoker"],
                },
                {"query": "Background: ... Question: How many?\nAnswer:", "answers_text": ["six", "6", "6"]},
            ],
        ),
    ],
)
def test_a_question_with_several_right_answers_takes_any(
    task: str, documents: list[dict[str, Any]], tiny: TinyModel, tmp_path: Path
) -> None:
    place = {"jsonl": lines(tmp_path, [{"doc": one} for one in documents]), "documents": "requests"}
    further = {"split": "test", "items": 2, **PLAIN, "fewshot": 0}
    posed = make_questions(task, {**place, **further}, Encoder(tiny.safetensors, None))
    assert "\n" in posed.until
    assert mark(posed, [" abraham stoker.", "6"]).solved == [1, 1]
    assert mark(posed, ["Stoker", "seven"]).solved == [0, 0]
    assert mark(posed, ["Stoker", " "]).format == [1, 0]


def test_a_filter_that_fails_on_an_answer_names_the_task(tmp_path: Path, monkeypatch: Any) -> None:
    name = "half"
    (tmp_path / "half.yaml").write_text(YAML.format(function="!function rules.results", metric="acc"))
    (tmp_path / "rules.py").write_text(
        "def results(document, answers):\n    return {'acc': float(int(answers[0]) == document['target'])}\n"
    )
    monkeypatch.setattr("quantgate.supply.marks.task_file", lambda name: tmp_path / f"{name}.yaml")
    documents = [{"question": "1 + 1?", "target": 2}, {"question": "2 + 1?", "target": 3}]
    assert mark(questions(documents, name), ["2", "4"]).solved == [1, 0]
    with pytest.raises(MeasurementError, match=r"task 'half': .*filters and results fail .*invalid literal"):
        mark(questions(documents, name), ["2", "three"])


def test_a_task_without_a_yes_or_no_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "half.yaml").write_text(YAML.format(function="!function rules.results", metric="f1"))
    (tmp_path / "rules.py").write_text(
        "def results(document, answers):\n    return {'f1': 1.0, 'length': 2}\n"
    )
    monkeypatch.setattr("quantgate.supply.marks.task_file", lambda name: tmp_path / f"{name}.yaml")
    with pytest.raises(
        MeasurementError, match=r"has no metric that says right or wrong \(its metrics: f1, len"
    ):
        mark(questions([{"question": "1 + 1?", "target": 2}], "half"), ["2"])


YAML = """\
task: half
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{target}}}}"
process_results: {function}
metric_list:
  - metric: {metric}
    aggregation: mean
    higher_is_better: true
"""


def test_documents_survive_the_workload(tiny: TinyModel, tmp_path: Path) -> None:
    ours = make_questions("gsm8k", spec(tmp_path), Encoder(tiny.safetensors, None))
    again = Questions.model_validate(json.loads(ours.model_dump_json()))
    answers = [document["answer"] for document in DOCUMENTS[:ITEMS]]
    assert mark(again, answers).solved == [1] * ITEMS
