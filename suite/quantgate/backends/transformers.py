"""transformers: safetensors checkpoints in floats of 32 or 16 bits, on the CPU or one CUDA device."""

from __future__ import annotations

from typing import Literal

from quantgate.backends.spec import BackendSpec, Capability, SchemeOptions, loader

Dtype = Literal["float32", "float16", "bfloat16"]
RUNTIME = "quantgate.backends.runtime.transformers"
SIMULATED: frozenset[Capability] = frozenset(
    {"scores", "logits", "steps", "weights", "tokenizes", "generates", "inputs"}
)
"""What a model of transformers can do whose speed is not that of its scheme."""
LIBRARIES = {"torch": "torch", "transformers": "transformers"}


class Options(SchemeOptions):
    """dtype: of the weights and of what is computed."""

    dtype: Dtype


BACKEND = BackendSpec(
    options=Options,
    capabilities=SIMULATED | {"timings"},
    load=loader(RUNTIME),
    imports=(RUNTIME,),
    libraries=LIBRARIES,
)
