"""Tasks beside those of smoke: documents made of an asset's rows; prompts, choices, right answers and results held
against lm-evaluation-harness where it has the task."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.errors import AssetError, InputError
from quantgate.items import MISSING, Choice, Item, Task
from quantgate.measure.metrics import accuracy
from quantgate.measure.scoring import Scored
from quantgate.supply.encoder import Encoder
from quantgate.supply.tasks import build_task, load_task, make_task, results_of
from quantgate.supply.workload import make_workload

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def lines(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def texts(task: Task, encoder: Encoder) -> list[list[tuple[str, str]]]:
    """Of each item, context and continuation of each choice."""
    decode = encoder.tokenizer.decode
    return [[(decode(c.context), decode(c.continuation)) for c in item.choices] for item in task.items]


def harness(name: str, documents: list[dict[str, Any]], file: str) -> Any:
    """The harness's task on these documents; file: in the folder of its tasks."""
    import datasets
    import lm_eval

    data = datasets.DatasetDict({"test": datasets.Dataset.from_list(documents)})

    def configure(config: dict[str, Any]) -> dict[str, Any]:
        splits = dict.fromkeys(("training_split", "validation_split", "fewshot_split", "process_docs"))
        return config | splits | {"test_split": "test", "custom_dataset": lambda **_: data}

    return build_task(name, (Path(lm_eval.__file__).parent / "tasks" / file).parent, configure)


def requests(task: Any) -> list[list[tuple[str, str]]]:
    """What the harness scores, by item."""
    task.build_all_requests(rank=0, world_size=1)
    by_item: dict[int, list[tuple[str, str]]] = {}
    for request in task.instances:
        by_item.setdefault(request.doc_id, []).append(request.args)
    return list(by_item.values())


def joined(items: list[list[tuple[str, str]]]) -> list[list[str]]:
    return [["".join(pair) for pair in item] for item in items]


# --- prompts and choices of the harness -----------------------------------------------------------

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


# --- a task of one's own --------------------------------------------------------------------------

