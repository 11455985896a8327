"""Maker of safetensors from a GGUF file, by transformers, with a check that all of the file was read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from quantgate.checkpoint.contents import gguf_parts
from quantgate.checkpoint.gguf_header import Header, read_header
from quantgate.errors import AssetError
from quantgate.supply.checkpoints import Report, rewrite, whole
from quantgate.supply.splitting import tokenizer_of_gguf
from quantgate.words import shortened

SHOWN = 6
"""Tensors that an error names."""


def safetensors_from_gguf(output: Path, *, report: Report, gguf: str) -> None:
    """Dequantize a GGUF into a folder with config, tokenizer and one safetensors file of 32-bit floats. A split one is
    merged first: transformers would read its first part alone.

    transformers loads GGUF files but refuses to save a model loaded from one, so the tensors are written here.
    """
    from safetensors.torch import save_file

    source = Path(gguf)
    parts = gguf_parts(source)
    report("dequantize", 0, 1)
    with whole(output, folder=True) as work:
        merged = source
        if len(parts) > 1:
            import llama_cpp

            merged = work.with_name("merged.gguf")
            params = llama_cpp.llama_model_quantize_default_params()
            params.only_copy = True
            rewrite(source, merged, params, "merged")
        model, tokenizer = _loaded(merged, source)
        tied = (
            set(getattr(model, "_tied_weights_keys", None) or ())
            if model.config.tie_word_embeddings
            else set()
        )
        tensors = {k: v.contiguous() for k, v in model.state_dict().items() if k not in tied}
        save_file(tensors, work / "model.safetensors", metadata={"format": "pt"})
        # The weights are plain now; with this entry transformers would take them for quantized ones.
        del model.config.quantization_config
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(work)
        tokenizer.save_pretrained(work)


def _loaded(path: Path, source: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a GGUF in one file. source: what it was merged from, for messages."""
    import torch
    import transformers

    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise AssetError(
            f"{source}: transformers cannot read this GGUF: {type(error).__name__}: {error}; name its original "
            "safetensors as `weights` of the model"
        ) from error
    header = read_header(path)
    count = sum(p.numel() for p in model.parameters())
    if problem := unread(header, model, count, info):
        raise AssetError(
            f"{source}: transformers does not read all of this GGUF: {problem}; name its original safetensors as "
            "`weights` of the model"
        )
    return model, tokenizer_of_gguf(path)


def unread(header: Header, model: Any, count: int, info: dict[str, Any]) -> str:
    """What of a GGUF is not in the model that transformers made of it; empty: nothing. count: of the model's weights,
    tied ones once. info: what from_pretrained says of loading."""
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    architecture = str(header.values.get("general.architecture"))
    lost = [*info["missing_keys"], *(str(key[0]) for key in info["mismatched_keys"])]
    if lost:
        return f"it has no weights for {shortened(sorted(lost), SHOWN)}"
    scaling = str(header.values.get(f"{architecture}.rope.scaling.type", "none"))
    rope = getattr(model.config, "rope_parameters", None) or {}
    kinds = {rope.get("rope_type"), *(v.get("rope_type") for v in rope.values() if isinstance(v, dict))}
    if scaling != "none" and scaling not in kinds:
        return f"its rotary positions are scaled ({scaling}), transformers takes them unscaled"
    stored = sum(math.prod(shape) for shape, _, _ in header.tensors.values())
    if stored == count:
        return ""
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=model.config.to_dict())
    mapped = get_gguf_hf_weights_map(model, processor)
    rest = [name for name in header.tensors if name not in mapped]
    without = shortened(sorted(rest), SHOWN) or "a tensor that it does not name"
    return f"it holds {stored:,} weights, the model {count:,}, without {without}"
