"""Count by hand what a Llama takes, from the numbers of its configuration. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Llama:
    """The sizes of a Llama. size: bytes of a number; heads of a size of hidden / heads."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    size: int

    @classmethod
    def of(cls, config: dict[str, Any], size: int) -> Self:
        """Return the sizes of a configuration of transformers."""
        return cls(
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            vocabulary=config["vocab_size"],
            tied=config["tie_word_embeddings"],
            size=size,
        )

    @property
    def _kv(self) -> int:
        return self.hidden // self.heads * self.kv_heads

    @property
    def parameters(self) -> int:
        """Weights: embedding and head; of each layer the four products of attention, three of the MLP, two norms."""
        layer = (
            2 * self.hidden**2 + 2 * self.hidden * self._kv + 3 * self.hidden * self.inner + 2 * self.hidden
        )
        return (1 if self.tied else 2) * self.vocabulary * self.hidden + self.layers * layer + self.hidden

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        return self.size * self.parameters

    def cache(self, room: int) -> int:
        """Bytes of the keys and values of `room` tokens."""
        return self.size * self.layers * 2 * self._kv * room

    def activations(self, tokens: int) -> int:
        """Bytes of the activations of `tokens` tokens where they take most: in the MLP, when two inputs of a product
        and the product are held, beside the residual and the normed residual."""
        return self.size * tokens * (3 * self.inner + 2 * self.hidden)

    def peaks(self, prompt: int, decode: int) -> dict[str, int]:
        """Bytes that each phase takes at most, with a static cache for prompt and decoded tokens."""
        held = self.weights + self.cache(prompt + decode)
        return {
            "load": self.weights,
            "prefill": held + self.activations(prompt),
            "decode": held + self.activations(1),
        }
