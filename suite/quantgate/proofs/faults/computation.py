"""Faults of computation: the weights are right, the arithmetic is not."""

from __future__ import annotations

from typing import Any

from quantgate.proofs.faults.registry import ITEMS, REPRODUCTION, fault, layers_of, loaded, loading, wrap

TEXT = ("perplexity",)


def context_parameters(**values: Any) -> None:
    """Have llama.cpp make its contexts with other parameters."""
    import llama_cpp

    @wrap(llama_cpp, "llama_init_from_model")
    def make(original: Any, model: Any, parameters: Any) -> Any:
        for name, value in values.items():
            setattr(parameters, name, value)
        return original(model, parameters)


@fault("RoPE base 10,000 for 100,000", "llamacpp/Q4_K_M", "perplexity", groups=TEXT)
def rope_base_10000() -> None:
    context_parameters(rope_freq_base=10_000.0)


@fault("keys cached in 4 bits where 16 are claimed", "llamacpp/Q5_K_M", REPRODUCTION, groups=TEXT)
def cache_in_4_bits() -> None:
    import llama_cpp

    context_parameters(type_k=llama_cpp.GGML_TYPE_Q4_0)


@fault("KV cache dropping its oldest entry", "llamacpp/Q4_K_M", "perplexity", groups=TEXT)
def cache_drops_oldest() -> None:
    """A cache one entry too small for a window: half way through, the first token has gone."""
    import dataclasses

    import llama_cpp
    import numpy as np

    from quantgate.backends.runtime.llamacpp import LlamaCpp

    def part(tree: Any, begin: int, end: int) -> Any:
        cut = {name: getattr(tree, name)[begin:end] for name in ("ids", "positions", "parents", "members")}
        return dataclasses.replace(tree, **cut, rows=[r - begin for r in tree.rows if begin <= r < end])

    def drop(backend: Any) -> None:
        llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(backend._context), 0, 0, 1)

    @wrap(LlamaCpp, "logits")
    def logits(original: Any, backend: Any, tree: Any) -> Any:
        half = len(tree.ids) // 2
        first = original(backend, part(tree, 0, half)).copy()
        backend._keep = lambda tokens, sequences: drop(backend)  # instead of emptying the cache
        try:
            return np.concatenate([first, original(backend, part(tree, half, len(tree.ids)))])
        finally:
            del backend._keep


@fault(
    "KV cache dropping its oldest entry, in generation only",
    "llamacpp/Q4_K_M",
    "decoding/kl_mean",
    groups=("decoding",),
)
def generation_drops_oldest() -> None:
    import llama_cpp

    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "decode")
    def decode(original: Any, backend: Any, ids: Any) -> None:
        memory = llama_cpp.llama_get_memory(backend._context)
        for token in ids:
            oldest = llama_cpp.llama_memory_seq_pos_min(memory, 0)
            llama_cpp.llama_memory_seq_rm(memory, 0, oldest, oldest + 1)
            original(backend, [token])


@fault("RMSNorm epsilon 1e-3 for 1e-5", "transformers/fp32", REPRODUCTION, groups=TEXT)
def norm_epsilon() -> None:
    @loaded
    def change(backend: Any) -> None:
        for module in backend._model.modules():
            if hasattr(module, "variance_epsilon"):
                module.variance_epsilon = 1e-3


def attention(change: Any) -> None:
    """Change the arguments of torch's attention before it is computed."""
    import torch

    @wrap(torch.nn.functional, "scaled_dot_product_attention")
    def attend(original: Any, query: Any, key: Any, value: Any, **keywords: Any) -> Any:
        return original(query, key, value, **change(query, key, keywords))


@fault(
    "causal mask off by one: each token sees the next",
    "transformers/fp32",
    "perplexity",
    groups=TEXT,
    ends="the model is not causal",
)
def causal_mask_off_by_one() -> None:
    import torch

    def shifted(query: Any, key: Any, keywords: dict[str, Any]) -> dict[str, Any]:
        if not keywords.get("is_causal"):
            return keywords
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril(1)
        return {**keywords, "attn_mask": mask, "is_causal": False}

    attention(shifted)


@fault("attention scores scaled by 0.99", "transformers/fp32", REPRODUCTION, groups=TEXT)
def attention_scale() -> None:
    def scaled(query: Any, key: Any, keywords: dict[str, Any]) -> dict[str, Any]:
        return {**keywords, "scale": 0.99 * (keywords["scale"] or query.shape[-1] ** -0.5)}

    attention(scaled)


@fault(
    "the choices of an item see each other, and the handshake does not notice",
    "transformers/fp32",
    ITEMS,
    groups=("accuracy",),
)
def choices_see_each_other() -> None:
    import numpy as np

    from quantgate.backends.tree import TokenTree
    from quantgate.measure import way

    @wrap(way, "handshake")
    def handshake(original: Any, *arguments: Any) -> Any:
        return way.Handshake("shared", 0.0, 0.0)

    @wrap(TokenTree, "mask")
    def mask(original: Any, tree: TokenTree) -> Any:
        return np.tril(np.ones_like(original(tree)))


@fault("fp16 accumulation in the down projections", "transformers/fp32", REPRODUCTION, groups=TEXT)
def fp16_accumulation() -> None:
    import torch

    def product(module: Any, inputs: Any) -> Any:
        """Partial sums of 64 products each, rounded to fp16 after each addition."""
        total = torch.zeros(())
        for columns, weights in zip(inputs.split(64, -1), module.weight.split(64, -1), strict=True):
            total = (total + columns @ weights.T).half().float()
        return total

    @loaded
    def change(backend: Any) -> None:
        for layer in layers_of(backend):
            projection = layer.mlp.down_proj
            projection.forward = lambda inputs, module=projection: product(module, inputs)


@fault("the activation replaced by a cheaper one (hard swish)", "bitsandbytes/nf4", "perplexity", groups=TEXT)
def cheap_activation() -> None:
    import torch

    @loaded
    def change(backend: Any) -> None:
        for layer in layers_of(backend):
            layer.mlp.act_fn = torch.nn.Hardswish()


@fault(
    "outliers quantized with the rest (LLM.int8 threshold off)",
    "bitsandbytes/int8",
    REPRODUCTION,
    groups=TEXT,
)
def outliers_in_8_bits() -> None:
    loading(lambda path, options, threads: (path, {**options, "llm_int8_threshold": 0.0}, threads))


@fault(
    "logits overflow to infinity in one window",
    "llamacpp/Q4_K_M",
    "perplexity",
    groups=TEXT,
    ends="not finite",
)
def logits_overflow() -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    calls = iter(range(1_000_000))

    @wrap(LlamaCpp, "logits")
    def logits(original: Any, backend: Any, tree: Any) -> Any:
        scores = original(backend, tree)
        if next(calls) == 3:
            scores[len(scores) // 2] = float("inf")
        return scores
