"""Items, prompts and examples of tasks are those of lm-evaluation-harness."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.errors import InputError
from quantgate.items import Choice, Item, Task
from quantgate.measure.metrics import accuracy
from quantgate.measure.scoring import Scored

from selftest.measure.fakes import task

if TYPE_CHECKING:
    from collections.abc import Callable

    from selftest.tiny import TinyModel


def scored(loglikelihood: float, greedy: bool) -> Scored:
    return Scored(np.array([loglikelihood]), np.array([greedy]))


def assert_as_lm_eval(theirs: Any, document: Any, ours: Task, item: Item, source: random.Random) -> None:
    """Random log-likelihoods, coarse ones too, so that there are ties."""
    for steps in (2, 10_000):
        results = [(-source.randint(1, steps) / steps * 30, source.random() < 0.5) for _ in item.choices]
        expected = {
            k: float(v) for k, v in theirs.process_results(document, results).items() if k in ours.metrics
        }
        assert set(expected) == set(ours.metrics)
        assert accuracy.item_metrics(ours, item, [scored(*r) for r in results]) == expected


def in_memory(documents: list[dict[str, Any]], **config: Any) -> Any:
    """A task of lm-eval whose documents are these."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    data = datasets.DatasetDict({"test": datasets.Dataset.from_list(documents)})
    return ConfigurableTask(
        config={"task": "mine", "custom_dataset": lambda **_: data, "test_split": "test", **config}
    )


