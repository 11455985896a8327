"""The text of a starter matrix: TOML in which a short comment explains each line."""

from __future__ import annotations

import json
from dataclasses import dataclass

from quantgate.init.cells import Chosen
from quantgate.init.facts import Facts
from quantgate.words import duration

TASKS = ("arc_easy", "hellaswag", "piqa", "winogrande", "lambada_openai")
WINDOW = 512
DECODING = (496, 80)
"""Context and tokens of decoding: beyond `WINDOW`, where the windows of perplexity end."""
SHORT = 384
"""Positions below which items of tasks, and chat prompts, do not fit."""
PROMPTS, WRITTEN = 24, 8
"""Chat prompts, and tokens written after each, as in the smoke tier."""

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


def n_ctx_of(facts: Facts) -> int:
    """Return the tokens of a window: as in the smoke tier, unless the model was made for fewer."""
    return min(WINDOW, facts.positions or WINDOW)


def render(facts: Facts, reference: Facts | None, chosen: Chosen, samples: Samples) -> str:
    """Return the whole file."""
    shown = reference or facts
    lines = [
        f"# Written by `python -m quantgate.init` for {facts.name}: change what you like.",
        "# quantgate's fixtures/README.md has all keys.",
        '# `pytest --update-baselines --reason "first values"` measures and accepts; `pytest` measures and judges.',
        "",
        *_model(facts, reference, chosen, shown),
        *_scheme(chosen),
        *_tier(facts, chosen, samples, shown),
    ]
    return "\n".join(lines) + "\n"


def _model(facts: Facts, reference: Facts | None, chosen: Chosen, shown: Facts) -> list[str]:
    name = _key(facts.name)
    license_ = facts.license or shown.license
    key = "gguf" if shown.gguf else "weights"
    size = f"{shown.parameters / 1e6:,.1f} million parameters" if shown.parameters else "its own size"
    what = f"{'a GGUF' if shown.gguf else 'safetensors'}{f' in {shown.ftype}' if shown.ftype else ''}, {size}"
    lines = [
        f"[models.{name}]",
        _line(
            f"license = {_text(license_ or 'unknown')}",
            "as the files say" if license_ else "the files do not say: write the licence of the weights",
        ),
        _line(f"{key} = {_source(shown)}", what if shown.parameters else what.removesuffix(", its own size")),
    ]
    bos = shown.bos
    if bos is None:
        lines.append(
            "# The tokenizer does not say whether it begins texts with a BOS token: add_bos = true if it does."
        )
    else:
        comment = (
            "the tokenizer puts a beginning-of-sequence token before each text"
            if bos
            else ("the tokenizer puts no beginning-of-sequence token")
        )
        lines.append(_line(f"add_bos = {_text(bos)}", comment))
    if writes(shown):
        lines.append(
            "# Its chat template is applied where it writes (generation); elsewhere chat = true applies it."
        )
    if chosen.as_is and not (facts.gguf and not chosen.scheme and reference is None):
        lines += [
            "",
            f"[models.{name}.checkpoints]",
            _line(
                f"{_text(chosen.as_is)} = {_source(facts)}", "measured as it is, never written or converted"
            ),
        ]
    if facts.quantized and reference is None:
        lines += [
            "# No full-precision checkpoint is named (--reference): what this quantization cost is not measured, only",
            "# how it changes when a library changes.",
        ]
    return [*lines, ""]


def _scheme(chosen: Chosen) -> list[str]:
    if not chosen.scheme:
        return []
    backend, _, name = chosen.as_is.partition("/")
    return [
        f"[backends.{backend}.schemes]",
        _line(f"{name} = {chosen.scheme}", "a name for a file that no quantizer here makes"),
        "",
    ]


def _tier(facts: Facts, chosen: Chosen, samples: Samples, shown: Facts) -> list[str]:
    n_ctx, name = n_ctx_of(shown), facts.name
    seconds = seconds_of(shown, samples)
    lines = ["[tiers.smoke]"]
    limit = max(600, 600 * round(10 * (seconds or 0) / 600))
    lines.append(_line(f"time_limit = {limit}", "seconds that one process of a cell may take"))
    if seconds:
        lines.append(
            f"# An estimate by size, from the embedded model on two idle cores: {duration(seconds)} a cell, "
            f"{duration(seconds * len(chosen.cells))} in all; on CUDA far less."
        )
    if shown.parameters:
        lines.append(
            f"# Weights take up to {_memory(shown, chosen)} of memory; the library and the cache come on top."
        )
    lines.append("cells = [")
    lines += [f"    {_text(f'{name}/{cell}')},{_why(cell, chosen)}" for cell in chosen.cells]
    lines.append("]")
    lines += [f"# Not here: {cell}, {reason}" for cell, reason in chosen.skipped.items()]
    windows = f'{{ text = "boolq", n_ctx = {n_ctx}, windows = {samples.windows} }}'
    limit_text = f"of the model's {shown.positions:,}" if shown.positions else "the model names no limit"
    lines.append(_line(f"perplexity = {windows}", f"windows of {n_ctx} tokens ({limit_text})"))
    if has_divergence(chosen):
        lines.append(_line(f"divergence = {windows}", "how far from the reference, on the same windows"))
    if n_ctx >= SHORT:
        tasks = ", ".join(map(_text, TASKS))
        lines.append(
            _line(
                f"accuracy = {{ tasks = [{tasks}], items = {samples.items} }}", "the first items of each task"
            )
        )
    else:
        lines.append(
            f"# No tasks: their items are longer than the {n_ctx} tokens that the model was made for."
        )
    context, tokens = (
        DECODING
        if n_ctx == WINDOW and (shown.positions or 1 << 20) >= sum(DECODING)
        else (n_ctx // 2, n_ctx // 4)
    )
    lines.append(
        _line(
            f'decoding = {{ text = "boolq", context = {context}, tokens = {tokens} }}',
            "token by token gives what one pass gives",
        )
    )
    lines.append(_line(f"memory = {{ prompt = {min(256, n_ctx)} }}", "weights, and peaks of three processes"))
    if writes(shown):
        lines.append(
            _line(
                f'generation = {{ prompts = "everyday", items = {PROMPTS}, tokens = {WRITTEN} }}',
                "what a reference writes after chat prompts, and whether the others would write it",
            )
        )
    chat = ", chat = true" if writes(shown) else ""
    lines.append(
        _line(f'tokenizer = {{ text = "boolq"{chat} }}', "the backend's tokens are those of the model")
    )
    lines.append("# throughput = { prompt = 256, decode = 16 }   # only on an otherwise idle machine")
    lines += [f"# Still too few samples: {text}" for text in samples.short]
    return lines


def writes(facts: Facts) -> bool:
    """Return whether the model is asked to write: it has a chat template, and room for prompts."""
    return facts.template and n_ctx_of(facts) >= SHORT


def has_divergence(chosen: Chosen) -> bool:
    """Return whether the first cell is one that the others are compared with."""
    return len(chosen.cells) > 1


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


def _why(cell: str, chosen: Chosen) -> str:
    if cell == chosen.as_is:
        return "   # the checkpoint as it is"
    if cell.partition("/")[2] in ("fp32", "F16", "cuda-bf16", "cuda-F16"):
        return "   # a reference: others are compared with it"
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
