"""Faults of scoring: the model is right, the scoring of its answers is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantgate.items import Choice, Item, Task
from quantgate.measure.session import Session
from quantgate.proofs.faults.registry import ITEMS, fault, text_of, wrap

TASKS = ("accuracy",)


def choices(change: Callable[[Session, Choice], Choice]) -> None:
    """Change every choice of every item as the scorer is given it; the hashes of the task stay what they were."""
    items(
        lambda session, item: item.model_copy(update={"choices": [change(session, c) for c in item.choices]})
    )


def items(change: Callable[[Session, Item], Item]) -> None:
    """Change every item of every task."""
    tasks(lambda session, task: [change(session, item) for item in task.items])


def tasks(change: Callable[[Session, Task], list[Item]]) -> None:
    """Give every task other items."""

    @wrap(Session, "task")
    def read(original: Any, session: Session, name: str) -> Task:
        task: Task = original(session, name)
        return task.model_copy(update={"items": change(session, task)})


@fault(
    "choices scored without their leading space",
    "llamacpp/Q4_K_M",
    "accuracy/arc_easy/margin/reproduction",
    groups=TASKS,
)
def no_leading_space() -> None:
    def strip(session: Session, choice: Choice) -> Choice:
        text = text_of(session.backend, choice.continuation)
        return choice.model_copy(update={"continuation": session.backend.tokenize(text.lstrip(" "))})

    choices(strip)


@fault(
    "length normalization by tokens instead of characters",
    "llamacpp/Q4_K_M",
    "accuracy/*/margin_norm/reproduction",
    groups=TASKS,
)
def length_in_tokens() -> None:
    choices(lambda session, choice: choice.model_copy(update={"characters": len(choice.continuation)}))


@fault("answer order reversed, gold labels not", "llamacpp/Q4_K_M", ITEMS, groups=TASKS)
def answers_reversed() -> None:
    items(lambda session, item: item.model_copy(update={"choices": item.choices[::-1]}))


@fault(
    "1 % of the gold labels changed (at least one of each task)",
    "llamacpp/Q4_K_M",
    ITEMS,
    groups=TASKS,
)
def gold_labels_changed() -> None:
    def relabelled(session: Session, task: Task) -> list[Item]:
        count = max(1, len(task.items) // 100)
        return [
            item.model_copy(update={"gold": [(item.gold[0] + 1) % len(item.choices)]}) if n < count else item
            for n, item in enumerate(task.items)
        ]

    tasks(relabelled)


@fault(
    'prompt format changed ("Q: ... A:")',
    "llamacpp/Q4_K_M",
    "accuracy/arc_easy/margin/reproduction",
    groups=TASKS,
)
def prompt_format() -> None:
    def shorten(session: Session, choice: Choice) -> Choice:
        text = text_of(session.backend, choice.context)
        text = text.replace("Question:", "Q:").replace("Answer:", "A:")
        return choice.model_copy(update={"context": session.backend.tokenize(text)})

    choices(shorten)


@fault("the first token of each choice not scored", "llamacpp/Q4_K_M", ITEMS, groups=TASKS)
def first_token_unscored() -> None:
    from quantgate.backends.tree import TokenSequence
    from quantgate.measure.metrics import accuracy

    def later(sequence: TokenSequence) -> TokenSequence:
        return TokenSequence(sequence.ids, min(sequence.start + 1, len(sequence.ids) - 1))

    @wrap(accuracy, "score")
    def score(original: Any, backend: Any, groups: Any, *further: Any, **keywords: Any) -> Any:
        return original(backend, [[later(s) for s in group] for group in groups], *further, **keywords)


@fault("log-likelihoods averaged over tokens, not summed", "llamacpp/Q4_K_M", ITEMS, groups=TASKS)
def mean_log_likelihood() -> None:
    from quantgate.measure.metrics import accuracy
    from quantgate.measure.scoring import Scored

    class Averaged(Scored):
        @property
        def total(self) -> float:
            return float(self.logprobs.mean())

    @wrap(accuracy, "score")
    def score(original: Any, *arguments: Any, **keywords: Any) -> Any:
        return [[Averaged(s.logprobs, s.greedy) for s in group] for group in original(*arguments, **keywords)]


@fault(
    "a token changed in a choice that is not the best wrong one",
    "llamacpp/Q4_K_M",
    "accuracy/*/choices/reproduction",
    groups=TASKS,
)
def other_choice_changed() -> None:
    """Of the first item that has three choices or more, in the longest of the wrong ones."""

    def changed(session: Session, task: Task) -> list[Item]:
        if min(len(item.choices) for item in task.items) < 3:
            return task.items
        first, *others = task.items
        wrong = [n for n in range(len(first.choices)) if n not in first.gold]
        longest = max(wrong, key=lambda n: len(first.choices[n].continuation))
        choices = list(first.choices)
        *beginning, last = choices[longest].continuation
        choices[longest] = choices[longest].model_copy(update={"continuation": [*beginning, last + 1]})
        return [first.model_copy(update={"choices": choices}), *others]

    tasks(changed)


@fault("the last token of long contexts dropped", "llamacpp/Q4_K_M", ITEMS, groups=TASKS)
def long_contexts_end_early() -> None:
    def shorten(session: Session, choice: Choice) -> Choice:
        context = choice.context
        return choice.model_copy(update={"context": context[:-1] if len(context) > 64 else context})

    choices(shorten)


@fault("contexts cut to their last 64 tokens", "llamacpp/Q4_K_M", ITEMS, groups=TASKS)
def contexts_cut() -> None:
    choices(lambda session, choice: choice.model_copy(update={"context": choice.context[-64:]}))
