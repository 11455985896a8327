"""Questions that a model answers in its own words: prompts of lm-evaluation-harness's tasks of output type
generate_until, as the harness makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quantgate.checkpoint.template import template_of
from quantgate.errors import InputError
from quantgate.files import hash_of
from quantgate.items import Questions
from quantgate.supply.tasks import build_requests, check_count, load_task, version_of

if TYPE_CHECKING:
    from quantgate.supply.encoder import Encoder

OUTPUT_TYPE = "generate_until"
LIMIT = 256
"""Tokens of an answer where the task says nothing: the harness's default (`HFLM.max_gen_toks`)."""


def make_questions(name: str, spec: Mapping[str, Any], encoder: Encoder) -> Questions:
    """Return the first items of a task, its prompts tokenized as the harness's model class does.

    spec: the place of the documents, and the fields of `quantgate.jobs.Posed`. Raises AssetError, and InputError for a
    task of another output type, one that asks for programs, pictures or several answers drawn at random, and for an
    empty text in `until`.
    """
    task = load_task(name, dict(spec))
    _check(name, task)
    build_requests(name, task, spec, encoder)
    try:
        until, limit = _ending(task.instances[0].args[1])
        prompts = [request.args[0] for request in task.instances]
        items = [encoder.with_one_bos(encoder.encode(prompt)) for prompt in prompts]
    except InputError as error:
        raise InputError(f"task {name!r}: {error}") from error
    check_count(name, len(items), spec["items"])
    if [] in items:
        remedy = "ask with chat = false" if spec["chat"] else "choose another task"
        raise InputError(f"task {name!r}: the prompt of item {items.index([]) + 1} is empty: {remedy}")
    documents = [request.doc for request in task.instances]
    return Questions(
        name=name,
        version=version_of(task, spec),
        chat=spec["chat"],
        template=hash_of(template_of(encoder.tokenizer)) if spec["chat"] else "",
        fewshot=task.config.num_fewshot or 0,
        until=until,
        limit=limit,
        ends=encoder.ends,
        items=items,
        documents=documents,
        data_hash=hash_of(documents),
        token_hash=hash_of([items, until, encoder.ends]),
    )


def _check(name: str, task: Any) -> None:
    """Raise InputError for a task whose answers are not written, or cannot be marked here."""
    config, where = task.config, f"task {name!r}"
    if task.OUTPUT_TYPE != OUTPUT_TYPE:
        raise InputError(
            f"{where} has output type {task.OUTPUT_TYPE!r}: nothing is written there, name it in `accuracy`"
        )
    if getattr(task, "MULTIMODAL", False):
        raise InputError(f"{where} asks about pictures or sounds: choose a task of text")
    if config.repeats > 1:
        raise InputError(
            f"{where} takes {config.repeats} answers to each question, which are all the same where the likeliest "
            "token is written: choose a task with `repeats: 1`"
        )


def _ending(settings: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return the texts that end an answer, and the tokens that it may have. settings: the task's `generation_kwargs`.
    Raises InputError."""
    from lm_eval.models.utils import normalize_gen_kwargs

    normal = normalize_gen_kwargs(dict(settings), LIMIT)
    if normal["do_sample"]:
        raise InputError("draws its answers at random (do_sample): choose a task that takes the likeliest")
    until = [text for text in normal["until"] if text is not None]
    if "" in until:
        raise InputError("`until` of its generation_kwargs has an empty text, which ends nothing: remove it")
    if normal["max_gen_toks"] < 1:
        raise InputError(
            f"max_gen_toks of its generation_kwargs is {normal['max_gen_toks']}: must be 1 or more"
        )
    return until, normal["max_gen_toks"]
