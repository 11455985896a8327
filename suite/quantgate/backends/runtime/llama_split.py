"""Over which GPUs llama.cpp spreads a model."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import llama_cpp
from llama_cpp._ggml import libggml

from quantgate.errors import MeasurementError

_MODES = {
    "none": llama_cpp.LLAMA_SPLIT_MODE_NONE,
    "layer": llama_cpp.LLAMA_SPLIT_MODE_LAYER,
    "row": llama_cpp.LLAMA_SPLIT_MODE_ROW,
}
_GPU = 1
"""GGML_BACKEND_DEVICE_TYPE_GPU."""


def spread(params: Any, options: Mapping[str, Any], gpus: int) -> Any:
    """Set in the parameters of a model what the options say; return what has to live until it is loaded. gpus: how many
    this process sees. Raises MeasurementError where there are fewer than the options name."""
    shares = options.get("tensor_split") or []
    if len(shares) > gpus:
        raise MeasurementError(
            f"tensor_split has {len(shares)} shares, and llama.cpp sees {gpus} GPUs: give the cell as many "
            "(`resources`, gpus), or name fewer shares"
        )
    if "main_gpu" in options:
        if options["main_gpu"] >= gpus:
            raise MeasurementError(
                f"main_gpu {options['main_gpu']}: llama.cpp sees {gpus} GPUs, the first is 0"
            )
        params.main_gpu = options["main_gpu"]
    if "split_mode" in options:
        params.split_mode = _MODES[options["split_mode"]]
    if not shares:
        return None
    places = (ctypes.c_float * llama_cpp.llama_max_devices())(*shares)
    params.tensor_split = ctypes.cast(places, ctypes.POINTER(ctypes.c_float))
    return places


def visible_gpus() -> int:
    """Return how many GPUs llama.cpp sees."""
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    libggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    devices = map(libggml.ggml_backend_dev_get, range(libggml.ggml_backend_dev_count()))
    return sum(libggml.ggml_backend_dev_type(device) == _GPU for device in devices)
