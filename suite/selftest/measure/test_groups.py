"""Metric groups: what they need of the workload; parity of tokenizers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from quantgate.jobs import Needs, Posed
from quantgate.measure.groups import TEMPLATE, unused_template
from quantgate.measure.metrics import (
    accuracy,
    answers,
    code,
    decoding,
    divergence,
    generation,
    perplexity,
    tokenizer,
)

from selftest.measure.fakes import Bigrams, Here

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def test_what_the_metrics_need_of_the_workload() -> None:
    assert perplexity.needs(perplexity.Options(text="t", n_ctx=16, windows=4)) == Needs(texts={"t": 64})
    in_chat = perplexity.Options(text="t", n_ctx=16, windows=4, chat=True, system="Be brief.")
    assert perplexity.needs(in_chat) == Needs(texts={"t": 64}, openings=["Be brief."])
    options = accuracy.Options(tasks=["a", "b"], items=5, items_of={"b": 9, "c": 7}, fewshot=3, chat=True)
    posed = {name: Posed(items=items, chat=True, fewshot=3) for name, items in {"a": 5, "b": 9}.items()}
    assert accuracy.needs(options) == Needs(tasks=posed)
    (plain,) = accuracy.needs(accuracy.Options(tasks=["a"], items=5)).tasks.values()
    assert plain == Posed(items=5, chat=False)
    assert code.GROUP.needs(code.Options(tasks=["humaneval"], items=3)) == Needs(programs={"humaneval": 3})
    assert decoding.GROUP.needs(decoding.Options(text="t", context=9, tokens=4)) == Needs(texts={"t": 14})
    longer = decoding.Stretch(context=30, tokens=2)
    assert decoding.GROUP.needs(decoding.Options(text="t", context=9, tokens=4, further=[longer])).texts == {
        "t": 33
    }
    assert tokenizer.GROUP.needs(tokenizer.Options(text="t", characters=9)) == Needs(lines={"t": 9})
    assert tokenizer.GROUP.needs(tokenizer.Options(text="t", chat=True)).chats


def test_a_template_that_is_not_used_is_noted_where_tasks_or_prompts_are_asked() -> None:
    options: dict[str, dict[str, Any]] = {
        "perplexity": {"text": "t"},
        "accuracy": {"tasks": ["a"]},
        "answers": {"tasks": ["b"], "chat": False},
        "generation": {},
        "tokenizer": {"text": "t"},
    }
    note = "the model has a chat template, which accuracy and answers do not use; chat = true uses it"
    assert unused_template(options, ["perplexity", "answers/b"]) == {TEMPLATE: note}
    assert unused_template(options, ["perplexity", "generation"]) == {}
    options["accuracy"]["chat"] = True
    assert "which answers does not use" in unused_template(options, ["answers/b"])[TEMPLATE]
    options["answers"]["chat"] = True
    assert unused_template(options, ["accuracy/a", "answers/b"]) == {}


@pytest.mark.parametrize("group", [perplexity, divergence, generation, accuracy, answers])
def test_a_system_message_without_a_chat_is_refused(group: Any) -> None:
    options: dict[Any, dict[str, Any]] = {
        perplexity: {"text": "t"},
        divergence: {"text": "t"},
        generation: {},
    }
    given = options.get(group, {"tasks": ["a"]})
    with pytest.raises(ValidationError, match="set chat = true, or remove system"):
        group.Options(**given, chat=False, system="Be brief.")
    assert group.Options(**given, chat=True, system="Be brief.").system == "Be brief."


@pytest.mark.parametrize("group", [accuracy, answers])
def test_examples_in_one_message_without_a_chat_are_refused(group: Any) -> None:
    with pytest.raises(ValidationError, match="set chat = true, or remove turns"):
        group.Options(tasks=["a"], chat=False, turns=False)
    assert not group.Options(tasks=["a"], chat=True, turns=False).turns


def test_tokenizer_counts_the_lines_whose_ids_differ(here: Here) -> None:
    lines = [("ab", [97, 98]), ("cd", [99]), ("", []), ("ef", [102, 101]), ("gh", [103, 104])]
    here.write("lines.json", json.dumps(lines))
    metric = here.measure(tokenizer, text="t")["tokenizer/mismatches"]
    assert (metric.value, metric.kind, metric.better) == (2, "exact", "lower")
    assert metric.raw == {"first mismatches": ["cd", "ef"], "says": "such as 'cd'"}
    assert metric.conditions == {"source": "w1", "lines": 5}
    assert here.progress[-1] == ("tokenizer", 5, 5)


class Chatty(Bigrams):
    """Refuses a system message, and begins every other conversation with a token of its own."""

    def chat(
        self, messages: Sequence[Mapping[str, object]], tools: Sequence[Mapping[str, object]]
    ) -> list[int] | None:
        return None if messages[0]["role"] == "system" else [1, len(messages), len(tools)]


def test_chat_templates_are_compared_conversation_by_conversation(here: Here) -> None:
    ask, system = {"role": "user", "content": "?"}, {"role": "system", "content": "!"}
    conversations = [
        {"name": "same", "messages": [ask], "tools": [], "ids": [1, 1, 0]},
        {"name": "other", "messages": [ask], "tools": [{"type": "function"}], "ids": [1, 1, 0]},
        {"name": "both refuse", "messages": [system], "tools": [], "ids": None},
        {"name": "one refuses", "messages": [system, ask], "tools": [], "ids": [1, 2, 0]},
        {"name": "the other refuses", "messages": [ask, system], "tools": [], "ids": None},
    ]
    here.write("lines.json", "[]")
    here.write("chats.json", json.dumps(conversations))
    here.backend = Chatty()
    assert here.measure(tokenizer, text="t").keys() == {"tokenizer/mismatches"}
    metric = here.measure(tokenizer, text="t", chat=True)["tokenizer/chat_mismatches"]
    assert (metric.value, metric.kind, metric.unit) == (3, "exact", "conversations")
    assert metric.raw == {"says": "other, one refuses, the other refuses"}
    assert metric.conditions == {"source": "w1", "conversations": 5}
    here.backend = Bigrams()
    assert here.measure(tokenizer, text="t", chat=True).keys() == {"tokenizer/mismatches"}


def test_of_a_model_without_a_template_no_conversation_is_compared(here: Here) -> None:
    here.write("lines.json", "[]")
    here.write("chats.json", "[]")
    here.backend = Chatty()
    assert here.measure(tokenizer, text="t", chat=True).keys() == {"tokenizer/mismatches"}
