"""bitsandbytes: LLM.int8, NF4, FP4, through transformers. The options are those of its `BitsAndBytesConfig`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from quantgate.backends import transformers
from quantgate.backends.spec import BackendSpec, loader

RUNTIME = "quantgate.backends.runtime.bitsandbytes"
ONLY_8BIT = ("llm_int8_threshold", "llm_int8_has_fp16_weight")
BITS = {"load_in_8bit": 8, "load_in_4bit": 4}


class Options(transformers.FloatOptions):
    """dtype: of what is not quantized: embeddings, norms, the head. bnb_4bit_compute_dtype: the same by default."""

    load_in_8bit: bool = False
    load_in_4bit: bool = False
    llm_int8_threshold: float = 6.0
    llm_int8_has_fp16_weight: bool = False
    llm_int8_skip_modules: list[str] | None = None
    llm_int8_enable_fp32_cpu_offload: bool = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "fp4"
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_compute_dtype: transformers.Dtype | None = None
    bnb_4bit_quant_storage: Literal["uint8", "float32", "float16", "bfloat16"] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.load_in_8bit == self.load_in_4bit:
            raise ValueError("give either load_in_8bit = true or load_in_4bit = true")
        key = "load_in_8bit" if self.load_in_8bit else "load_in_4bit"
        if self.bits is not None and self.bits != BITS[key]:
            raise ValueError(f"{key} = true makes {BITS[key]} bits, and bits = {self.bits:g}")
        for name in sorted(self.model_fields_set):
            if name in ONLY_8BIT and self.load_in_4bit:
                raise ValueError(f"{name} does nothing with load_in_4bit: leave it out")
            if name.startswith("bnb_4bit_") and self.load_in_8bit:
                raise ValueError(f"{name} does nothing with load_in_8bit: leave it out")
        return self


BACKEND = BackendSpec(
    options=Options,
    capabilities=transformers.BACKEND.capabilities,
    load=loader(RUNTIME),
    imports=(RUNTIME,),
    libraries={**transformers.LIBRARIES, "bitsandbytes": "bitsandbytes"},
)
