"""Make checkpoints. Each function runs in a process of its own, as `function(output, report=..., **arguments)`, and its
result appears at `output` whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantgate.cache.kept import PARTIAL
from quantgate.checkpoint.contents import READ, contents, gguf_parts, parts_pattern
from quantgate.errors import AssetError, MeasurementError, in_one_line

Report = Callable[[str, float, float], None]

WEIGHT_PATTERNS = [f"*{suffix}" for suffix in READ]
"""Files of a hub repository that are fetched: weights as safetensors only, and no code."""


@contextmanager
def whole(output: Path, *, folder: bool) -> Iterator[Path]:
    """Yield a temporary path beside `output` and rename it to `output` when the block ends well."""
    output.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    work = room / output.name
    if folder:
        work.mkdir()
    try:
        yield work
        # Another run may have made the same thing in the meantime; the two are equal.
        if not output.exists():
            work.rename(output)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def quantize_gguf(
    output: Path, *, report: Report, gguf: str, ftype: str, threads: int, mean_squares: str | None = None
) -> None:
    """Quantize a GGUF to `ftype` (`Q4_K_M`) by llama.cpp's quantizer; a split GGUF becomes one file. mean_squares: of
    the layers' inputs (`quantgate.supply.calibration`), from which the importance matrix is made."""
    import llama_cpp

    from quantgate.backends.runtime.gguf import check_applied, linear_tensors
    from quantgate.backends.runtime.llama_cache import type_names
    from quantgate.supply.imatrix import importance_matrix

    name = "ALL_F32" if ftype == "F32" else f"MOSTLY_{ftype}"
    code = getattr(llama_cpp, f"LLAMA_FTYPE_{name}", None)
    if code is None:
        prefix = "LLAMA_FTYPE_MOSTLY_"
        ftypes = sorted(n.removeprefix(prefix) for n in vars(llama_cpp) if n.startswith(prefix))
        raise MeasurementError(
            f"ftype {ftype!r}: this llama.cpp does not have it; it has: {', '.join(ftypes)}"
        )
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = code
    params.nthread = threads
    params.allow_requantize = True  # the embedded model comes as Q4_1; its F16 is made from that
    if mean_squares is not None:
        matrix = importance_matrix(Path(gguf), Path(mean_squares))
        params.imatrix = matrix.entries
    with whole(output, folder=False) as work:
        rewrite(Path(gguf), work, params, f"quantized to {ftype}")
        check_applied(linear_tensors(work), ftype, type_names())


def rewrite(source: Path, output: Path, params: Any, what: str) -> None:
    """Write `output` from a GGUF by llama.cpp's quantizer. what: happens to it, for messages ("quantized to Q4_0").
    Raises AssetError with the cause that llama.cpp logs."""
    import llama_cpp

    from quantgate.backends.runtime.llama_log import listening

    gguf_parts(source)
    with listening() as log:
        status = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(output), params)
    if status == 0:
        return
    if "iostream error" in log.cause or "basic_ios" in log.cause:
        free = shutil.disk_usage(output.parent).free
        raise AssetError(
            f"{output.parent}: cannot be written ({free / 1e6:,.1f} MB are free there); free some space, or set "
            "QUANTGATE_CACHE to a folder elsewhere"
        )
    tensors = [match[1] for line in log.lines if (match := re.match(r"\[\s*\d+/\s*\d+\]\s+(\S+)", line))]
    where = f"tensor {tensors[-1]}: " if tensors else ""
    raise AssetError(f"{source}: cannot be {what}: {where}{log.cause}{_remedy(log.cause)}")


def _remedy(cause: str) -> str:
    if "imatrix" in cause or "importance matrix" in cause:
        return ' (give the scheme an importance matrix: imatrix = "wikipedia")'
    if "data validation failed" in cause:
        return " (a value there is infinite or not a number: F16 ends at 65,504, F32 does not)"
    if "unknown model architecture" in cause:
        return " (this llama-cpp-python does not know it: install a later one)"
    return ""


def hub_checkpoint(output: Path, *, report: Report, hub: str, revision: str, file: str | None) -> None:
    """Fetch one file, or the safetensors and tokenizer, of a hub repository at a fixed revision."""
    from huggingface_hub import snapshot_download

    # Not through `whole`: an interrupted download continues where it stopped.
    partial = output.with_name(f"{output.name}{PARTIAL}")
    try:
        snapshot_download(
            hub,
            revision=revision,
            local_dir=partial,
            allow_patterns=[parts_pattern(file)] if file else WEIGHT_PATTERNS,
        )
    except Exception as error:
        raise AssetError(
            f"hub repository {hub} at {revision} cannot be fetched ({in_one_line(error)}); "
            "check the network and HF_TOKEN, or point the matrix at a local `path`"
        ) from error
    if file and not (partial / file).exists():
        raise AssetError(f"hub repository {hub} at {revision} has no {file}")
    contents(partial / file if file else partial)
    partial.rename(output)
