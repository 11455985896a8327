"""Refuse what continues no text from left to right, where its configuration says so: no weights, no torch.

What a configuration leaves open, the process that measures finds out.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from quantgate.checkpoint.checks import read_json
from quantgate.errors import AssetError

ENCODERS = (
    "albert", "bert", "camembert", "deberta*", "distilbert", "electra", "esm", "modernbert", "mpnet", "nomic_bert",
    "roberta", "xlm-roberta", "clip", "clip_*", "siglip*", "vit",
)  # fmt: skip
"""Patterns of `model_type` of models that read a text or picture as a whole, without `is_decoder`."""
GGUF_KINDS = {
    **dict.fromkeys(("t5", "t5encoder"), "an encoder, with or without a decoder"),
    **dict.fromkeys(("*bert*", "gemma-embedding"), "an encoder"),
    **dict.fromkeys(("dream", "llada", "llada-moe"), "a diffusion model"),
    "clip": "what sees or hears beside a language model (mmproj)",
    "wavtokenizer-dec": "a decoder of sounds",
}
"""Patterns of `general.architecture` of GGUF files."""
_OTHER_HEAD = re.compile(
    r"For\w*(Classification|QuestionAnswering|MultipleChoice|SentencePrediction|MaskedLM)$"
)


def check_folder(folder: Path) -> None:
    """Raise AssetError where config.json names a model that continues no text."""
    config = read_json(folder / "config.json")
    classes = [str(one) for one in config.get("architectures") or ()]
    if config.get("is_encoder_decoder") is True:
        _refuse(f"{folder}/config.json: is_encoder_decoder", "true", "an encoder with a decoder")
    if classes and all(map(_OTHER_HEAD.search, classes)):
        _refuse(f"{folder}/config.json: architectures", ", ".join(classes), "whose head writes no text")
    family = str(config.get("model_type"))
    if not config.get("is_decoder") and any(fnmatchcase(family, pattern) for pattern in ENCODERS):
        _refuse(f"{folder}/config.json: model_type", family, "an encoder")


def check_architecture(file: Path, architecture: object) -> None:
    """Raise AssetError where `general.architecture` of a GGUF file names a model that continues no text."""
    for pattern, kind in GGUF_KINDS.items():
        if fnmatchcase(str(architecture), pattern):
            _refuse(f"{file}: general.architecture", str(architecture), kind)


def _refuse(key: str, value: str, kind: str) -> None:
    raise AssetError(
        f"{key} is {value}, {kind}: only models that continue a text from left to right can be measured; name the "
        "checkpoint of one"
    )
