"""bitsandbytes: LLM.int8, NF4, FP4, through transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bitsandbytes  # noqa: F401  # so that no import is timed as loading

from quantgate.backends.runtime.transformers import Transformers
from quantgate.checkpoint.checks import check_quantization, quantization_of
from quantgate.errors import InputError

STATED = {
    "llm_int8_threshold": 6.0,
    "llm_int8_has_fp16_weight": False,
    "llm_int8_skip_modules": None,
    "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_storage": "uint8",
}
"""What of a checkpoint's configuration changes what is computed, beside the kind of its weights, with the library's
defaults."""


class BitsAndBytes(Transformers):
    """The linear layers quantized on loading; embeddings, norms and the head stay in `dtype`."""

    def quantization(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        check_quantization(self._checkpoint, "this scheme", options)
        check_stated(self._checkpoint, options)
        if quantization_of(self._checkpoint):
            return "bitsandbytes", {}  # what the checkpoint says already; another one was refused
        if options.get("as_is"):
            raise InputError(
                f"{self._checkpoint}/config.json: quantization_config: is missing: the weights are not quantized, and "
                "the scheme has as_is = true: name a quantized checkpoint, or leave as_is out"
            )
        settings = {k: v for k, v in options.items() if k.startswith(("load_in_", "bnb_", "llm_int8_"))}
        if settings.get("load_in_4bit"):
            settings.setdefault("bnb_4bit_compute_dtype", options["dtype"])
        return "bitsandbytes", {"method": "bitsandbytes", **settings}


def check_stated(folder: Path, options: Mapping[str, Any]) -> None:
    """Raise InputError where a checkpoint that is quantized already is computed otherwise than a scheme's `options`
    say: the library goes by the checkpoint alone."""
    stored = quantization_of(folder)
    for key, default in STATED.items() if stored else ():
        if (wanted := options.get(key)) is not None and wanted != (has := stored.get(key, default)):
            raise InputError(
                f"{folder}/config.json: quantization_config.{key}: is {json.dumps(has)}, and the scheme says "
                f"{json.dumps(wanted)}: the library goes by the checkpoint; correct the scheme, or leave {key} out"
            )


load = BitsAndBytes
