"""fixtures/pocket.toml: sizes, training and text of the pocket models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from quantgate.config.toml_input import read_toml, validate
from quantgate.paths import FIXTURES
from quantgate.records import Record

PLAN = FIXTURES / "pocket.toml"


class Size(Record):
    """Shape of a model, and its highest learning rate.

    head: width of a head; without it heads share `hidden`. context, bfloat16: instead of the plan's; a step has the
    same tokens, in sequences of this length. gguf: types of ready-made GGUF files, each with the text of tasks.toml
    that its importance matrix is of.
    """

    architecture: Literal["llama", "qwen3"] = "llama"
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int
    head: int | None = None
    rate: float
    context: int | None = None
    bfloat16: bool | None = None
    gguf: dict[str, str] = Field(default_factory=dict)


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

    @model_validator(mode="after")
    def _steps_are_whole(self) -> Self:
        tokens = self.training.batch * self.context
        for name, size in self.sizes.items():
            if tokens % self.context_of(size):
                raise ValueError(f"sizes.{name}.context has to divide the {tokens:,} tokens of a step")
        return self

    @property
    def steps(self) -> int:
        """Of training: whole batches."""
        return self.training.tokens // (self.training.batch * self.context)

    def context_of(self, size: Size) -> int:
        """Tokens of a training sequence, and positions of the model."""
        return size.context or self.context

    def batch_of(self, size: Size) -> int:
        """Sequences of a step."""
        return self.training.batch * self.context // self.context_of(size)

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
    """A `transformers.LlamaConfig`, or that of another architecture."""
    import transformers

    return transformers.AutoConfig.for_model(
        size.architecture,
        vocab_size=plan.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        head_dim=size.head or size.hidden // size.heads,
        max_position_embeddings=plan.context_of(size),
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
