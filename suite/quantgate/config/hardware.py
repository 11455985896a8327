"""Say what hardware a cell needs and this machine lacks."""

from __future__ import annotations

import ctypes
import functools

from quantgate.config.matrix import Cell


def missing_hardware(cell: Cell) -> str:
    """Return why the cell cannot run here; empty: it can."""
    if cell.scheme_options.get("device") == "cuda" and not cuda_devices():
        return "needs a CUDA device; this machine has none"
    return ""


@functools.cache
def cuda_devices() -> int:
    """Return the number of CUDA devices, from the driver itself: the parent process does not import torch."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
