"""Refuse folders that are no language model, or hold other weights than their configuration says: no torch.

What a configuration leaves open, the process that measures finds out.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from quantgate.checkpoint.checks import quantization_of, read_json, tensors_of
from quantgate.checkpoint.gguf_kinds import refusal
from quantgate.errors import AssetError

ENCODERS = (
    "albert", "bert", "camembert", "deberta*", "distilbert", "electra", "esm", "modernbert", "mpnet", "nomic_bert",
    "roberta", "xlm-roberta", "clip", "clip_*", "siglip*", "vit",
)  # fmt: skip
"""Patterns of `model_type` of models that read a text or picture as a whole, without `is_decoder`."""
PACKED = {"bitsandbytes": (".absmax", ".SCB"), "gptq": (".qweight",), "awq": (".qweight",)}
"""By method, what the names of tensors with packed weights, or their constants, end with."""
_OTHER_HEAD = re.compile(
    r"For\w*(Classification|QuestionAnswering|MultipleChoice|SentencePrediction|MaskedLM)$"
)


def check_folder(folder: Path) -> None:
    """Raise AssetError where config.json names a model that continues no text, or weights of Apple's MLX."""
    config = read_json(folder / "config.json")
    classes = [str(one) for one in config.get("architectures") or ()]
    if config.get("is_encoder_decoder") is True:
        raise refusal(f"{folder}/config.json: is_encoder_decoder", "true", "an encoder with a decoder")
    if classes and all(map(_OTHER_HEAD.search, classes)):
        raise refusal(f"{folder}/config.json: architectures", ", ".join(classes), "whose head writes no text")
    family = str(config.get("model_type"))
    if not config.get("is_decoder") and any(fnmatchcase(family, pattern) for pattern in ENCODERS):
        raise refusal(f"{folder}/config.json: model_type", family, "an encoder")
    packed = config.get("quantization_config") or config.get("quantization")
    if isinstance(packed, dict) and {"group_size", "bits"} <= packed.keys() and "quant_method" not in packed:
        raise AssetError(
            f"{folder}/config.json: quantization: the weights are packed by MLX ({packed['bits']} bits), which no "
            "backend here loads: name the checkpoint that they were made from, or a GGUF file of this model"
        )


def check_packed(folder: Path) -> None:
    """Raise AssetError where config.json names a quantization, and the weights are floats: a model that was merged, or
    trained on, often keeps the entry of the one that it began with."""
    stored = quantization_of(folder)
    method = str(stored.get("quant_method") or "bitsandbytes")
    packed = PACKED.get(method) if stored else None
    if packed and not any(name.endswith(packed) for name in tensors_of(folder)):
        raise AssetError(
            f"{folder}/config.json: quantization_config: names {method}, and no weight in the files is packed: remove "
            "the entry if the weights are floats, or fetch the quantized ones"
        )