CAPITALS = """\
task: capitals
output_type: multiple_choice
num_fewshot: 2
fewshot_split: test
doc_to_text: "{{country}}:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
COUNTRIES = [
    {"country": name, "choices": [f"{name} City", "Bern"], "answer": 0}
    for name in ("Ay", "Bee", "Cee", "Dee")
]


def capitals(
    folder: Path, rows: Sequence[dict[str, Any]], *changes: tuple[str, str], **further: Any
) -> dict[str, Any]:
    """The place of a task of these rows. changes: of the text of its file."""
    text = CAPITALS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "capitals.yaml").write_text(text)
    file = str(folder / "capitals.yaml")
    return {"jsonl": lines(folder, rows), "file": file, "items": len(rows), **further}


def test_a_task_that_asks_for_examples_has_them_unless_the_tier_says_how_many(
    tiny: TinyModel, tmp_path: Path
) -> None:
    encoder = Encoder(tiny.safetensors, None)
    spec = capitals(tmp_path, COUNTRIES)
    theirs = load_task("capitals", spec)
    theirs.set_fewshot_seed(1234)  # the harness's default
    expected = joined(requests(theirs))
    for fewshot, count in ((None, 2), (0, 0), (1, 1)):
        options = accuracy.Options(tasks=["capitals"], items=4, fewshot=fewshot)
        posed = accuracy.needs(options).tasks["capitals"].model_dump()
        made = make_task("capitals", {**spec, **posed}, encoder)
        prompts = joined(texts(made, encoder))
        assert made.fewshot == count
        assert all(one.count(":") == count + 1 for item in prompts for one in item)
        assert (prompts == expected) is (fewshot is None)


def rows_with(**changes: Any) -> list[dict[str, Any]]:
    """Two rows, the second one with these changes."""
    return [COUNTRIES[0], {**COUNTRIES[1], **changes}]


@pytest.mark.parametrize("norm", [True, False])
def test_the_harnesss_mutual_information_adds_no_choices(norm: bool, tiny: TinyModel, tmp_path: Path) -> None:
    metrics = "{metric: acc}, {metric: acc_norm}" if norm else "{metric: acc}"
    encoder = Encoder(tiny.safetensors, None)
    changes = (("[{metric: acc}, {metric: acc_norm}]", f"[{metrics}, {{metric: acc_mutual_info}}]"),)
    task = make_task("capitals", capitals(tmp_path, COUNTRIES, *changes, fewshot=0), encoder)
    plain = make_task("capitals", capitals(tmp_path, COUNTRIES, fewshot=0), encoder)
    assert task.items == plain.items
    assert task.metrics == (["acc", "acc_norm"] if norm else ["acc"])


@pytest.mark.parametrize(
    ("rows", "gold"),
    [
        (rows_with(answer=1), [1]),  # an index
        ([{**row, "answer": row["choices"][0]} for row in rows_with()], [0]),  # a text
        (rows_with(choices=["Bern"], answer=0), [0]),  # of one choice
        (
            rows_with(choices=["a", "b", "c", "d", "a"], answer=4),
            [4],
        ),  # more than the others have, two of them equal
    ],
)
def test_right_answers_are_those_of_the_harness(
    rows: list[dict[str, Any]],
    gold: list[int],
    tiny: TinyModel,
    tmp_path: Path,
) -> None:
    spec = capitals(tmp_path, rows, fewshot=0)
    ours, theirs = make_task("capitals", spec, Encoder(tiny.safetensors, None)), load_task("capitals", spec)
    assert ours.items[1].gold == gold
    source = random.Random(2)
    for item, document in zip(ours.items, theirs.eval_docs, strict=True):
        for _ in range(10):
            totals = [-source.choice((1.0, 2.0, 9.0)) for _ in item.choices]  # with ties
            expected = theirs.process_results(document, [(total, False) for total in totals])
            assert accuracy.item_metrics(ours, item, scores(totals)) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"answer": 2},
            r"item 2: the right answer, 2, is none of its 2 choices, nor the number of one, from 0: \['Bee",
        ),
        ({"answer": -1}, "item 2: the right answer, '-1', is none of"),
        ({"answer": None}, "item 2: the right answer, 'None', is none of"),
        ({"choices": ["", "Bern"]}, "item 2: choice 1 is empty, and acc_norm divides by the characters"),
    ],
)
def test_an_item_that_cannot_be_right_is_named(
    change: dict[str, Any], message: str, tiny: TinyModel, tmp_path: Path
) -> None:
    spec = capitals(tmp_path, rows_with(**change), fewshot=0)
    with pytest.raises(InputError, match=f"task 'capitals': {message}"):
        make_task("capitals", spec, Encoder(tiny.safetensors, None))


LISTED = ('"{{answer}}"', "answer")  # as the column has it, not as text
JOINED = ("metric_list", 'target_delimiter: ""\nmetric_list')
BARE = (", {metric: acc_norm}", "")


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (
            [{**row, "answer": "1"} for row in COUNTRIES],
            [LISTED],
            r"'1', is none of .*in a column of texts, write \"\{\{column\}\}\"\): \['Ay City'",
        ),
        (
            [{**row, "answer": []} for row in COUNTRIES],
            [LISTED],
            r"right answer, \[\], is none of its 2 choices",
        ),
        (
            rows_with(choices=["", "Bern"]),
            [JOINED, BARE],
            "choice 1, '', has no token of its own after the prompt",
        ),
    ],
)
def test_answers_and_choices_of_other_kinds_are_named(
    rows: list[dict[str, Any]], changes: list[tuple[str, str]], message: str,
    tiny: TinyModel, tmp_path: Path,
) -> None:  # fmt: skip
    spec = capitals(tmp_path, rows, *changes, fewshot=0)
    with pytest.raises(InputError, match=message):
        make_task("capitals", spec, Encoder(tiny.safetensors, None))


def test_a_number_in_a_column_of_texts_is_one_in_a_template(tiny: TinyModel, tmp_path: Path) -> None:
    rows = [{**row, "answer": "1"} for row in COUNTRIES]
    made = make_task("capitals", capitals(tmp_path, rows, fewshot=0), Encoder(tiny.safetensors, None))
    assert [item.gold for item in made.items] == [[1]] * 4


def test_data_of_a_task_that_cannot_be_read_is_named_with_the_task(tiny: TinyModel, tmp_path: Path) -> None:
    spec = capitals(tmp_path, COUNTRIES)
    (tmp_path / "rows.jsonl").write_text("{}\n{")
    with pytest.raises(InputError, match=r"task 'capitals': .*rows.jsonl, line 2: is not JSON"):
        make_task("capitals", spec, Encoder(tiny.safetensors, None))


# --- results --------------------------------------------------------------------------------------


def scores(totals: Sequence[float]) -> list[Scored]:
    return [Scored(np.array([total]), np.array([False])) for total in totals]


def a_task(results: Any, tokens: Sequence[int], gold: list[int], *metrics: str) -> tuple[Task, Item]:
    item = Item(
        choices=[Choice(context=[1], continuation=[2] * n, characters=4 * n) for n in tokens], gold=gold
    )
    task = Task(
        name="x", version="1", output_type="multiple_choice", results=results, metrics=list(metrics),
        items=[item], data_hash="d", prompt_hash="p", token_hash="t",
    )  # fmt: skip
    return task, item


def test_the_share_of_true_answers_is_that_of_the_harness() -> None:
    source = random.Random(5)
    labels = [1, 1, 0, 1, 0]
    document = {
        "question": "Do bears dress?",
        "mc1_targets": {"choices": ["a"], "labels": [1]},
        "mc2_targets": {"choices": list("abcde"), "labels": labels},
    }
    theirs = harness("truthfulqa_mc2", [document], "truthfulqa/truthfulqa_mc2.yaml")
    task, item = a_task("mass", [1] * 5, [0, 1, 3], "acc")
    for _ in range(20):
        totals = [-30 * source.random() for _ in labels]
        expected = float(theirs.process_results(document, [(t, False) for t in totals])["acc"])
        assert accuracy.item_metrics(task, item, scores(totals)) == {"acc": pytest.approx(expected)}
    assert accuracy.margins(task, item, scores([-1.0, -2.0, -4.0, -8.0, -3.0])) == {"margin": 2.0}


def test_the_right_answers_of_truthfulqa_mc2_are_its_labels(tiny: TinyModel, tmp_path: Path) -> None:
    rows = [
        {
            "question": "Do bears dress?",
            "mc1_targets": {"choices": ["No", "Yes"], "labels": [1, 0]},
            "mc2_targets": {"choices": ["No", "Never", "Yes", "Rarely"], "labels": [1, 1, 0, 0]},
        }
    ] * 2
    spec = {"jsonl": lines(tmp_path, rows), "split": "validation", "items": 2}
    task = make_task("truthfulqa_mc2", spec, Encoder(tiny.safetensors, None))
    assert (task.results, task.metrics, [i.gold for i in task.items]) == ("mass", ["acc"], [[0, 1]] * 2)


@pytest.mark.parametrize(
    ("per_token", "lms", "ss"),
    [((-1, -2, -3), 1.0, 1.0), ((-2, -1, -3), 1.0, 0.0), ((-1, -3, -2), 0.5, 1.0), ((-3, -2, -1), 0.0, 0.0)],
)
def test_stereoset_counts_preferences_by_token(per_token: tuple[float, ...], lms: float, ss: float) -> None:
    """A long sentence is not less likely for its length."""
    tokens = (5, 2, 9)
    task, item = a_task("stereoset", tokens, [0], "lms", "ss")
    totals = scores([n * p for n, p in zip(tokens, per_token, strict=True)])
    assert accuracy.item_metrics(task, item, totals) == {"lms": lms, "ss": ss}
    assert accuracy.margins(task, item, totals) == {}


def test_a_given_answer_has_its_likelihood_and_that_by_character() -> None:
    task, item = a_task("gold", [3], [0])
    assert accuracy.item_metrics(task, item, scores([-6.0])) == {}
    assert accuracy.margins(task, item, scores([-6.0])) == {"margin": -6.0, "margin_norm": -0.5}


def test_code_of_a_task_that_is_not_known_is_refused() -> None:
    assert results_of("arc_easy", None) == "choice"
    with pytest.raises(InputError, match=r"task .odd. computes its results by a function"):
        results_of("odd", math.sqrt)
    with pytest.raises(InputError, match="by a function"):
        results_of("truthfulqa_mc2", "no-such-rule")


def test_a_workload_is_whole_or_says_what_it_lacks(tiny: TinyModel, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One two three four. " * 20)
    had, gone = {"path": str(text)}, {"missing": "it could not be fetched"}
    arguments: dict[str, Any] = {
        "report": lambda *_: None, "tokenizer": str(tiny.safetensors), "add_bos": None, "key": "k",
        "programs": {}, "prompts": {}, "questions": {}, "chats": False,
        "texts": {"a": {**had, "tokens": 8}, "b": {**gone, "tokens": 8}, "c": {**had, "tokens": 10**6}},
        "tasks": {"t": {**gone, "items": 2}},
        "lines": {"a": {**had, "characters": 50}, "b": {**gone, "characters": 50}},
    }  # fmt: skip
    with pytest.raises(AssetError, match="it could not be fetched"):
        make_workload(tmp_path / "whole", **arguments)
    assert not (tmp_path / "whole").exists()
    make_workload(tmp_path / "partial", **arguments, partial=True)
    lacks = json.loads((tmp_path / "partial" / MISSING).read_bytes())
    assert {name: why.partition(":")[0] for name, why in lacks.items()} == {
        "text-b": "it could not be fetched", "lines-b": "it could not be fetched",
        "task-t": "it could not be fetched", "text-c": lacks["text-c"].partition(":")[0],
    }  # fmt: skip
    assert "text 'c' has" in lacks["text-c"]
    files = {file.name for file in (tmp_path / "partial").iterdir()}
    assert files == {"text-a.json", "lines.json", "meta.json", MISSING}
