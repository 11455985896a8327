"""Cells that load a checkpoint as it is: the file itself is measured, to the last digit, and is not touched."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from quantgate.items import Text
from quantgate.supply.checkpoints import quantize_gguf

from selftest.conftest import Project
from selftest.tiny import TinyModel

CELL, REFERENCE = "tiny/llamacpp/Q4_K_M", "tiny/llamacpp/F16"
WINDOW, WINDOWS = 32, 16
SHIPPED = "llamacpp/Q4_K_M"


def quiet(*_: object) -> None: ...


@pytest.fixture(scope="session")
def shipped(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ready-made Q4_K_M, written by llama.cpp's quantizer from F32 and not, as cells are, from F16."""
    file = tmp_path_factory.mktemp("shipped") / "my-Q4_K_M.gguf"
    quantize_gguf(file, report=quiet, gguf=str(tiny.gguf), ftype="Q4_K_M", threads=1)
    return file


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """SHA-256 and time of modification of each file."""
    files = [f for f in folder.rglob("*") if f.is_file()]
    return {f.name: (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in files}


def logits_of(file: Path, windows: list[list[int]]) -> list[NDArray[np.float32]]:
    """Next-token logits of each window, by llama.cpp called directly."""
    import llama_cpp

    model = llama_cpp.llama_model_load_from_file(os.fsencode(file), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = WINDOW
    params.n_threads = params.n_threads_batch = 1
    context = llama_cpp.llama_init_from_model(model, params)
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(WINDOW, 0, 1)
    logits = []
    for ids in windows:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch.n_tokens = WINDOW
        for position, token in enumerate(ids):
            batch.token[position], batch.pos[position] = token, position
            batch.n_seq_id[position], batch.seq_id[position][0], batch.logits[position] = 1, 0, 1
        assert llama_cpp.llama_decode(context, batch) == 0
        rows = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (WINDOW, size))
        logits.append(rows[:-1].copy())
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return logits


def logprobs(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """In float32 with sums in float64, as llama.cpp's perplexity tool computes them."""
    peak = logits.max(axis=1, keepdims=True)
    norm = peak[:, 0] + np.log(np.exp(logits - peak).sum(axis=1, dtype=np.float64))
    return logits.astype(np.float64) - norm[:, None]


def windows_of(project: Project, tier: dict[str, Any]) -> list[list[int]]:
    """The windows of the text, from the workload that the run left in the cache."""
    (file,) = (f for f in project.cache.glob("workloads/tiny-*/text-boolq.json") if matches(f))
    ids = Text.model_validate_json(file.read_bytes()).ids
    return [ids[begin : begin + WINDOW] for begin in range(0, WINDOW * WINDOWS, WINDOW)]


def matches(file: Path) -> bool:
    return len(json.loads(file.read_bytes())["ids"]) == WINDOW * WINDOWS


def test_a_ready_made_gguf_is_measured_as_llamacpp_computes_it(project: Project, shipped: Path) -> None:
    before = state(shipped.parent)
    project.matrix["models"]["tiny"]["checkpoints"] = {SHIPPED: {"path": str(shipped)}}
    smoke = project.matrix["tiers"]["smoke"]
    smoke["divergence"] = {
        "text": "boolq",
        "n_ctx": WINDOW,
        "windows": WINDOWS,
        "protocol": "full",
        "block": 16,
    }
    result = project.update()
    assert result.status == 0, result.output
    metrics = project.measurement(CELL).metrics
    windows = windows_of(project, smoke)
    mine, full = ([logprobs(w) for w in logits_of(f, windows)] for f in (shipped, reference_of(project)))
    chosen = [p[np.arange(WINDOW - 1), ids[1:]] for p, ids in zip(mine, windows, strict=True)]
    nll = -math.fsum(float(p) for w in chosen for p in w) / (WINDOWS * (WINDOW - 1))
    assert metrics["perplexity"].value == pytest.approx(math.exp(nll), rel=1e-14)
    assert np.allclose(
        np.multiply(metrics["perplexity"].samples, metrics["perplexity"].weights),
        [-w[part].sum() for w in chosen for part in (slice(0, 15), slice(15, 31))],
        rtol=1e-14,
    )
    kl = [(np.exp(p) * (p - q)).sum(axis=1) for p, q in zip(full, mine, strict=True)]
    assert metrics["divergence/kl"].value == pytest.approx(float(np.mean(kl)), rel=1e-6)
    assert state(shipped.parent) == before
    assert not list(project.cache.glob("checkpoints/tiny-Q4_K_M-*"))
    assert (
        metrics["perplexity"].conditions["checkpoint"]
        == metrics["memory/weight_bytes"].conditions["checkpoint"]
    )
    assert "checkpoint" not in project.measurement(REFERENCE).metrics["perplexity"].conditions


def reference_of(project: Project) -> Path:
    (file,) = project.cache.glob("checkpoints/tiny-F16-*.gguf")
    return file


def test_another_file_under_the_same_name_is_not_held_against_the_baseline(
    project: Project, shipped: Path, tiny: TinyModel, tmp_path: Path
) -> None:
    file = Path(shutil.copy(shipped, tmp_path / "x.gguf"))
    project.matrix["models"]["tiny"]["checkpoints"] = {SHIPPED: {"path": str(file)}}
    assert project.update("-m", "perplexity").status == 0
    file.unlink()
    quantize_gguf(file, report=quiet, gguf=str(tiny.gguf), ftype="Q4_K_S", threads=1)
    result = project.run("-m", "perplexity")
    print(result.output)
    assert result.status != 0
    assert "checkpoint" in result.output
