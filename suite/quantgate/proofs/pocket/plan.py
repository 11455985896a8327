"""fixtures/pocket.toml: sizes, training and text of the pocket models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import Field

from quantgate.config.toml_input import read_toml, validate
from quantgate.paths import FIXTURES
from quantgate.records import Record

PLAN = FIXTURES / "pocket.toml"


class Size(Record):
    """Shape of a Llama, and its highest learning rate."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int
    rate: float


class Training(Record):
    """What is the same for all sizes; see the file."""

    tokens: int = Field(gt=0)
    batch: int = Field(gt=0)
    warmup: float = Field(gt=0, lt=1)
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    bfloat16: bool


class Part(Record):
    """A part of the training text: JSON lines (plain or gzipped) in an asset, and the keys that lead to the text."""

    asset: str
    file: str
    text: list[str]
    licence: str


class HeldOut(Record):
    """The text that loss is measured on: its name in tasks.toml, and how many tokens of it."""

    text: str
    tokens: int


class Plan(Record):
    """The whole file."""

    seed: int
    vocabulary: int
    context: int
    training: Training
    sizes: dict[str, Size]
    corpus: dict[str, Part]
    heldout: HeldOut

    @property
    def steps(self) -> int:
        """Of training: whole batches."""
        return self.training.tokens // (self.training.batch * self.context)

    def rate(self, step: int, highest: float) -> float:
        """Learning rate of a step: linear warm-up, then a cosine to a tenth."""
        warmup = self.training.warmup * self.steps
        if step < warmup:
            return highest * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, self.steps - warmup)
        return highest * (0.55 + 0.45 * math.cos(math.pi * done))


def load_plan(path: Path = PLAN) -> Plan:
    """Read and validate. Raises InputError naming file and key."""
    return validate(Plan, read_toml(path), path)


def config_of(plan: Plan, size: Size) -> Any:
    """A `transformers.LlamaConfig`."""
    import transformers

    return transformers.LlamaConfig(
        vocab_size=plan.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        max_position_embeddings=plan.context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
