"""Continue a text token by token through a cache of transformers: of floats, or in few bits where a scheme says so."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig, StaticCache
from transformers.cache_utils import Cache, QuantizedCache

from quantgate.backends.base import Stops
from quantgate.backends.runtime.devices import Devices
from quantgate.backends.runtime.greedy import continue_greedily
from quantgate.backends.runtime.rotary import crosses, length_dependent, reset
from quantgate.backends.runtime.weights import leaves
from quantgate.errors import MeasurementError, is_out_of_memory

CACHES = ("past_key_values", "cache_params", "state")
"""What a model may call its cache."""
COUNTS_POSITIONS = "create_position_ids_from_input_ids"
"""The method of embeddings whose positions are not those of the tokens in the text."""


class Continuing:
    """The capabilities `steps` and `generates` of a model, and the bytes of its cache. cache: arguments of
    `QuantizedCache`; empty: a static cache, or what the model chooses where that does not work."""

    def __init__(self, model: Any, devices: Devices, cache: dict[str, Any]) -> None:
        self._model = model
        self._devices = devices
        # Of the class: a library may wrap the `forward` of an instance.
        self._takes = set(inspect.signature(type(model).forward).parameters)
        self._rotary = length_dependent(model)
        # RoBERTa's begin after the number of its token for padding.
        self._counts_positions = any(hasattr(m, COUNTS_POSITIONS) for m in model.modules())
        self._few_bits = cache
        self.states_cache = bool(cache)
        if cache and "past_key_values" not in self._takes:
            raise MeasurementError(f"{type(model).__name__} takes no past_key_values: remove `cache`")
        self._cache: Any = None
        self._state: dict[str, Any] = {}
        self._fed: list[int] = []
        self._room = 0
        self._logits: Any = None

    @property
    def settings(self) -> str:
        cache = "static cache" if self._is_static else "cache of the model's choice"
        return f"{self.cache_in_words or cache}, not compiled"

    @property
    def cache_in_words(self) -> str:
        """The scheme's settings of the cache; empty: it has none."""
        return ", ".join(f"cache {key} {value}" for key, value in self._few_bits.items())

    def reserve(self, tokens: int, sequences: int) -> None:
        self._cache = None
        self._state = {}
        self._room = tokens

    def _forward(self, ids: Sequence[int], **further: Any) -> Any:
        """One pass, with what the model's forward takes of `further`."""
        taken = {name: value for name, value in further.items() if name in self._takes}
        return self._model(input_ids=self._tensor([list(ids)]), **taken)

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, device=self._devices.first)

    def _index(self, rows: Sequence[int]) -> torch.Tensor:
        return torch.tensor(rows, device=self._devices.of_indices)

    @functools.cached_property
    def _is_static(self) -> bool:
        """Whether the model works with a static cache: the library says so, and two steps do."""
        if self._few_bits or "past_key_values" not in self._takes or not self._model._can_compile_fullgraph:
            return False
        cache = StaticCache(config=self._model.config, max_cache_len=4)
        try:
            for ids in ([0, 0], [0]):
                self._forward(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
            if is_out_of_memory(error):
                raise
            return False
        return True

    def prefill(self, ids: Sequence[int]) -> None:
        reset(self._rotary)
        self._state = {}
        self._fed = []
        if self._is_static:
            if self._cache is None:
                self._cache = StaticCache(config=self._model.config, max_cache_len=self._room)
            self._cache.reset()
            self._state = {"past_key_values": self._cache}
        elif self._few_bits:
            self._state = {"past_key_values": quantized_cache(self._model.config, self._few_bits)}
        self._step(list(ids))

    def decode(self, ids: Sequence[int]) -> None:
        for token in ids:
            length = len(self._fed)
            if self._state and not crosses(self._rotary, length, length + 1):
                self._step([token])
            else:  # without a cache that is right, everything is computed again
                self.prefill([*self._fed, token])

    def _step(self, ids: list[int]) -> None:
        # Some models take the positions from a cache that does not know them: generation passes them as well.
        positions = {"position_ids": self._tensor([range(len(self._fed), len(self._fed) + len(ids))])}
        if self._counts_positions:
            positions = {}
        output = self._forward(ids, **self._state, **positions, use_cache=True, logits_to_keep=1)
        self._fed += ids
        if not self._is_static:
            returned = {name: getattr(output, name, None) for name in CACHES if name in self._takes}
            self._state = {name: cache for name, cache in returned.items() if cache is not None}
        self._logits = output.logits[0, -1]
        self._devices.wait()

    def cache_bytes(self) -> int | None:
        return cache_bytes(self._state.get("past_key_values"))

    def next_logits(self) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._logits.float().cpu().numpy()
        return logits

    def generate(self, ids: Sequence[int], limit: int, stops: Stops) -> list[int]:
        return continue_greedily(self, ids, limit, stops)

    def loop(self, ids: Sequence[int], count: int) -> None:
        prompt = self._tensor([list(ids)])
        few_bits = {"cache_implementation": "quantized", "cache_config": self._few_bits}
        # What the checkpoint's generation_config.json asks for (beams, penalties) would be timed as well.
        self._model.generation_config = GenerationConfig(
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            eos_token_id=self._model.generation_config.eos_token_id,
            pad_token_id=0,
            **(few_bits if self._few_bits else {}),
        )
        self._model.generate(prompt, attention_mask=torch.ones_like(prompt))
        self._devices.wait()


def quantized_cache(config: Any, options: dict[str, Any]) -> QuantizedCache:
    """Make an empty cache; options: arguments of `QuantizedCache`. Raises MeasurementError, in the library's words, for
    a model that it does not work with."""
    try:
        return QuantizedCache(config=config, **options)
    except (ImportError, ValueError) as error:
        raise MeasurementError(f"transformers makes no {options['backend']} cache here: {error}") from error


def cache_bytes(cache: Any) -> int | None:
    """Return the bytes of what is cached, scales included; None of a cache that is not made of layers."""
    if not isinstance(cache, Cache):
        return None
    tensors = [tensor for layer in cache.layers for tensor in leaves(vars(layer))]
    # A number alone counts tokens.
    sizes = {t.data_ptr(): t.nbytes for t in tensors if t.is_floating_point() or t.numel() > 1}
    return sum(sizes.values()) or None
