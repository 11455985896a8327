"""Read fixtures/peers.toml: what is compared, on how much data, and the bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from quantgate.config.toml_input import read_toml, validate
from quantgate.paths import FIXTURES
from quantgate.records import Record

PEERS = FIXTURES / "peers.toml"

Count = Annotated[int, Field(ge=1)]
Bound = Annotated[float, Field(gt=0)]


class Shots(Record):
    """examples: few-shot examples before each item. items: of each task."""

    examples: Annotated[int, Field(ge=0)] = 0
    items: Count


class Likelihood(Record):
    """Rows on log-likelihoods. softmax: dtype of lm-eval's log-softmax. nats: the bound, by cell."""

    tasks: list[str]
    batch_size: Count
    softmax: Literal["float32", "float64"]
    nats: dict[str, Bound]
    zero_shot: Shots
    five_shot: Shots


class Answers(Shots):
    """Rows on written answers. tokens: that one has at most."""

    task: str
    tokens: Count


class Perplexity(Record):
    """Rows on perplexity. relative: bound of the value. time: bound of the wall time, relative to the tool's."""

    text: str
    n_ctx: Count
    windows: Count
    schemes: list[str]
    relative: Bound
    timed: list[str]
    time: Bound


class Divergence(Record):
    """Rows on divergence. Bounds: kl_mean, relative; same_top, as a fraction of the tokens."""

    text: str
    n_ctx: Count
    windows: Count
    schemes: list[str]
    kl_mean: Bound
    same_top: Bound


class TimedShots(Shots):
    """Lower bounds of lm-eval's time over the suite's: in total, and of each task (None: no bound). trial: items of
    each task on which lm-eval's best batch size is chosen."""

    trial: Count
    total: Bound
    each: Bound | None = None


class Scoring(Record):
    """Rows on the time of scoring."""

    tasks: list[str]
    batch_sizes: Annotated[list[Count], Field(min_length=1)]
    zero_shot: TimedShots
    five_shot: TimedShots


class Throughput(Record):
    """Rows on tokens/s. prompt, decode: tokens. rounds: in each process. pairs: least number of process pairs."""

    prompt: Count
    decode: Count
    rounds: Count
    pairs: Count
    schemes: list[str]
    relative: Bound


class Config(Record):
    """The whole file."""

    model: str
    likelihood: Likelihood
    answers: Answers
    perplexity: Perplexity
    divergence: Divergence
    scoring: Scoring
    throughput: Throughput

    @property
    def cells(self) -> list[str]:
        """Every `backend/scheme` that a row measures."""
        tools = (self.perplexity, self.divergence, self.throughput)
        schemes = [*self.perplexity.timed, *(scheme for group in tools for scheme in group.schemes)]
        return [*self.likelihood.nats, *(f"llamacpp/{scheme}" for scheme in schemes)]


def load_config(path: Path | None = None) -> Config:
    """Read the file (default: fixtures/peers.toml). Raises InputError naming file, key and remedy."""
    path = path or PEERS
    return validate(Config, read_toml(path), path)
