"""Faults of writing: what is computed is right, and another text comes out. All are tried on llama.cpp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from quantgate.proofs.faults.generation import after_each_token_of_llamacpp
from quantgate.proofs.faults.registry import fault, wrap

TIER = "generation"
CHATS: dict[str, Any] = {"groups": ("generation",), "tier": TIER}
ANSWERS: dict[str, Any] = {"groups": ("answers",), "tier": TIER}
TEMPLATES: dict[str, Any] = {"groups": ("tokenizer",), "tier": TIER}
TEXTS = "generation/reproduction"
ANSWERED = "answers/*/texts/reproduction"
MISMATCHES = "tokenizer/chat_mismatches"


def each_choice(change: Callable[[Any, list[int]], Any]) -> None:
    """Change the logits that a token is chosen by; `change` is given them and the ids before, prompt included."""
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "prefill")
    def prefill(original: Any, backend: Any, ids: Any) -> None:
        backend.before = list(ids)
        original(backend, ids)

    @wrap(LlamaCpp, "decode")
    def decode(original: Any, backend: Any, ids: Any) -> None:
        backend.before += ids
        original(backend, ids)

    @wrap(LlamaCpp, "next_logits")
    def next_logits(original: Any, backend: Any) -> Any:
        return change(original(backend).copy(), backend.before)


@fault("the token that ends an answer is forgotten", "llamacpp/Q4_K_M", ANSWERED, **ANSWERS)
def end_of_sequence_forgotten() -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "generate")
    def generate(original: Any, backend: Any, ids: Any, limit: int, stops: Any) -> Any:
        return original(backend, ids, limit, replace(stops, ids=frozenset()))


@fault("a text that ends an answer is looked for a token late", "llamacpp/Q8_0", ANSWERED, **ANSWERS)
def stop_applied_late() -> None:
    from quantgate.backends.base import Stops

    @wrap(Stops, "reached")
    def reached(original: Any, stops: Any, written: Any) -> bool:
        of_token = bool(written) and written[-1] in stops.ids
        return of_token or original(replace(stops, ids=frozenset()), written[:-1])


@fault("a second beginning-of-sequence token before chats", "llamacpp/Q4_K_M", MISMATCHES, **TEMPLATES)
def second_bos() -> None:
    """As llama.cpp puts one where the header asks for it, whatever the template begins with."""
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "chat")
    def chat(original: Any, backend: Any, messages: Any, tools: Any) -> Any:
        import llama_cpp

        ids = original(backend, messages, tools)
        return ids and [llama_cpp.llama_vocab_bos(backend._vocab), *ids]


@fault("system messages are dropped", "llamacpp/Q4_K_M", MISMATCHES, **TEMPLATES)
def system_message_dropped() -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "chat")
    def chat(original: Any, backend: Any, messages: Any, tools: Any) -> Any:
        return original(backend, [m for m in messages if m["role"] != "system"], tools)


@fault("a repetition penalty of 1.1, from the checkpoint's settings", "llamacpp/F16", TEXTS, **CHATS)
def repetition_penalty() -> None:
    import numpy as np

    def penalized(logits: Any, before: list[int]) -> Any:
        there = logits[before]
        logits[before] = np.where(there > 0, there / 1.1, there * 1.1)
        return logits

    each_choice(penalized)


@fault("prompts padded on the left to 64 tokens, and the padding read", "llamacpp/F16", TEXTS, **CHATS)
def padding_without_mask() -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "generate")
    def generate(original: Any, backend: Any, ids: Any, limit: int, stops: Any) -> Any:
        return original(backend, [0] * (-len(ids) % 64) + list(ids), limit, stops)


@fault("cache entries one place off once 66 are there", "llamacpp/F16", TEXTS, **CHATS)
def cache_shifted() -> None:
    """Those from the second to the 64th, turned by one position less."""

    def shift(backend: Any, position: int) -> None:
        import llama_cpp

        if position == 65:
            memory = llama_cpp.llama_get_memory(backend._context)
            llama_cpp.llama_memory_seq_add(memory, 0, 1, 64, -1)

    after_each_token_of_llamacpp(shift)


@fault("tokens drawn at random instead of the likeliest", "llamacpp/F16", TEXTS, **CHATS)
def sampled() -> None:
    """By the Gumbel trick: the likeliest after noise is a draw at temperature 1."""
    import numpy as np

    source = np.random.default_rng()
    each_choice(lambda logits, before: logits + source.gumbel(size=len(logits)).astype(np.float32))
