"""The chat template of a tokenizer: rendered on one day, with one beginning-of-sequence token."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from quantgate.errors import InputError, in_one_line

TODAY = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
"""The date for a template that prints one: the tokens are the same every day."""
DIRECTIVES = (*"YymdbBaAjHIMSpeFT", *(f"-{letter}" for letter in "dmjHIMS"))
"""Of `strftime`, those that templates use; with `-`, a number without a zero before it."""

Message = Mapping[str, Any]


class RefusedError(InputError):
    """The template takes no such conversation."""


def template_of(tokenizer: Any) -> str:
    """Return the chat template that a tokenizer takes for a chat without tools; empty: it has none."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template or ""


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    answer: bool = True,
) -> str:
    """Return a conversation as the tokenizer's template renders it, on the day `TODAY`: up to where the assistant's
    answer begins, or with `answer` false up to the end of the last message, which then goes on. Raises InputError for a
    tokenizer without a template, RefusedError for a conversation that the template refuses."""
    if not template_of(tokenizer):
        raise InputError("the model has no chat template: set chat = false")
    try:
        return _applied(tokenizer, messages, tools, answer)
    except Exception as error:  # whatever the code of a template raises
        if not answer:
            # transformers' reason speaks of its own arguments; that of the whole conversation is the template's.
            render(tokenizer, messages, tools)
            raise RefusedError(
                "the model's chat template changes what the last message says, or leaves it out, so that it cannot go "
                "on: mend the template, or set chat = false"
            ) from error
        roles = ", ".join(str(message["role"]) for message in messages)
        remedy = "mend the template, or set chat = false"
        if messages[0]["role"] == "system":
            with suppress(Exception):
                _applied(tokenizer, messages[1:], tools, answer)
                remedy = "leave `system` out"
        raise RefusedError(
            f"the model's chat template refuses a conversation of {roles} ({in_one_line(error)}): {remedy}"
        ) from error


def _applied(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], answer: bool
) -> str:
    text = tokenizer.apply_chat_template(
        list(messages),
        tools=list(tools) or None,
        chat_template=_on_one_day(tokenizer.get_chat_template(tools=list(tools) or None)),
        tokenize=False,
        add_generation_prompt=answer,
        continue_final_message=not answer,
        date_string=TODAY.strftime("%d %b %Y"),
    )
    return str(text)


def _on_one_day(template: str) -> str:
    """Return a template whose `strftime_now` gives the day `TODAY`, where it asks for that. transformers takes no
    function as an argument of a template, so a macro takes its place."""
    if "strftime_now" not in template:
        return template
    dated = "".join(f"|replace('%{code}', '{TODAY.strftime(f'%{code}')}')" for code in DIRECTIVES)
    # The empty expression keeps a newline with which the template begins.
    return (
        f"{{%- macro strftime_now(format) -%}}{{{{ format{dated} }}}}{{%- endmacro -%}}{{{{ '' }}}}{template}"
    )


def with_one_bos(ids: list[int], bos: int | None, *, wanted: bool = True) -> list[int]:
    """Return the ids of a rendered conversation with the beginning-of-sequence token, whoever puts it. bos: its id;
    None: there is none. wanted: whether the model wants one; without, a template may put it. Raises InputError for a
    template that puts two."""
    if bos is not None and ids[:2] == [bos] * 2:
        raise InputError(
            "the model's chat template begins with two beginning-of-sequence tokens: mend the template, or set "
            "chat = false"
        )
    if bos is None or not wanted:
        return ids
    return ids if ids[:1] == [bos] else [bos, *ids]
