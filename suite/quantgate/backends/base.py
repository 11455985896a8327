"""The protocols of a loaded model, by capability (`quantgate.backends.spec.Capability`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from quantgate.backends.tree import TokenSequence, TokenTree
from quantgate.checkpoint.template import Message
from quantgate.machine.environment import Facts
from quantgate.serving.level import Level
from quantgate.serving.replies import Answer


@dataclass(frozen=True)
class Weights:
    """Size of the weights as loaded.

    bytes: of all tensors the model holds, quantization constants included, a tied tensor once; of a simulated scheme,
    what it would take: it holds its weights in full.
    parameters: logical count of weights (a packed 4-bit byte counts as two), tied weights once.
    file_bytes: of the checkpoint files that are loaded.
    linear, in_scheme: logical count of the weights of linear layers (experts included; embeddings, head, convolutions
    and biases not), and of those that the scheme's precision holds.
    says: what a reader of the sizes has to know; empty: nothing.
    """

    bytes: int
    parameters: int
    file_bytes: int
    simulated: bool = False
    linear: int = 0
    in_scheme: int = 0
    says: str = ""

    @property
    def quantized_share(self) -> float | None:
        """Of the weights of linear layers, the share that the scheme's precision holds; None: there are none."""
        return self.in_scheme / self.linear if self.linear else None

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.parameters


@dataclass(frozen=True)
class Rounding:
    """Nats by which the log-probability of a token may differ between two ways of computing it, and be called rounding:
    at least `floor`; up to `ceiling` where the model itself moves as much (`quantgate.measure.way`)."""

    floor: float
    ceiling: float


LENGTHS = ("window", "chunk", "position", "context", "length", "seq", "local", "block_size", "floor", "topk")
"""What keys of a configuration that limit or cut up a sequence have in their names."""
WIDTHS = ("embedding_length", "feed_forward_length", "key_length", "value_length")
"""Of a GGUF file: keys that have a length of vectors in theirs."""


def lengths_in(configuration: Mapping[str, Any], within: bool = False) -> list[int]:
    """The numbers of tokens that a configuration names, ascending: windows, chunks, positions of training."""
    lengths: set[int] = set()
    for key, value in configuration.items():
        name = str(key).lower()
        of_vectors = any(part in name for part in WIDTHS)
        named = (within or any(part in name for part in LENGTHS)) and not of_vectors
        if isinstance(value, Mapping):
            lengths.update(lengths_in(value, named))
            continue
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if named and isinstance(number, (int, float)) and 1 < number < 1e9:
                lengths.add(int(number))
    return sorted(lengths)


@dataclass(frozen=True)
class Sizes:
    """What ids and texts a model takes.

    vocabulary: rows of its embedding. positions: tokens of the longest text that it was made for; None: no limit.
    learned: it has a vector for each position, and none beyond.
    """

    vocabulary: int
    positions: int | None = None
    learned: bool = False


class Steps(Protocol):
    """Capability `steps`: a text is processed and then continued token by token through the library's cache."""

    def reserve(self, tokens: int, sequences: int) -> None:
        """Make room for `tokens` cached tokens in up to `sequences` sequences; drops what was cached. `logits` needs it
        too."""

    def prefill(self, ids: Sequence[int]) -> None:
        """Clear the cache, process `ids`, wait for the device."""

    def decode(self, ids: Sequence[int]) -> None:
        """Process `ids` one at a time, as generation does, waiting for the device after each: nothing is sampled."""

    def next_logits(self) -> NDArray[np.float32]:
        """Next-token logits, shape [vocabulary], after what `prefill` and `decode` processed last."""


