"""bitsandbytes: LLM.int8, NF4, FP4, through transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import bitsandbytes
import torch
import transformers

from quantgate.backends.base import Rounding
from quantgate.backends.runtime.transformers import Transformers
from quantgate.checkpoint.checks import quantization_of


class BitsAndBytes(Transformers):
    """The linear layers quantized on loading; embeddings, norms and the head stay in `dtype`."""

    def quantization(self, options: dict[str, Any]) -> dict[str, Any]:
        own = {k: v for k, v in options.items() if k.startswith(("load_in_", "bnb_", "llm_int8_"))}
        if own.get("load_in_4bit"):
            own.setdefault("bnb_4bit_compute_dtype", options["dtype"])
        self._kind = bitsandbytes.nn.Params4bit if own.get("load_in_4bit") else bitsandbytes.nn.Int8Params
        if quantization_of(self._checkpoint):
            return {}  # what the checkpoint says already; another one was refused
        return {"quantization_config": transformers.BitsAndBytesConfig(**own)}

    def holds(self, name: str, parameter: torch.Tensor) -> bool:
        return isinstance(parameter, self._kind)

    @property
    def rounding(self) -> Rounding:
        """LLM.int8 treats a column as an outlier for all rows of a batch where one of them has one; kernels of 4 bits
        change with the number of rows."""
        return Rounding(super().rounding.floor, 1.0)

    def stored(self, parameter: torch.Tensor) -> Iterable[torch.Tensor]:
        yield parameter
        if isinstance(parameter, bitsandbytes.nn.Params4bit):
            # absmax, code book and, with double quantization, the nested constants.
            yield from (v for v in parameter.quant_state.as_dict().values() if isinstance(v, torch.Tensor))
        elif isinstance(parameter, bitsandbytes.nn.Int8Params) and parameter.SCB is not None:
            yield parameter.SCB

    def logical_count(self, parameter: torch.Tensor) -> int:
        if isinstance(parameter, bitsandbytes.nn.Params4bit):
            return int(torch.Size(parameter.quant_state.shape).numel())
        return int(parameter.numel())


load = BitsAndBytes
