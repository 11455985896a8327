"""bitsandbytes: LLM.int8, NF4, FP4, through transformers."""

from __future__ import annotations

from typing import Any

import bitsandbytes  # noqa: F401  # so that no import is timed as loading
import transformers

from quantgate.backends.runtime.transformers import Transformers
from quantgate.checkpoint.checks import check_quantization, quantization_of
from quantgate.errors import InputError


class BitsAndBytes(Transformers):
    """The linear layers quantized on loading; embeddings, norms and the head stay in `dtype`."""

    def check(self, options: dict[str, Any]) -> str:
        check_quantization(self._checkpoint, "this scheme", options)
        if options.get("as_is") and not quantization_of(self._checkpoint):
            raise InputError(
                f"{self._checkpoint}/config.json: quantization_config: is missing: the weights are not quantized, and "
                "the scheme has as_is = true: name a quantized checkpoint, or leave as_is out"
            )
        return "bitsandbytes"

    def quantization(self, options: dict[str, Any]) -> dict[str, Any]:
        if quantization_of(self._checkpoint):
            return {}  # what the checkpoint says already; another one was refused
        settings = {k: v for k, v in options.items() if k.startswith(("load_in_", "bnb_", "llm_int8_"))}
        if settings.get("load_in_4bit"):
            settings.setdefault("bnb_4bit_compute_dtype", options["dtype"])
        return {"quantization_config": transformers.BitsAndBytesConfig(**settings)}


load = BitsAndBytes
