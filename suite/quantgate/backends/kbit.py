"""kbit: simulated k-bit weights, as in arXiv 2212.09720 (`quantgate.backends.runtime.kbit`)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from quantgate.backends import transformers
from quantgate.backends.spec import BackendSpec, loader

RUNTIME = "quantgate.backends.runtime.kbit"
EXPONENT_BITS = {2: 1, 3: 2, 4: 3, 5: 3, 6: 3, 7: 3, 8: 3}
"""Of the float type, by bits: appendix A, for 3 to 8. Appendix C.4 finds half the bits, rounded up, better at 4."""
FOUR_BITS = ("nf4", "fp4")
OF_DATA_TYPES = {"block", "exponent_bits", "centered", "outliers"}


class Options(transformers.FloatOptions):
    """What a scheme may say.

    data_type: None: nothing is quantized, all weights are rounded to 16 bits. block: weights that share a constant, the
    largest of them in magnitude; `tensor`: all of one. exponent_bits: of the float type. centered: subtract the mean
    of each tensor (appendix B). outliers: share of the input dimensions of each layer whose weights stay in 16 bits,
    those fed by the hidden units of largest standard deviation (proxy quantization, section 3).
    """

    bits: int = Field(gt=0, le=16, strict=False)
    data_type: Literal["int", "float", "dynamic", "quantile", "nf4", "fp4"] | None = None
    block: int | Literal["tensor"] = Field(default=64)
    exponent_bits: int | None = None
    centered: bool = False
    outliers: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.as_is:
            raise ValueError(
                "its bits are simulated in whatever is loaded, so that nothing is measured as it is: name a checkpoint "
                "under a scheme of another backend"
            )
        if self.data_type is None:
            if self.bits != 16:
                raise ValueError("without a data_type, weights have 16 bits")
            if idle := sorted(self.model_fields_set & OF_DATA_TYPES):
                raise ValueError(f"{idle[0]} does nothing without a data_type: give one, or leave it out")
            return self
        allowed = [4] if self.data_type in FOUR_BITS else list(EXPONENT_BITS)
        if self.bits not in allowed:
            raise ValueError(f"the {self.data_type} type has {' or '.join(map(str, allowed))} bits")
        if self.block != "tensor" and self.block < 1:
            raise ValueError("a block has at least one weight")
        if self.exponent_bits is not None and self.data_type != "float":
            raise ValueError("only the float type has exponent_bits")
        if self.exponent_bits is not None and not 1 <= self.exponent_bits < self.bits:
            raise ValueError(f"{self.bits} bits leave 1 to {self.bits - 1} exponent_bits beside the sign")
        return self


BACKEND = BackendSpec(
    options=Options,
    capabilities=transformers.SIMULATED,
    load=loader(RUNTIME),
    imports=(RUNTIME,),
    libraries={**transformers.LIBRARIES, "bitsandbytes": "bitsandbytes"},
)
