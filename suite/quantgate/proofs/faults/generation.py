"""Faults of generation: whole passes are right, generation or long contexts are not."""

from __future__ import annotations

from typing import Any

from quantgate.proofs.faults.registry import fault, loaded, wrap

DECODED: dict[str, Any] = {"groups": ("decoding",)}
KL = "decoding/kl_mean"
LIKELIHOOD = "decoding/perplexity/reproduction"


def after_each_token(library: Any, change: Any) -> None:
    """Call `change(backend, position)` when a backend of this class has processed a token of generation."""

    @wrap(library, "prefill")
    def prefill(original: Any, backend: Any, ids: Any) -> None:
        backend.position = len(ids)
        original(backend, ids)

    @wrap(library, "decode")
    def decode(original: Any, backend: Any, ids: Any) -> None:
        for token in ids:
            original(backend, [token])
            change(backend, backend.position)
            backend.position += 1


def after_each_token_of_llamacpp(change: Any) -> None:
    """The same of llama.cpp; nothing else is imported."""
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    after_each_token(LlamaCpp, change)


def after_each_token_of_transformers(change: Any) -> None:
    """The same of transformers."""
    from quantgate.backends.runtime.transformers import Transformers

    after_each_token(Transformers, change)


def forget(backend: Any, position: int) -> None:
    """Take one entry out of llama.cpp's cache."""
    import llama_cpp

    memory = llama_cpp.llama_get_memory(backend._context)
    llama_cpp.llama_memory_seq_rm(memory, 0, position, position + 1)


@fault("a cache entry stale every 64 tokens of generation", "transformers/fp32", LIKELIHOOD, **DECODED)
def stale_cache_entry() -> None:
    """Its place holds what the token before it left there. Of 80 tokens from 496 on it is one place: a mean divergence
    of 0.001 nats, most of it of a single token, which proves nothing."""

    def stale(backend: Any, position: int) -> None:
        if position % 64 == 0:
            for layer in backend._cache.layers:
                layer.keys[:, :, position] = layer.keys[:, :, position - 1]
                layer.values[:, :, position] = layer.values[:, :, position - 1]

    after_each_token_of_transformers(stale)


@fault("a cache entry lost every 64 tokens of generation", "llamacpp/Q4_K_M", LIKELIHOOD, **DECODED)
def lost_cache_entry() -> None:
    after_each_token_of_llamacpp(
        lambda backend, position: None if position % 64 else forget(backend, position)
    )


@fault("cache entries beyond 512 lost in generation", "llamacpp/F16", LIKELIHOOD, **DECODED)
def cache_ends_at_512() -> None:
    after_each_token_of_llamacpp(
        lambda backend, position: forget(backend, position) if position >= 512 else None
    )


@fault("rotary positions wrong from 512 on", "transformers/fp32", LIKELIHOOD, **DECODED)
def positions_end_at_512() -> None:
    """In passes and in generation alike: no divergence of one from the other."""

    @loaded
    def change(backend: Any) -> None:
        rotary = backend._model.model.rotary_emb
        forward = rotary.forward
        rotary.forward = lambda hidden, position_ids: forward(hidden, position_ids.clamp(max=511))


@fault("logits scaled by 1.02 in generation after a long prompt", "llamacpp/Q4_K_M", LIKELIHOOD, **DECODED)
def logits_scaled_after_long_prompt() -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "prefill")
    def prefill(original: Any, backend: Any, ids: Any) -> None:
        backend.long = len(ids) > 256
        original(backend, ids)

    @wrap(LlamaCpp, "next_logits")
    def next_logits(original: Any, backend: Any) -> Any:
        return original(backend) * (1.02 if backend.long else 1.0)


@fault("cache rounded to fp16 where fp32 is claimed", "transformers/fp32", LIKELIHOOD, **DECODED)
def cache_in_fp16() -> None:
    def rounded(backend: Any, position: int) -> None:
        for layer in backend._cache.layers:
            layer.keys.copy_(layer.keys.half())
            layer.values.copy_(layer.values.half())

    after_each_token_of_transformers(rounded)


@fault("the oldest 8 entries of a long cache overwritten", "llamacpp/Q8_0", LIKELIHOOD, **DECODED)
def cache_wraps_around() -> None:
    def wrapped(backend: Any, position: int) -> None:
        if 512 <= position < 520:
            forget(backend, position - 512)

    after_each_token_of_llamacpp(wrapped)
