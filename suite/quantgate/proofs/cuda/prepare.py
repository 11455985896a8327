"""Make what the cells need, in one process: models of random weights, and a workload of the suite's own documents."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantgate.errors import in_one_line
from quantgate.files import hash_of
from quantgate.items import Choice, Item, Task, Text
from quantgate.paths import PACKAGE

Report = Callable[[str, float, float], None]

NAME = "prepared"
"""Of the text and the task."""
CONTEXT, ENDING, CHOICES = (16, 40), (1, 12), 4
"""Tokens of a context and of a choice, from and to; choices of an item."""
MADE = "made.json"
"""Why a model could not be made, by name; empty: it was."""


def document() -> str:
    """Return the text: the README of every room. It needs no download, and the pocket models are trained on English."""
    return "\n\n".join(file.read_text() for file in sorted(PACKAGE.rglob("README.md")))


def prepare(
    output: Path,
    *,
    report: Report,
    device: str,
    tokens: int,
    items: int,
    folders: dict[str, str],
    models: dict[str, dict[str, Any]],
    tokenizer: str,
) -> None:
    """Write below `output` a folder `models/NAME` for each of `models`, in bf16, and `workloads/NAME` for each of them
    and of `folders`, checkpoints by name. tokenizer: the folder whose tokenizer the models take.

    A model that cannot be made keeps none of the others from being made.
    """
    made: dict[str, str] = {}
    output.mkdir()
    text = output / "text.txt"
    text.write_text(document())
    for number, name in enumerate([*folders, *models]):
        report(f"prepare {name}", number, len(folders) + len(models))
        try:
            folder = Path(folders.get(name, output / "models" / name))
            if name in models:
                _make(folder, dict(models[name]), device, Path(tokenizer))
            _work(output / "workloads" / name, folder, text, tokens, items)
            made[name] = ""
        except Exception as error:  # whatever this version of transformers makes of a configuration
            made[name] = in_one_line(error)
    (output / MADE).write_text(json.dumps(made))


def _make(folder: Path, config: dict[str, Any], device: str, tokenizer: Path) -> None:
    """Write a model of random weights, the same on every run of a machine."""
    import torch
    import transformers

    kind = config.pop("kind")
    torch.manual_seed(0)
    with torch.device(device):  # a billion random numbers take a processor a minute
        model = transformers.AutoModelForCausalLM.from_config(
            getattr(transformers, f"{kind}Config")(**config, bos_token_id=0, eos_token_id=0, pad_token_id=0),
            dtype=torch.bfloat16,
        )
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder)


def _work(folder: Path, checkpoint: Path, text: Path, tokens: int, items: int) -> None:
    """Write the workload of a checkpoint: the text, and a task whose items ask for its continuation."""
    from quantgate.supply.encoder import Encoder

    encoder = Encoder(checkpoint, None)
    encoded = encoder.text(NAME, {"path": str(text), "tokens": tokens})
    folder.mkdir(parents=True)
    (folder / f"text-{NAME}.json").write_text(encoded.model_dump_json())
    (folder / f"task-{NAME}.json").write_text(questions(encoded, items).model_dump_json())
    (folder / "meta.json").write_text(json.dumps({"vocabulary": encoder.vocabulary}))


def questions(text: Text, items: int) -> Task:
    """Return a task: which of the choices goes on where a piece of the text ends? The others begin elsewhere in it."""
    draw = random.Random(0)  # noqa: S311
    every = []
    for _ in range(items):
        size, length = draw.randint(*CONTEXT), draw.randint(*ENDING)
        begin = draw.randrange(len(text.ids) - size - length)
        starts = [begin + size, *(draw.randrange(len(text.ids) - length) for _ in range(CHOICES - 1))]
        context = text.ids[begin : begin + size]
        choices = [
            Choice(context=context, continuation=text.ids[s : s + length], characters=length) for s in starts
        ]
        every.append(Item(choices=choices, gold=[0]))
    identity = hash_of([item.model_dump() for item in every])
    return Task(
        name=NAME,
        version="1",
        output_type="multiple_choice",
        metrics=["acc"],
        items=every,
        data_hash=text.hash,
        prompt_hash=identity,
        token_hash=identity,
    )
