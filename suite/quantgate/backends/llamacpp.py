"""llama.cpp: GGUF files, through the low-level calls of llama-cpp-python."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from quantgate.backends.spec import BackendSpec, SchemeOptions, loader

RUNTIME = "quantgate.backends.runtime.llamacpp"
FLOATS = ("F32", "F16", "BF16")

Ftype = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0",
    "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "Q2_K_S", "Q2_0", "Q1_0", "IQ4_NL", "IQ4_XS", "IQ3_M", "IQ3_S", "IQ3_XS",
    "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ1_0", "TQ2_0", "MXFP4_MOE", "NVFP4",
]  # fmt: skip
"""The `LLAMA_FTYPE_MOSTLY_` constants of llama.cpp."""


class Options(SchemeOptions):
    """ftype: what the file is quantized to; with `as_is`, nothing is. n_gpu_layers: how many layers lie on the GPU, -1
    for all. imatrix: a text of tasks.toml whose activations make an importance matrix."""

    ftype: Ftype | None = None
    n_gpu_layers: int = Field(default=0, ge=-1)
    imatrix: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.device == "cuda" and self.n_gpu_layers == 0:
            raise ValueError('with device = "cuda", give n_gpu_layers: -1 puts all layers on the GPU')
        if self.device == "cpu" and self.n_gpu_layers != 0:
            raise ValueError('n_gpu_layers needs device = "cuda"')
        if self.ftype is None and not self.as_is:
            raise ValueError(
                "ftype is missing: name it, or as_is = true for files that are loaded as they are"
            )
        if self.imatrix is not None and self.ftype in FLOATS:
            raise ValueError(f"an importance matrix does nothing for {self.ftype}: leave imatrix out")
        return self


BACKEND = BackendSpec(
    options=Options,
    capabilities=frozenset({"scores", "logits", "steps", "timings", "weights", "tokenizes"}),
    load=loader(RUNTIME),
    imports=(RUNTIME,),
    libraries={"llama_cpp": "llama-cpp-python"},
)