class Backend(Steps, Protocol):
    """What most libraries can do: every one has `sizes` and `facts`. A metric group calls what its `capabilities` name,
    and no more."""

    def sizes(self) -> Sizes:
        """What ids and texts the model takes."""

    def facts(self) -> Facts:
        """What of this backend can change a number: versions, device, and `kernels`, what it runs on."""

    # Capability `logits`: next-token distributions over the whole vocabulary.

    @property
    def rounding(self) -> Rounding:
        """What this model's number format may do to a score."""

    def lengths(self) -> list[int]:
        """Numbers of tokens that the model's configuration names (`lengths_in`)."""

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        """Next-token logits, shape [len(tree.rows), vocabulary], valid until the next call. Of what the call before had
        in the cache, the first `tree.past` tokens are still there, and the rest is not. A chain (`tree.is_chain`) is
        computed as the library computes a text; any exception for another tree says that it cannot be shared."""

    # Capability `timings`.

    @property
    def settings(self) -> str:
        """How `prefill` and `decode` compute, where that is a choice (batch sizes, cache): a condition of timings."""

    # Capability `weights`.

    def weights(self) -> Weights:
        """Size of the weights as loaded."""

    # Capability `tokenizes`: the library has a tokenizer of its own.

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text` by this backend's own tokenizer, without special tokens."""


@runtime_checkable
class Scores(Protocol):
    """Capability `scores`, where the library gives probabilities of texts and no logits; `logits` implies it."""

    def scores(
        self, sequences: Sequence[TokenSequence]
    ) -> Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
        """For each sequence, the natural-log probability of each scored token, and whether it was the likeliest."""


@runtime_checkable
class NamesLikeliest(Protocol):
    """Capability `tops`, where the library names the likeliest tokens of a place and gives no logits; `logits` implies
    it."""

    def answer(self, sequence: TokenSequence) -> Answer:
        """The log-probabilities of the scored tokens, and of the likeliest at their places."""


@runtime_checkable
class ShakesHands(Protocol):
    """A model whose answers come from elsewhere and are compared with each other before one counts; no capability that
    a metric group needs."""

    def handshake(self, tokens: Sequence[int]) -> str:
        """Ask about texts of these tokens. Returns what a record has to say of the answers; empty: nothing. Raises
        MeasurementError that says what is wrong with them."""


@runtime_checkable
class DeviceMemory(Protocol):
    """A library that says how much memory of an accelerator it takes; no capability that a metric group needs."""

    def device_peak_bytes(self) -> dict[str, int]:
        """Peak accelerator memory since `reset_device_peak`, by kind; empty on the CPU."""

    def reset_device_peak(self) -> None:
        """Start a new peak."""


@runtime_checkable
class HasCache(Protocol):
    """A library that says how much memory its cache takes; no capability that a metric group needs."""

    states_cache: bool
    """Whether the scheme says in which types keys and values are cached."""

    def cache_bytes(self) -> int | None:
        """Bytes of the cached keys and values as allocated for what was last reserved and computed; None: the library
        does not say exactly."""


@dataclass(frozen=True)
class Stops:
    """Where a continuation ends.

    ids: tokens that end it; the one that did is its last. strings: texts that end it, as soon as the text of all that
    was written has one of them. decode: returns that text.
    """

    ids: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()
    decode: Callable[[Sequence[int]], str] = lambda written: ""

    def reached(self, written: Sequence[int]) -> bool:
        """Return whether the continuation ends with its last token."""
        if written and written[-1] in self.ids:
            return True
        return bool(self.strings) and any(map(self.decode(written).__contains__, self.strings))


@runtime_checkable
class Generates(Protocol):
    """Capability `generates`: the library can continue a text."""

    def generate(self, ids: Sequence[int], limit: int, stops: Stops) -> list[int]:
        """Return the greedy continuation of `ids`, one sequence in a batch: up to where `stops` are reached, or `limit`
        tokens. Nothing of a checkpoint's or a server's sampling defaults applies: no penalty, no forced or suppressed
        token."""


@runtime_checkable
class Serves(Protocol):
    """Capability `serves`: the model is behind a server, which answers several requests at once."""

    @property
    def retries(self) -> int:
        """How many requests had to be sent again so far."""

    def generate_at_once(
        self, prompts: Sequence[Sequence[int]], limit: int, concurrency: int, done: Callable[[int], None]
    ) -> list[list[int]]:
        """Return the greedy continuation of each prompt by `limit` tokens, with so many requests at once. done: called
        with the number of texts that are written."""

    def traffic(
        self, levels: Sequence[tuple[int, list[list[int]]]], tokens: int, done: Callable[[int], None]
    ) -> list[Level]:
        """Time streamed answers of `tokens` tokens to the prompts of each level, so many at once
        (`quantgate.serving.traffic`)."""

    def peak_memory(self) -> int | None:
        """Bytes: the most anonymous memory that the processes of the server had together; None: it runs elsewhere."""

    def processor_seconds(self) -> float:
        """Processor seconds that a server which was started here has taken so far."""


@runtime_checkable
class HasLoop(Protocol):
    """A library that has a generation loop of its own, which is timed; no capability that a metric group needs."""

    def loop(self, ids: Sequence[int], count: int) -> None:
        """Continue `ids` greedily by `count` tokens with that loop."""


@runtime_checkable
class RendersChats(Protocol):
    """A library that renders conversations by a chat template that the checkpoint carries; no capability that a metric
    group needs."""

    def chat(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[int] | None:
        """Token ids of a conversation up to where the assistant begins to write, by the template and the tokenizer of
        the checkpoint, on the day `quantgate.checkpoint.template.TODAY`; None: it has no template, or one that refuses
        the conversation."""


@runtime_checkable
class ShowsInputs(Protocol):
    """Capability `inputs`: the layers can be looked into."""

    def inputs(self, ids: Sequence[int], look: Callable[[str, NDArray[np.float32]], None]) -> None:
        """Process `ids` in one pass; `look` is given, for each linear layer but the head, its name and its
        inputs, shape [tokens, features]."""
