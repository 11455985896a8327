"""The devices of a model of transformers: the CPU, one GPU, or several among which the library splits its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from quantgate.errors import MeasurementError


class Devices:
    """Where a loaded model lies, and what is asked of the devices together. options: of the scheme. Raises
    MeasurementError where a part of a split model is not on a GPU."""

    def __init__(self, model: Any, options: Mapping[str, Any]) -> None:
        self._split = options.get("device_map", "")
        places = getattr(model, "hf_device_map", {"": model.device})  # none where one device holds all
        self._all = gpus_of(places) if self._split else [torch.device(options["device"])]
        self.is_cuda = self._all[0].type == "cuda"
        # Inputs go to the embedding; from layer to layer the library moves what is computed.
        self.first = model.get_input_embeddings().weight.device if self._split else self._all[0]
        # Rows are taken from what the last layer leaves, wherever that is: an index on the CPU is taken everywhere.
        self.of_indices = torch.device("cpu") if self._split else self.first

    def wait(self) -> None:
        """Wait until all devices have done all that they were given."""
        if self.is_cuda:
            for device in self._all:
                torch.cuda.synchronize(device)

    def kernels(self) -> str:
        """What the devices compute with: `CUDA 12.8, NVIDIA H200`."""
        names = dict.fromkeys(torch.cuda.get_device_name(device) for device in self._all)
        return f"CUDA {torch.version.cuda}, {', '.join(names)}"

    def facts(self) -> dict[str, str]:
        """How a model is split, for the environment; empty for one that is not."""
        return {"device_map": f"{self._split}, {len(self._all)} devices"} if self._split else {}

    def peak_bytes(self) -> dict[str, int]:
        """The sum of the peaks of all devices, by kind; empty on the CPU."""
        if not self.is_cuda:
            return {}
        return {
            "cuda_allocated": sum(map(torch.cuda.max_memory_allocated, self._all)),
            "cuda_reserved": sum(map(torch.cuda.max_memory_reserved, self._all)),
        }

    def reset_peak(self) -> None:
        """Start a new peak on all devices."""
        if self.is_cuda:
            for device in self._all:
                torch.cuda.reset_peak_memory_stats(device)


def placement(options: Mapping[str, Any]) -> str | dict[str, torch.device]:
    """Return the argument `device_map` of from_pretrained."""
    return options.get("device_map") or {"": torch.device(options["device"])}


def gpus_of(device_map: Mapping[str, int | str | torch.device]) -> list[torch.device]:
    """Return the GPUs of a model that the library has split, each once. device_map: by module, where it was put. Raises
    MeasurementError where that is no GPU: weights that are fetched for each pass are neither in the memory nor in the
    time of the scheme."""
    gpus = [_gpu(place) for place in device_map.values()]
    left = [module or "the model" for module, gpu in zip(device_map, gpus, strict=True) if gpu is None]
    if left:
        raise MeasurementError(
            f"device_map leaves {left[0]}{f' and {len(left) - 1} more parts' if len(left) > 1 else ''} outside of the "
            f"GPUs, of which there are {torch.cuda.device_count()}: give the cell more of them "
            "(`resources`, gpus), or quantize to fewer bits"
        )
    return list(dict.fromkeys(filter(None, gpus)))


def _gpu(place: int | str | torch.device) -> torch.device | None:
    """Return the GPU that a place names; None: it is none."""
    if isinstance(place, int):
        return torch.device("cuda", place)
    return torch.device(place) if str(place).startswith("cuda") else None
