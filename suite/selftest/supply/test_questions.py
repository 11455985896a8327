"""Questions answered in writing: prompts, ends and marks are those of lm-evaluation-harness."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.errors import AssetError, InputError, MeasurementError
from quantgate.items import Questions
from quantgate.supply import questions as made
from quantgate.supply.encoder import Encoder
from quantgate.supply.marks import mark
from quantgate.supply.questions import make_questions

from selftest.supply.copies import edit
from selftest.supply.test_tasks import harness, lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from selftest.tiny import TinyModel

CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
DOCUMENTS = [
    {"question": f"Ann has {n} eggs and buys {n}. How many?", "answer": f"{n} and {n}.\n#### {2 * n}"}
    for n in range(2, 10)
]
ITEMS = 4
PLAIN = {"chat": False, "system": None, "fewshot": None, "turns": True}


def spec(folder: Path, **further: Any) -> dict[str, Any]:
    rows = [{"doc": document} for document in DOCUMENTS]
    place = {"jsonl": lines(folder, rows), "documents": "requests", "split": "test"}
    return {**place, "items": ITEMS, **PLAIN, **further}


def encoder_of(folder: Path, template: str | None = CHAT) -> Encoder:
    encoder = Encoder(folder, None)
    encoder.tokenizer.chat_template = template
    return encoder


@pytest.mark.parametrize("fewshot", [None, 0, 2])
@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("turns", [False, True])
def test_prompts_are_those_of_the_harness(
    fewshot: int | None, chat: bool, turns: bool, tiny: TinyModel, tmp_path: Path
) -> None:
    encoder = encoder_of(tiny.safetensors)
    ours = make_questions("gsm8k", spec(tmp_path, chat=chat, turns=turns, fewshot=fewshot), encoder)
    theirs = harness("gsm8k", DOCUMENTS, "gsm8k/gsm8k.yaml")
    if fewshot is not None:
        theirs.set_config("num_fewshot", fewshot)
    theirs.fewshot_cfg.split = "test"
    if fewshot:
        theirs.sampler = first_n(DOCUMENTS)
    theirs.set_fewshot_seed(1234)

    def rendered(messages: Any, add_generation_prompt: bool) -> str:
        text = encoder.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return str(text)

    theirs.build_all_requests(
        limit=ITEMS, rank=0, world_size=1, apply_chat_template=chat, fewshot_as_multiturn=turns,
        chat_template=rendered if chat else None,
    )  # fmt: skip
    expected = [request.args[0] for request in theirs.instances]
    assert [encoder.tokenizer.decode(ids) for ids in ours.items] == expected
    assert ours.fewshot == (5 if fewshot is None else fewshot)
    assert all(text.count("Question:") == ours.fewshot + 1 for text in expected)
    assert ("assistant:" in expected[0]) is chat
    assert (ours.until, ours.limit) == (["Question:", "</s>", "<|im_end|>"], 256)
    assert ours.ends == [0]
    assert ours.documents == DOCUMENTS[:ITEMS]


def first_n(documents: list[dict[str, Any]]) -> Any:
    from lm_eval.api.samplers import get_sampler

    return get_sampler("first_n")(documents, rnd=None)


def test_a_beginning_of_sequence_token_stands_once(folder: Path, tmp_path: Path) -> None:
    edit(folder / "tokenizer_config.json", add_bos_token=True)
    encoder = Encoder(folder, True)
    encoder.tokenizer.chat_template = "{{ bos_token }}" + CHAT
    for chat in (False, True):
        ours = make_questions("gsm8k", spec(tmp_path, chat=chat, fewshot=0), encoder)
        assert all((ids[0], ids.count(0)) == (0, 1) for ids in ours.items)


def test_the_system_message_is_in_the_prompt(tiny: TinyModel, tmp_path: Path) -> None:
    encoder = encoder_of(tiny.safetensors)
    ours = make_questions("gsm8k", spec(tmp_path, chat=True, fewshot=0, system="Be brief."), encoder)
    assert encoder.tokenizer.decode(ours.items[0]).startswith("system: Be brief.\nuser: Question: Ann has 2")


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("arc_easy", "has output type 'multiple_choice': .* name it in `accuracy`"),
        ("gsm8k_cot_self_consistency", r"takes 64 answers .* `repeats: 1`"),
        ("squadv2", r"is a class of lm-evaluation-harness \(squadv2.yaml\), .* name it as `file` in"),
        ("humaneval", "asks for programs, .* name it in `code`"),
        ("mbpp", "asks for programs, .* name it in `code`"),
    ],
)
def test_a_task_that_cannot_be_asked_says_why(
    task: str, message: str, tiny: TinyModel, tmp_path: Path
) -> None:
    documents: list[dict[str, Any]] = [*DOCUMENTS]
    if task == "arc_easy":
        documents = [
            {"question": "Q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}
        ]
    place = {"jsonl": lines(tmp_path, [{"doc": one} for one in documents]), "documents": "requests"}
    with pytest.raises(InputError, match=f"task '{task}' {message}"):
        make_questions(task, {**place, "split": "test", "items": 1, **PLAIN}, Encoder(tiny.safetensors, None))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"until": ["\n", ""]}, "`until` of its generation_kwargs has an empty text"),
        ({"until": "\n", "do_sample": True, "temperature": 0.7}, r"at random \(do_sample\)"),
        ({"until": ["\n"], "temperature": 0.7}, r"at random \(do_sample\)"),
        (
            {"until": ["\n"], "max_gen_toks": 0},
            "max_gen_toks of its generation_kwargs is 0: must be 1 or more",
        ),
    ],
)
def test_settings_of_a_task_that_do_not_go_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made._ending(settings)


def test_the_tokens_of_an_answer_are_the_tasks_or_the_harnesss() -> None:
    assert made._ending({"until": "\n", "max_gen_toks": 9}) == (["\n"], 9)
    assert made._ending({"until": ["a", "b"]}) == (["a", "b"], 256)


def test_a_model_without_a_template_or_one_that_refuses_says_so(tiny: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task 'gsm8k': the model has no chat template: set chat = false"):
        make_questions("gsm8k", spec(tmp_path, chat=True), encoder_of(tiny.safetensors, None))
    with pytest.raises(InputError, match="'gsm8k': the prompt of item 1 is empty: ask with chat = false"):
        make_questions("gsm8k", spec(tmp_path, chat=True), encoder_of(tiny.safetensors, "{# nothing #}"))
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    with pytest.raises(InputError, match=r"task 'gsm8k': .*no system.*leave `system` out"):
        make_questions(
            "gsm8k", spec(tmp_path, chat=True, system="Be brief."), encoder_of(tiny.safetensors, refuses)
        )


def test_a_task_with_too_few_documents_and_one_without_data(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(tiny.safetensors, None)
    with pytest.raises(InputError, match="task 'gsm8k' has 8 items, the tier needs 9: lower `items`"):
        make_questions("gsm8k", spec(tmp_path, items=9), encoder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        AssetError, match=r"task 'triviaqa': .*where there is no hub, say in .tasks.triviaqa. where its rows"
    ):
        make_questions("triviaqa", {"items": 1, **PLAIN}, encoder)


# --- marks ----------------------------------------------------------------------------------------


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
    asked = make_questions(task, {**place, **further}, Encoder(tiny.safetensors, None))
    assert "\n" in asked.until
    assert mark(asked, [" abraham stoker.", "6"]).solved == [1, 1]
    assert mark(asked, ["Stoker", "seven"]).solved == [0, 0]
    assert mark(asked, ["Stoker", " "]).format == [1, 0]


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
