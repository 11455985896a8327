"""The text of a starter matrix: `starter.toml.j2`, filled in. A short comment explains each line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import jinja2

from quantgate.init.cells import Chosen
from quantgate.init.facts import Facts
from quantgate.words import duration

TASKS = ("arc_easy", "hellaswag", "piqa", "winogrande", "lambada_openai")
WINDOW = 512
DECODING = (496, 80)
"""Context and tokens of decoding: beyond `WINDOW`, where the windows of perplexity end."""
SHORT = 384
"""Positions below which items of tasks, and chat prompts, do not fit."""

EMBEDDED_PARAMETERS = 134_515_008
EMBEDDED_SECONDS = 62
"""Of a smoke run of one cell of the embedded model on two cores (README, 2026-11-28)."""
EMBEDDED_WORK = (8, 16)
"""Windows and items of that run."""


@dataclass(frozen=True)
class Samples:
    """Windows and items that the tolerances can be shown with. short: why they cannot with the most that is tried."""

    windows: int = 8
    items: int = 16
    short: tuple[str, ...] = ()


def render(
    facts: Facts, reference: Facts | None, chosen: Chosen, samples: Samples, command: str = "pytest"
) -> str:
    """Return the whole file. command: what runs pytest with it."""
    shown = reference or facts
    n_ctx = min(WINDOW, shown.positions or WINDOW)
    seconds = seconds_of(shown, samples)
    long = n_ctx == WINDOW and (shown.positions or 1 << 20) >= sum(DECODING)
    context, tokens = DECODING if long else (n_ctx // 2, n_ctx // 4)
    environment = jinja2.Environment(  # noqa: S701 - TOML
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(line=_line, toml=_text, key=_key, source=_source, duration=duration)
    text: str = environment.get_template("starter.toml.j2").render(
        command=command,
        facts=facts,
        reference=reference,
        shown=shown,
        chosen=chosen,
        samples=samples,
        n_ctx=n_ctx,
        seconds=seconds,
        limit=max(600, 600 * round(10 * (seconds or 0) / 600)),
        memory=_memory(shown, chosen),
        why=lambda cell: _why(cell, chosen, dequantized=facts.quantized and reference is None),
        short=SHORT,
        tasks=", ".join(map(_text, TASKS)),
        context=context,
        tokens=tokens,
        chats=shown.template and n_ctx >= SHORT,
        referenced=chosen.cells != [chosen.as_is],
    )
    return text


def seconds_of(facts: Facts, samples: Samples) -> float | None:
    """Estimate the wall time of one cell on two cores, in seconds, at least that of the embedded model: by parameters
    and by the larger of windows and items; None: the checkpoint does not say its size."""
    if not facts.parameters:
        return None
    windows, items = EMBEDDED_WORK
    work = max(samples.windows / windows, samples.items / items)
    return EMBEDDED_SECONDS * max(1.0, work * facts.parameters / EMBEDDED_PARAMETERS)


def _memory(facts: Facts, chosen: Chosen) -> str:
    """Return the size of the weights in the widest of the cells."""
    wide = 4 if any("fp32" in cell or "F32" in cell for cell in chosen.cells) else 2
    size = facts.parameters * wide
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.{0 if size >= 1e7 else 1}f} MB"


def _why(cell: str, chosen: Chosen, *, dequantized: bool) -> str:
    if cell == chosen.as_is:
        return "the checkpoint as it is"
    if cell.partition("/")[2] in ("fp32", "F16", "cuda-bf16", "cuda-F16"):
        made = "made from the dequantized weights; " if dequantized else ""
        return f"{made}a reference: others are compared with it"
    return ""


def _source(facts: Facts) -> str:
    return "{ " + ", ".join(f"{key} = {_text(value)}" for key, value in facts.source.items()) + " }"


def _line(text: str, comment: str) -> str:
    """Return a line with its comment: beside it, or above one that is long."""
    return f"{text:<44} # {comment}" if len(text) <= 44 else f"# {comment}:\n{text}"


def _text(value: object) -> str:
    """Return a string or a boolean as TOML, which has JSON's for what can be printed."""
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return _text(name) if "." in name or "+" in name else name