def metric_list(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


def test_items_of_multiple_choice_are_judged_as_lm_eval_does() -> None:
    source = random.Random(2)
    documents: list[dict[str, Any]] = [
        {"q": f"question {n}", "choices": ["x" * source.randint(1, 12) for _ in range(4)], "label": n % 4}
        for n in range(40)
    ]
    theirs = in_memory(
        documents, output_type="multiple_choice", doc_to_text="{{q}}", doc_to_choice="{{choices}}",
        doc_to_target="label", metric_list=metric_list("acc", "acc_norm"),
    )  # fmt: skip
    for document in documents:
        item = Item(
            choices=[Choice(context=[1], continuation=[1], characters=len(c)) for c in document["choices"]],
            gold=[document["label"]],
        )
        ours = task("mine", "multiple_choice", ["acc", "acc_norm"], [item])
        assert_as_lm_eval(theirs, document, ours, item, source)


def test_items_of_loglikelihood_tasks_are_judged_as_lm_eval_does() -> None:
    documents = [{"text": "the last word"}, {"text": "another one"}]
    theirs = in_memory(
        documents, output_type="loglikelihood", doc_to_text="{{text.split(' ')[0]}}",
        doc_to_target="{{text.split(' ')[-1]}}", metric_list=metric_list("perplexity", "acc"),
    )  # fmt: skip
    item = Item(choices=[Choice(context=[1], continuation=[2], characters=4)], gold=[0])
    ours = task("mine", "loglikelihood", ["acc"], [item])
    for greedy in (True, False):
        judged = theirs.process_results(documents[0], [(-3.0, greedy)])
        assert accuracy.item_metrics(ours, item, [scored(-3.0, greedy)]) == {"acc": float(judged["acc"])}
        assert judged["acc"] == greedy


TASKS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "arc_easy": (
        "validation",
        lambda n: {
            "question": f"How many are {n}?",
            # Some items of ARC name their choices by number.
            "choices": {
                "text": [f"{n}", "many", "none", "it depends"],
                "label": list("ABCD" if n % 2 else "1234"),
            },
            "answerKey": "ABCD"[n % 4] if n % 2 else "1234"[n % 4],
        },
    ),
    "hellaswag": (
        "validation",
        lambda n: {
            "activity_label": "Baking",
            "ctx_a": f"A man takes {n} eggs.",
            "ctx_b": "he",
            "endings": ["breaks them. [substeps] Then", "eats", "[title] sells all of them", "waits a while"],
            "label": str(n % 4),
        },
    ),
    "piqa": (
        "validation",
        lambda n: {"goal": f"Boil {n} eggs", "sol1": "Use water.", "sol2": "Use a hat.", "label": n % 2},
    ),
    "winogrande": (
        "validation",
        lambda n: {
            "sentence": f"Ann gave Bo {n} eggs because _ was kind.",
            "option1": "Ann",
            "option2": "Bo",
            "answer": "12"[n % 2],
        },
    ),
    "lambada_openai": ("test", lambda n: {"text": f"He had {n} eggs and ate every single egg"}),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_tasks_of_smoke_are_judged_as_lm_eval_does(name: str, tiny: TinyModel, tmp_path: Path) -> None:
    """From documents, through `make_task`, to the metrics: gold answers and lengths come from lm-eval's prompts."""
    import datasets
    from quantgate.supply.encoder import Encoder
    from quantgate.supply.tasks import load_task, make_task

    split, document_of = TASKS[name]
    datasets.disable_progress_bars()
    datasets.Dataset.from_list([document_of(n) for n in range(8)]).save_to_disk(tmp_path / "documents")
    spec = {"folder": str(tmp_path / "documents"), "split": split, "items": 8}
    ours = make_task(name, spec, Encoder(tiny.safetensors, None))
    theirs = load_task(name, spec)
    documents = list(theirs.eval_docs)
    assert len(ours.items) == len(documents) == 8
    source = random.Random(4)
    for item, document in zip(ours.items, documents, strict=True):
        for _ in range(5):
            assert_as_lm_eval(theirs, document, ours, item, source)


def prompts_of(name: str, tiny: TinyModel, folder: Path, fewshot: int) -> list[list[str]]:
    """The text that each choice of each item is scored as."""
    import datasets
    from quantgate.supply.encoder import Encoder
    from quantgate.supply.tasks import make_task

    split, document_of = TASKS[name]
    datasets.disable_progress_bars()
    datasets.Dataset.from_list([document_of(n) for n in range(6)]).save_to_disk(folder / "documents")
    spec = {"folder": str(folder / "documents"), "split": split, "items": 6, "fewshot": fewshot}
    encoder = Encoder(tiny.safetensors, None)
    made = make_task(name, spec, encoder)
    assert made.fewshot == fewshot
    return [
        [encoder.tokenizer.decode([*c.context, *c.continuation]) for c in item.choices] for item in made.items
    ]


def test_examples_stand_before_each_item_as_lm_eval_has_them(tiny: TinyModel, tmp_path: Path) -> None:
    """The first ones of the documents, with their right answers, but for the item itself."""

    def example(n: int, answer: str) -> str:
        return f"Question: How many are {n}?\nAnswer: {answer}\n\n"

    prompts = prompts_of("arc_easy", tiny, tmp_path, 2)
    assert (
        prompts[0][1] == example(1, "many") + example(2, "none") + "Question: How many are 0?\nAnswer: many"
    )
    assert prompts[1][0] == example(0, "0") + example(2, "none") + "Question: How many are 1?\nAnswer: 1"
    begin = example(0, "0") + example(1, "many")
    for number in (2, 3, 4, 5):
        texts = [
            f"{begin}Question: How many are {number}?\nAnswer: {a}"
            for a in (number, "many", "none", "it depends")
        ]
        assert prompts[number] == texts


def test_examples_of_a_task_whose_contexts_differ(tiny: TinyModel, tmp_path: Path) -> None:
    first, *_, last = prompts_of("winogrande", tiny, tmp_path, 2)
    one, two = ("Ann gave Bo 1 eggs because Bo was kind.\n\n", "Ann gave Bo 2 eggs because Ann was kind.\n\n")
    assert first == [f"{one}{two}Ann gave Bo 0 eggs because {who} was kind." for who in ("Ann", "Bo")]
    assert last[0].startswith("Ann gave Bo 0 eggs because Ann was kind.\n\nAnn gave Bo 1 eggs because Bo")


@pytest.mark.parametrize("name", TASKS)
def test_prompts_with_examples_are_those_of_lm_evals_first_n(
    name: str, tiny: TinyModel, tmp_path: Path
) -> None:
    """Against a task of lm-eval that was configured by hand, on the documents it says it evaluates."""
    import datasets
    from quantgate.supply.sources import task_file
    from quantgate.supply.tasks import build_task

    prompts = prompts_of(name, tiny, tmp_path, 3)
    split, _ = TASKS[name]
    data = datasets.DatasetDict({split: datasets.load_from_disk(tmp_path / "documents")})
    splits = {f"{s}_split": split if s == split else None for s in ("training", "validation", "test")}
    sampler = {"sampler": "first_n", "split": splits["test_split"]}
    changes = {**splits, "custom_dataset": lambda **_: data, "num_fewshot": 3, "fewshot_config": sampler}
    theirs = build_task(name, task_file(name).parent, lambda config: config | changes)
    theirs.build_all_requests(rank=0, world_size=1)
    expected: list[list[str]] = [[] for _ in prompts]
    for request in theirs.instances:
        expected[request.doc_id].append("".join(request.args))
    assert prompts == expected


def test_more_examples_than_documents_are_refused(tiny: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"task .piqa.: lm-eval makes no prompts of it with 6 examples: .*exceeds the 5"
    ):
        prompts_of("piqa", tiny, tmp_path, 6)
