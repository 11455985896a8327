"""Environment variables that change numbers, timings or memory: kernels, threads, allocators, devices."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

COMPUTING = re.compile(
    r"(?:MKL|MKLDNN|ONEDNN|DNNL|ATEN|OMP|GOMP|KMP|LIBOMP|OPENBLAS|GOTO|BLIS|BLAS|VECLIB|NUMEXPR|NPY|"
    r"MALLOC|JEMALLOC|TCMALLOC|MIMALLOC|GGML|LLAMA|TORCH|TORCHINDUCTOR|TORCHDYNAMO|PYTORCH|TRITON|XNNPACK|"
    r"CUBLAS|CUBLASLT|CUDA|CUDNN|NVIDIA|NVTE|BNB|BITSANDBYTES|HIP|HSA|ROCR|ROCBLAS|"
    r"MIOPEN|ZE|SYCL|ONEAPI|USE_(?:NNPACK|FLASH|MEM)\w*?)_\w+"
    r"|LD_PRELOAD|LD_LIBRARY_PATH|LD_BIND_NOW|GLIBC_TUNABLES|PYTHONMALLOC|_?RJEM_MALLOC_CONF|MALLOC_\w+"
)
"""Names of variables that libraries compute by."""

PLACES = re.compile(
    r".*_(?:HOME|ROOT|DIR|PATH|CACHE\w*|VERSION|LOGS?|LOG_LEVEL)|NVIDIA_(?:DRIVER_CAPABILITIES|REQUIRE_\w+)"
    r"|CUDA_(?:HOME|PATH)\w*|TORCH_SHOW_\w+|TORCH_CPP_LOG_LEVEL"
)
"""Those of them that only say where files are, what is printed, or what a container image was made for."""

LIBRARIES = {"LD_LIBRARY_PATH", "GGML_BACKEND_PATH", "BNB_CUDA_VERSION"}
"""Exceptions: these decide which library is loaded."""

SET_HERE = {"OMP_NUM_THREADS"}
"""Set by `quantgate.processes.server.environment`; a measurement records it as `threads`."""


def variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that are set and compute, by name. environ: in place of this process's."""
    environ = os.environ if environ is None else environ
    return {
        name: environ[name]
        for name in sorted(environ)
        if name not in SET_HERE
        and COMPUTING.fullmatch(name)
        and (name in LIBRARIES or not PLACES.fullmatch(name))
    }
