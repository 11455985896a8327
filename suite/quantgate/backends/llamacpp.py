"""llama.cpp: GGUF files, through the low-level calls of llama-cpp-python."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from quantgate.backends.spec import BackendSpec, SchemeOptions, loader

RUNTIME = "quantgate.backends.runtime.llamacpp"
UNWEIGHTED = ("F32", "F16", "BF16", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4_MOE", "NVFP4")
"""What llama.cpp makes without looking at an importance matrix (`quant_weights` of ggml-quants.c)."""

Ftype = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0",
    "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "Q2_K_S", "Q2_0", "Q1_0", "IQ4_NL", "IQ4_XS", "IQ3_M", "IQ3_S", "IQ3_XS",
    "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ1_0", "TQ2_0", "MXFP4_MOE", "NVFP4",
]  # fmt: skip
"""The `LLAMA_FTYPE_MOSTLY_` constants of llama.cpp."""

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
"""ggml's names of the types that llama.cpp's --cache-type-k and --cache-type-v take."""
UNQUANTIZED = ("f32", "f16", "bf16")


class OfGguf(SchemeOptions):
    """ftype: what the file is quantized to; with `as_is`, nothing is. imatrix: a text of tasks.toml whose activations
    make an importance matrix."""

    ftype: Ftype | None = None
    imatrix: str | None = None

    @model_validator(mode="after")
    def _uses_imatrix(self) -> Self:
        if self.imatrix is not None and self.ftype in (None, *UNWEIGHTED):
            where = f"for {self.ftype}" if self.ftype else "without an ftype"
            raise ValueError(f"an importance matrix does nothing {where}: leave imatrix out")
        return self

    def check_ftype(self) -> None:
        """Raise ValueError where nothing says which file is loaded."""
        if self.ftype is None and not self.as_is:
            raise ValueError(
                "ftype is missing: name it, or as_is = true for files that are loaded as they are"
            )


class Options(OfGguf):
    """n_gpu_layers: how many layers lie on the GPU, -1 for all.

    type_k, type_v: types of the cached keys and values. flash_attn: whether attention is computed so; without it
    llama.cpp chooses. n_ubatch: tokens computed at once. These four are as in llama.cpp's tools by default.

    split_mode, tensor_split, main_gpu: as in llama.cpp's tools: how the model is spread over GPUs, the share of each,
    and the one that holds what is not spread.
    """

    n_gpu_layers: int = Field(default=0, ge=-1)
    type_k: CacheType = "f16"
    type_v: CacheType = "f16"
    flash_attn: bool | None = None
    n_ubatch: int = Field(default=512, ge=1)
    split_mode: Literal["none", "layer", "row"] | None = None
    tensor_split: (
        Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=16)] | None
    ) = None
    main_gpu: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.device == "cuda" and self.n_gpu_layers == 0:
            raise ValueError('with device = "cuda", give n_gpu_layers: -1 puts all layers on the GPU')
        if self.device == "cpu" and self.n_gpu_layers != 0:
            raise ValueError('n_gpu_layers needs device = "cuda"')
        for name in ("split_mode", "tensor_split", "main_gpu"):
            if self.device == "cpu" and getattr(self, name) is not None:
                raise ValueError(f'{name} needs device = "cuda"')
        if self.tensor_split is not None and (self.split_mode == "none" or not any(self.tensor_split)):
            raise ValueError(
                'tensor_split spreads nothing: give it a share above 0, and not split_mode = "none"'
            )
        self.check_ftype()
        if self.type_v not in UNQUANTIZED and self.flash_attn is False:
            raise ValueError(
                f'type_v = "{self.type_v}" needs flash attention in llama.cpp: remove flash_attn = false, or quantize '
                "the keys alone (type_k)"
            )
        return self

    def by_token(self) -> bool:
        return self.n_ubatch == 1


BACKEND = BackendSpec(
    options=Options,
    capabilities=frozenset({"scores", "logits", "steps", "timings", "weights", "tokenizes", "generates"}),
    load=loader(RUNTIME),
    imports=(RUNTIME,),
    libraries={"llama_cpp": "llama-cpp-python"},
    unused=frozenset({
        "accelerate", "bitsandbytes", "datasets", "gguf", "lm_eval", "safetensors", "tokenizers", "torch",
        "transformers",
    }),
)  # fmt: skip
