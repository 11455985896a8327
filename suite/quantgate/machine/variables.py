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
"""Of those, what says where files are, what is printed, or what a container image was made for."""

STILL = {"LD_LIBRARY_PATH", "GGML_BACKEND_PATH", "BNB_CUDA_VERSION"}
"""Which library is loaded makes a difference after all."""

SET_HERE = {"OMP_NUM_THREADS"}
"""Set by the suite itself, see `quantgate.processes.server.environment`: `threads` of the environment says to what."""


def variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Those that are set, by name."""
    found = os.environ if environ is None else environ
    return {
        name: found[name]
        for name in sorted(found)
        if name not in SET_HERE
        and COMPUTING.fullmatch(name)
        and (name in STILL or not PLACES.fullmatch(name))
    }
