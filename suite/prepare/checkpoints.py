"""Makers of checkpoints, each run in a process of its own: `maker(output, report=..., **arguments)`.

What they make appears at `output` whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from suite.errors import AssetError, MeasurementError

Report = Callable[[str, float, float], None]

WEIGHT_PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt"]
"""What of a hub repository is fetched: weights as safetensors only, and no code."""


@contextmanager
def whole(output: Path, *, folder: bool) -> Iterator[Path]:
    """A temporary name beside `output`, renamed to it when the block ends well."""
    output.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    work = room / output.name
    if folder:
        work.mkdir()
    try:
        yield work
        # Another run may have made the same thing meanwhile; it is equal, so either will do.
        if not output.exists():
            work.rename(output)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def safetensors_from_gguf(output: Path, *, report: Report, gguf: str, dtype: str = "float32") -> None:
    """Dequantize a GGUF into a folder with config, tokenizer and one safetensors file.

    transformers loads GGUF files but refuses to save a model loaded from one, so the tensors are written here.
    """
    import torch
    import transformers
    from safetensors.torch import save_file

    source = Path(gguf)
    report("dequantize", 0, 1)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=getattr(torch, dtype), local_files_only=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    except Exception as error:
        raise AssetError(
            f"{source}: transformers cannot read this GGUF ({type(error).__name__}: {error}); "
            "is the file cut off, or of an architecture that transformers does not know?"
        ) from error
    tied = (
        set(getattr(model, "_tied_weights_keys", None) or ()) if model.config.tie_word_embeddings else set()
    )
    tensors = {k: v.contiguous() for k, v in model.state_dict().items() if k not in tied}
    with whole(output, folder=True) as work:
        save_file(tensors, work / "model.safetensors", metadata={"format": "pt"})
        # The weights are plain now; with this entry transformers would take them for quantized ones.
        del model.config.quantization_config
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(work)
        tokenizer.save_pretrained(work)


def quantize_gguf(
    output: Path, *, report: Report, gguf: str, ftype: str, threads: int, mean_squares: str | None = None
) -> None:
    """Quantize a GGUF to `ftype` (`Q4_K_M`) with llama.cpp's own quantizer. mean_squares: of the layers' inputs, as
    `suite.prepare.calibration` leaves them: its importance matrix."""
    import llama_cpp

    from suite.prepare.imatrix import importance_matrix

    name = "ALL_F32" if ftype == "F32" else f"MOSTLY_{ftype}"
    code = getattr(llama_cpp, f"LLAMA_FTYPE_{name}", None)
    if code is None:
        prefix = "LLAMA_FTYPE_MOSTLY_"
        known = sorted(n.removeprefix(prefix) for n in vars(llama_cpp) if n.startswith(prefix))
        raise MeasurementError(f"ftype {ftype!r} is not one of this llama.cpp: {', '.join(known)}")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = code
    params.nthread = threads
    params.allow_requantize = True  # the embedded model comes as Q4_1; its F16 is made from that
    if mean_squares is not None:
        matrix = importance_matrix(Path(gguf), Path(mean_squares))
        params.imatrix = matrix.entries
    report(f"quantize to {ftype}", 0, 1)
    with whole(output, folder=False) as work:
        status = llama_cpp.llama_model_quantize(os.fsencode(gguf), os.fsencode(work), params)
        if status != 0:
            raise AssetError(
                f"{gguf}: llama.cpp cannot quantize this file to {ftype} (status {status}); is it cut off?"
            )


def hub_checkpoint(output: Path, *, report: Report, hub: str, revision: str, file: str | None) -> None:
    """Fetch one file, or the safetensors and tokenizer, of a hub repository at a fixed revision."""
    from huggingface_hub import snapshot_download

    report(f"fetch {hub}", 0, 1)
    # Not through `whole`: an interrupted download goes on where it was.
    partial = output.with_name(f"{output.name}.partial")
    try:
        snapshot_download(
            hub, revision=revision, local_dir=partial, allow_patterns=[file] if file else WEIGHT_PATTERNS
        )
    except Exception as error:
        raise AssetError(
            f"hub repository {hub} at {revision} cannot be fetched ({type(error).__name__}: {error}); "
            "check the network and HF_TOKEN, or point the matrix at a local `path`"
        ) from error
    if not any(partial.rglob(file or "*.safetensors")):
        raise AssetError(f"hub repository {hub} at {revision} has no {file or 'safetensors files'}")
    partial.rename(output)
