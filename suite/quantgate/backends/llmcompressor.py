"""llmcompressor: GPTQ, AWQ, SmoothQuant, in the format of compressed-tensors, through transformers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from quantgate.backends import transformers
from quantgate.backends.spec import BackendSpec, loader

RUNTIME = "quantgate.backends.runtime.llmcompressor"
HIGH_BITS = 8
CALIBRATED = ("gptq", "awq", "smoothquant")


class Options(transformers.FloatOptions):
    """How the linear layers are quantized, without the head.

    method: `rtn` rounds to nearest; `gptq`: Frantar et al. (2022), arXiv 2210.17323; `awq`: Lin et al. (2023), arXiv
    2306.00978; `smoothquant`: Xiao et al. (2022), arXiv 2211.10438, of weights and activations. group:
    weights of a row that share a scale; `channel`: all of a row. activations: bits of the layers' inputs,
    scaled per token while the model runs; None: left as they are. calibration: a text of tasks.toml. high:
    share of the layers that are held in `high_bits`, those whose output rounding changes most.
    """

    bits: int = Field(ge=2, le=8, strict=False)
    method: Literal["rtn", "gptq", "awq", "smoothquant"]
    group: Annotated[int, Field(ge=1)] | Literal["channel"] = "channel"
    activations: Literal[8] | None = None
    calibration: str | None = None
    high: float = Field(default=0.0, ge=0, lt=1)
    high_bits: int = Field(default=HIGH_BITS, ge=2, le=8)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.method == "smoothquant" and self.activations is None:
            raise ValueError("smoothquant is for activations of 8 bits: add activations = 8")
        if (self.method in CALIBRATED or self.high) and self.calibration is None:
            raise ValueError("needs a `calibration`: the name of a text of tasks.toml")
        if self.method == "rtn" and not self.high and self.calibration is not None:
            raise ValueError("rounding to nearest takes no calibration")
        if self.high_bits != HIGH_BITS and not self.high:
            raise ValueError(
                "high_bits does nothing without high: give the share of the layers, or leave it out"
            )
        if self.high and self.high_bits <= self.bits:
            raise ValueError("high_bits has to be more than bits")
        return self


BACKEND = BackendSpec(
    options=Options,
    capabilities=transformers.SIMULATED,
    load=loader(RUNTIME),
    imports=(RUNTIME,),
    libraries={**transformers.LIBRARIES, "compressed_tensors": "'quantgate[calibrated]'"},
)
