"""transformers: safetensors checkpoints in floats of 32 or 16 bits, or quantized by one of its methods, on the CPU or
on GPUs."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from quantgate.backends.methods import METHODS, check_options, libraries_of
from quantgate.backends.spec import BackendSpec, Capability, SchemeOptions, loader, not_installed
from quantgate.config.sentences import WrongValueError
from quantgate.records import Record

Dtype = Literal["float32", "float16", "bfloat16"]
BITS = {"float32": 32, "float16": 16, "bfloat16": 16}
RUNTIME = "quantgate.backends.runtime.transformers"
SIMULATED: frozenset[Capability] = frozenset(
    {"scores", "logits", "steps", "weights", "tokenizes", "generates", "inputs"}
)
"""What a model of transformers can do whose speed is not that of its scheme."""
LIBRARIES = {"torch": "torch", "transformers": "transformers"}

_CACHES: dict[str, dict[str, tuple[int, ...]]] = {
    "fp8": {},
    "quanto": {"nbits": (2, 4), "axis_key": (0, -1), "axis_value": (0, -1)},
    "hqq": {"nbits": (1, 2, 3, 4, 8), "axis_key": (0, 1), "axis_value": (0, 1)},
}
"""By the quantizer of a cache, the values that its arguments take."""


class Cache(Record):
    """Arguments of transformers' `QuantizedCache`; left out, the library chooses. Keys and values are rounded when they
    are stored, which a single forward pass does not read: token by token, and in generation, it shows."""

    model_config = ConfigDict(strict=True)

    backend: Literal["fp8", "quanto", "hqq"]
    nbits: int | None = None
    axis_key: int | None = None
    axis_value: int | None = None
    q_group_size: int | None = Field(default=None, ge=1)
    residual_length: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        further = sorted(self.model_fields_set - {"backend"})
        if self.backend == "fp8" and further:
            raise WrongValueError(further[0], "does nothing with fp8: leave it out")
        for name, values in _CACHES[self.backend].items():
            if (value := getattr(self, name)) not in (None, *values):
                raise WrongValueError(
                    name, f"cannot be {value} with {self.backend}. Allowed: {', '.join(map(str, values))}"
                )
        return self


class FloatOptions(SchemeOptions):
    """dtype: of the weights and of what is computed; of a quantized scheme, of what is not quantized. cache: how keys
    and values are held while a text is continued; left out, in floats. device_map: how the library splits the layers
    over all GPUs that the process sees; left out, all lie on one device."""

    dtype: Dtype
    cache: Cache | None = None
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None

    @model_validator(mode="after")
    def _on_gpus(self) -> Self:
        if self.device_map is not None and self.device == "cpu":
            raise ValueError('device_map splits a model over GPUs: give device = "cuda", or leave it out')
        return self

    def further_libraries(self) -> dict[str, str]:
        return libraries_of(self.cache.backend) if self.cache else {}

    def why_not(self) -> str:
        if self.cache is None or self.cache.backend == "fp8":
            return ""
        return not_installed(METHODS[self.cache.backend].needs)


class Quantization(Record):
    """method: as transformers calls it (`quant_method`). Further keys are those of its configuration class, such as
    `TorchAoConfig`; under `as_is` they must agree with the checkpoint's."""

    model_config = ConfigDict(extra="allow", strict=True)

    method: str

    @property
    def settings(self) -> dict[str, Any]:
        """What the configuration class is given."""
        return self.model_extra or {}


class Options(FloatOptions):
    """quantization: by which method the linear layers are quantized while the model is loaded, or were before."""

    quantization: Quantization | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.quantization is not None:
            settings = self.quantization.settings
            check_options(self.quantization.method, settings, as_is=self.as_is, bits=self.bits)
        elif not self.as_is and self.bits not in (None, BITS[self.dtype]):
            raise ValueError(
                f'dtype = "{self.dtype}" makes {BITS[self.dtype]} bits, and bits = {self.bits:g}: add the quantization '
                "that makes them, or correct bits"
            )
        return self

    def why_not(self) -> str:
        if self.quantization is None:
            return super().why_not()
        method = METHODS[self.quantization.method]
        if method.cuda and self.device == "cpu":
            return f'{self.quantization.method} needs a GPU, and the scheme says device = "cpu"'
        return not_installed(method.needs) or super().why_not()

    def further_libraries(self) -> dict[str, str]:
        of_method = libraries_of(self.quantization.method) if self.quantization else {}
        return {**super().further_libraries(), **of_method}

    def lacks(self) -> frozenset[Capability]:
        decompresses = self.quantization is not None and METHODS[self.quantization.method].decompresses
        return frozenset({"timings"}) if decompresses else frozenset()


BACKEND = BackendSpec(
    options=Options,
    capabilities=SIMULATED | {"timings"},
    load=loader(RUNTIME),
    imports=(RUNTIME,),
    libraries=LIBRARIES,
)
