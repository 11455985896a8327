"""What the options of several metric groups have in common."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from quantgate.jobs import Posed
from quantgate.records import Record


def _each_once(names: list[str]) -> list[str]:
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise ValueError(f"names {twice[0]!r} twice: remove one")
    return names


Names = Annotated[list[str], Field(min_length=1), AfterValidator(_each_once)]
"""What a group measures one after the other: none twice, since that would count its items twice."""


class InChat(Record):
    """Options of a group that may go through the model's chat template. chat: whether it does, after the message
    `system` if there is one."""

    chat: bool = False
    system: str | None = None

    @model_validator(mode="after")
    def _of_a_chat(self) -> Self:
        if not self.chat and self.system is not None:
            raise ValueError("system is a message of a chat: set chat = true, or remove system")
        return self


class OfTasks(InChat):
    """Options of a group that asks the items of tasks. items: how many of each, the first ones. fewshot: examples
    before each, the first of the task's few-shot split; None: as many as the task says, chosen as it says. turns: in a
    chat the examples are turns of the conversation, not one message with the item."""

    tasks: Names
    items: int = Field(default=32, ge=2)
    fewshot: int | None = Field(default=None, ge=0)
    turns: bool = True

    @model_validator(mode="after")
    def _of_turns(self) -> Self:
        if not self.chat and not self.turns:
            raise ValueError(
                "turns = false puts examples into one message of a chat: set chat = true, or remove turns"
            )
        return self

    def posed(self, items: int) -> Posed:
        """Return how so many items of a task are asked."""
        return Posed(items=items, chat=self.chat, system=self.system, fewshot=self.fewshot, turns=self.turns)
