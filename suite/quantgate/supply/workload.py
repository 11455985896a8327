"""Make a workload: the texts and tasks of a tier as token ids of one model, in a folder of JSON files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial as bound
from pathlib import Path
from typing import Any, TypeVar

from quantgate.checkpoint.template import template_of
from quantgate.errors import AssetError, QuantgateError, in_one_line
from quantgate.items import CHATS, MISSING, NLTK_DATA, RULES, TOKENIZER, opening_name, part, tokens_in
from quantgate.records import Record
from quantgate.supply.chat import make_conversations, make_opening, make_prompts
from quantgate.supply.checkpoints import Report, whole
from quantgate.supply.encoder import Encoder, read_text
from quantgate.supply.lines import make_lines
from quantgate.supply.model_config import import_without_torch
from quantgate.supply.programs import make_programs
from quantgate.supply.questions import make_questions
from quantgate.supply.rules import rules_beside
from quantgate.supply.tasks import make_task

T = TypeVar("T")

Specs = Mapping[str, Mapping[str, dict[str, Any]]]
"""By kind and name, what a text or task is made of."""
MAKERS: dict[str, Callable[[str, dict[str, Any], Encoder], Record]] = {
    "text": lambda name, spec, encoder: encoder.text(name, spec),
    "task": make_task,
    "programs": make_programs,
    "questions": make_questions,
    "prompts": make_prompts,
}
"""By kind (of `quantgate.items.part`); lines of several texts make one file."""


WITH_RULES = ("task", "programs", "questions")
"""Kinds whose makers run rules of lm-eval's or of the user's, which may want all of transformers."""


def main(output: Path, *, tokenizer: str, specs: Specs, **arguments: Any) -> None:
    """`make_workload` in a process that does nothing else."""
    if Path(tokenizer).is_dir() and not any(specs.get(kind) for kind in WITH_RULES):
        import_without_torch()
    make_workload(output, tokenizer=tokenizer, specs=specs, **arguments)


def make_workload(
    output: Path,
    *,
    report: Report,
    tokenizer: str,
    add_bos: bool | None,
    key: str,
    specs: Specs,
    chats: bool = False,
    openings: Sequence[str | None] = (),
    partial: str = "",
) -> None:
    """Write `<kind>-<name>.json` of each kind in `MAKERS`, `meta.json`, `nltk_data/`, `rules/`, `lines.json`,
    `chats.json`, `opening*.json` and `missing.json` below `output`.

    tokenizer: a folder, or a GGUF file. key: the place of `add_bos` in the matrix, for messages. specs: as the makers
    take them: the place of a text or of a task's documents (empty: lm-eval fetches them), and how much of it is needed
    (`tokens`, `characters`, `items`). Any of them may have `missing`: why it could not be fetched. chats: whether chat
    templates are compared. openings: the system messages of texts that go through the chat template. partial: another
    folder, for a workload without what cannot be made; its `missing.json` gives the reasons. Raises the first of them.
    """
    encoder = Encoder(Path(tokenizer), add_bos, key)
    parts = [(kind, name, spec) for kind in MAKERS for name, spec in specs.get(kind, {}).items()]
    lines = specs.get("lines", {})
    missing: dict[str, str] = {}
    errors: list[Exception] = []

    def attempt(name: str, spec: dict[str, Any], make: Callable[[], T]) -> T | None:
        """Return what `make` makes; of an error note that this is missing, and why. name: of `part`."""
        try:
            if "missing" in spec:
                raise AssetError(spec["missing"])
            return make()
        except OSError:
            raise  # of the disk, and no fault of this text or task
        except Exception as error:
            ours = isinstance(error, QuantgateError)
            missing[name] = str(error) if ours else f"{name.replace('-', ' ', 1)}: {in_one_line(error)}"
            errors.append(error)
            return None

    with whole(output, folder=True) as work:

        def write(name: str, spec: dict[str, Any], make: Callable[[], Record]) -> None:
            if (record := attempt(name, spec, make)) is not None:
                (work / f"{name}.json").write_text(record.model_dump_json())

        for number, (kind, name, spec) in enumerate(parts):
            report(f"prepare {kind} {name}", number, len(parts) + 1)
            write(part(kind, name), spec, bound(MAKERS[kind], name, spec, encoder))
        for name, spec in specs.get("questions", {}).items():
            _copy_rules(work, name, spec)
        if specs.get("programs") or specs.get("questions"):
            encoder.tokenizer.backend_tokenizer.save(str(work / TOKENIZER))
        for system in openings:
            write(opening_name(system), {}, bound(make_opening, system, encoder))
        if chats and (compared := attempt(CHATS, {}, bound(make_conversations, encoder))) is not None:
            (work / CHATS).write_text(json.dumps([one.model_dump() for one in compared]))
        samples: list[str] = []
        for name, spec in lines.items():
            text = attempt(part("lines", name), spec, bound(read_text, spec)) or ""
            samples += [line for line in text[: spec["characters"]].splitlines() if line.strip()]
        every = make_lines(encoder.tokenizer, samples) if lines else []
        (work / "lines.json").write_text(json.dumps([(s, encoder.encode(s)) for s in every]))
        largest = max(encoder.vocabulary, 1 + max(tokens_in(work), default=0))
        meta = {"vocabulary": largest, "template": bool(template_of(encoder.tokenizer))}
        (work / "meta.json").write_text(json.dumps(meta))
        (work / MISSING).write_text(json.dumps(missing))
        if errors:
            if partial:
                # Where it cannot be written, the error is what it is made for.
                with suppress(OSError), whole(Path(partial), folder=True) as rest:
                    shutil.copytree(work, rest, dirs_exist_ok=True)
            raise errors[0]


def _copy_rules(work: Path, name: str, spec: Mapping[str, Any]) -> None:
    """Copy into a workload what the answers to a task's questions are marked by."""
    if "nltk_data" in spec:
        shutil.copytree(spec["nltk_data"], work / NLTK_DATA, dirs_exist_ok=True)
    if "file" in spec:
        (work / RULES / name).mkdir(parents=True)
        for file in rules_beside(Path(spec["file"])):
            shutil.copyfile(file, work / RULES / name / file.name)
