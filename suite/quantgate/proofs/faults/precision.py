"""Faults of precision: something is rounded on the way, or a parameter is slightly wrong."""

from __future__ import annotations

from typing import Any

from quantgate.proofs.faults.computation import TEXT, attention, context_parameters
from quantgate.proofs.faults.registry import REPRODUCTION, fault, loaded, wrap


@fault("softmax of attention in fp16", "transformers/fp32", REPRODUCTION, groups=TEXT)
def softmax_in_fp16() -> None:
    import torch

    @wrap(torch.nn.functional, "scaled_dot_product_attention")
    def attend(original: Any, query: Any, key: Any, value: Any, **given: Any) -> Any:
        groups = query.shape[1] // key.shape[1]
        key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
        scores = query @ key.transpose(-1, -2) * (given.get("scale") or query.shape[-1] ** -0.5)
        mask = given.get("attn_mask")
        if given.get("is_causal"):
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return scores.half().softmax(-1).float() @ value


@fault("RMSNorm epsilon 2e-5 for 1e-5", "transformers/fp32", REPRODUCTION, groups=TEXT)
def norm_epsilon_doubled() -> None:
    @loaded
    def change(backend: Any) -> None:
        for module in backend._model.modules():
            if hasattr(module, "variance_epsilon"):
                module.variance_epsilon *= 2


@fault("the key 256 tokens back is not seen", "transformers/fp32", REPRODUCTION, groups=TEXT)
def window_off_by_one() -> None:
    import torch

    def shifted(query: Any, key: Any, keywords: dict[str, Any]) -> dict[str, Any]:
        if not keywords.get("is_causal"):
            return keywords
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        mask &= torch.arange(len(mask)).unsqueeze(1) - torch.arange(mask.shape[1]) != 256
        return {**keywords, "attn_mask": mask, "is_causal": False}

    attention(shifted)


@fault("logits rounded to fp16", "transformers/fp32", REPRODUCTION, groups=TEXT)
def logits_in_fp16() -> None:
    import numpy as np

    from quantgate.backends.runtime.transformers import Transformers

    @wrap(Transformers, "logits")
    def logits(original: Any, backend: Any, tree: Any) -> Any:
        return original(backend, tree).astype(np.float16).astype(np.float32)


@fault("RoPE base 1 % too large", "llamacpp/F16", REPRODUCTION, groups=TEXT)
def rope_base_one_percent() -> None:
    context_parameters(rope_freq_base=101_000.0)


@fault("RoPE base 1 % too large in a quantized cell", "llamacpp/Q4_K_M", REPRODUCTION, groups=TEXT)
def rope_base_one_percent_quantized() -> None:
    context_parameters(rope_freq_base=101_000.0)


def noise(library: Any) -> None:
    """Add noise to every logit, another in each process."""
    import numpy as np

    @wrap(library, "logits")
    def logits(original: Any, backend: Any, tree: Any) -> Any:
        exact = original(backend, tree)
        return exact + np.random.default_rng().normal(0, 1e-4, exact.shape).astype(np.float32)


@fault("noise of 1e-4 on every logit", "transformers/fp32", REPRODUCTION, groups=TEXT)
def noise_on_logits() -> None:
    from quantgate.backends.runtime.transformers import Transformers

    noise(Transformers)


@fault("the same noise in a quantized cell", "llamacpp/Q4_K_M", REPRODUCTION, groups=TEXT, line=True)
def noise_on_quantized_logits() -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    noise(LlamaCpp)
