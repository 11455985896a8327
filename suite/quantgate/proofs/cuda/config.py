"""Read fixtures/cuda.toml: models, schemes, workload, bounds and times of the check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from quantgate.config.toml_input import read_toml, validate
from quantgate.paths import FIXTURES
from quantgate.records import Record

CUDA = FIXTURES / "cuda.toml"

Device = Literal["cuda", "cpu"]
Count = Annotated[int, Field(ge=1)]
Bound = Annotated[float, Field(ge=0)]
FORMATS = ("fp32", "fp16", "bf16")
"""Names of schemes of floats, without the prefix."""


class Floats(Record):
    """Bounds for one format of floats. choice: of a choice's log-likelihood, nats; divergence, decoding: mean KL, nats;
    perplexity: relative."""

    choice: Bound
    perplexity: Bound
    divergence: Bound
    decoding: Bound


class Other(Record):
    """Bounds of memory and time, and others. peak, events: relative. leak, process: bytes. rounding, gain: factors."""

    rounding: Bound
    peak: Bound
    events: Bound
    leak: Bound
    process: Bound
    gain: Bound


class Bounds(Record):
    """By format of floats, by quantized scheme, and the others."""

    fp32: Floats
    fp16: Floats
    bf16: Floats
    quantized: dict[str, Bound]
    other: Other

    def of(self, name: str) -> Floats:
        """Return the bounds of a format in `FORMATS`."""
        floats: Floats = getattr(self, name)
        return floats


class Setting(Record):
    """What is run on one kind of device. prefix: of its schemes. schemes: by backend, those that matrix.toml lacks.
    models: of random weights, by name: `kind` of transformers and arguments of its configuration. tier: group options.
    seconds: for all rows; part: for each. rounds: of prefill and decode in the search for leaks. threads: of a process;
    0: the cores of the machine."""

    prefix: str
    seconds: Count
    part: Count
    rounds: Count
    threads: Annotated[int, Field(ge=0)] = 0
    schemes: dict[str, dict[str, dict[str, Any]]]
    models: dict[str, dict[str, Any]]
    tier: dict[str, dict[str, Any]]


class Config(Record):
    """The whole file. pocket, random: names of models. text_tokens, items: of the workload."""

    pocket: list[str]
    random: list[str]
    text_tokens: Count
    items: Count
    bounds: Bounds
    device: Setting
    rehearsal: Setting

    def setting(self, device: Device) -> Setting:
        """Return what is run on a device."""
        return self.device if device == "cuda" else self.rehearsal


def load_config(path: Path | None = None) -> Config:
    """Read the file (default: fixtures/cuda.toml). Raises InputError naming file, key and remedy."""
    path = path or CUDA
    return validate(Config, read_toml(path), path)
