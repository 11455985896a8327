"""Choices of a task's items as they are scored, and which are right: by the rules of lm-evaluation-harness. Refused
where it fails, or counts an item as wrong whatever a model answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantgate.errors import InputError
from quantgate.items import Choice, Item, Results

SHOWN = 200
"""Characters of a value of the user's that a message repeats."""


def gold_of(where: str, task: Any, document: Any, choices: list[str], results: Results) -> list[int]:
    """Return the numbers of the right choices, by the rules of lm-eval's `process_results`. Raises InputError where it
    counts an item as wrong whatever the model answers, since none of its choices is right."""
    if results == "mass":  # mc2 of TruthfulQA has several
        return [number for number, label in enumerate(document["mc2_targets"]["labels"]) if label]
    if not isinstance(choices, list | tuple):
        raise InputError(f"{where}: its choices are no list but {_in_short(choices)}: mend doc_to_choice")
    gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    if isinstance(gold, str):
        numbers: list[Any] = [choices.index(gold)] if gold in choices else []
    else:
        numbers = gold if isinstance(gold, list) else [gold]
    if not numbers or not all(one in range(len(choices)) for one in numbers):
        digit = isinstance(gold, str) and gold.isdigit()
        hint = ' (of a number in a column of texts, write "{{column}}")' if digit else ""
        raise InputError(
            f"{where}: the right answer, {_in_short(gold)}, is none of its {len(choices)} choices, nor the number of "
            f"one, from 0{hint}: {_in_short(choices)}"
        )
    return [int(one) for one in numbers]


def _in_short(value: Any) -> str:
    """Return how Python writes a value, cut to a length that fits into a sentence."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def choice_of(where: str, number: int, made: tuple[tuple[list[int], list[int]], str]) -> Choice:
    """Return a choice, made of its tokens and its text. Raises InputError for one that cannot be scored: the harness
    fails there."""
    (context, continuation), text = made
    if not isinstance(text, str):
        raise InputError(
            f"{where}: choice {number} is no text but {_in_short(text)}: let doc_to_choice give texts"
        )
    if not context or not continuation:
        raise InputError(
            f"{where}: choice {number}, {_in_short(text)}, has no token of its own after the prompt, so there is "
            "nothing to score: mend the item or `target_delimiter`"
        )
    return Choice(context=context, continuation=continuation, characters=len(text))


def check_lengths(name: str, items: Sequence[Item]) -> None:
    """Raise InputError for an empty choice, which has no log-likelihood per character."""
    for number, item in enumerate(items, 1):
        for place, choice in enumerate(item.choices, 1):
            if not choice.characters:
                raise InputError(
                    f"task {name!r}: item {number}: choice {place} is empty, and acc_norm divides by the characters of "
                    "a choice: remove the item, or take acc_norm out of the task's metric_list"
                )
