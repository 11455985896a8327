"""Cells that load a checkpoint as it is: the file itself is measured, to the last digit, and is not touched."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from quantgate.items import Text
from quantgate.measure.kl import compare
from quantgate.measure.logprobs import Reference, writing
from quantgate.records import Status
from quantgate.supply.checkpoints import quantize_gguf

from selftest.project import Project
from selftest.tiny import TinyModel

CELL, REFERENCE = "tiny/llamacpp/Q4_K_M", "tiny/llamacpp/F16"
MINE, OTHER = "tiny/llamacpp/mine", "tiny/llamacpp/other"
WINDOW, WINDOWS = 32, 16
SHIPPED = "llamacpp/Q4_K_M"
CHECKPOINTS = {SHIPPED: "my-Q4_K_M.gguf", "llamacpp/mine": "as-good.gguf", "llamacpp/other": "worse.gguf"}
ALONE = "alone.gguf"
"""The names of files that are all the same, until another takes the place of one."""


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
    return {str(f): (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in files}


def logits_of(file: Path, windows: list[list[int]]) -> list[NDArray[np.float32]]:
    """Next-token logits of each window but its last token, by llama.cpp called directly. windows: of one length."""
    import llama_cpp

    model = llama_cpp.llama_model_load_from_file(os.fsencode(file), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = count = (
        len(windows[0]) - 1
    )  # nothing follows the last token
    params.n_threads = params.n_threads_batch = 1
    context = llama_cpp.llama_init_from_model(model, params)
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(count, 0, 1)
    logits = []
    for ids in windows:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch.n_tokens = count
        for position, token in enumerate(ids[:-1]):
            batch.token[position], batch.pos[position] = token, position
            batch.n_seq_id[position], batch.seq_id[position][0], batch.logits[position] = 1, 0, 1
        assert llama_cpp.llama_decode(context, batch) == 0
        logits.append(np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (count, size)).copy())
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return logits


def logprobs(logits: NDArray[np.float32], tokens: list[int]) -> NDArray[np.float64]:
    """Of the true tokens, in float32 with sums in float64, as llama.cpp's perplexity tool computes them."""
    true = logits[np.arange(len(tokens)), tokens].astype(np.float64)
    return true - norms(logits)[:, 0]


def norms(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-sum-exp of each row, shape [rows, 1]."""
    peak = logits.max(axis=1, keepdims=True)
    norm: NDArray[np.float64] = peak + np.log(
        np.exp(logits - peak).sum(axis=1, dtype=np.float64, keepdims=True)
    )
    return norm


def distributions(logits: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Log-probabilities of every token, shape [windows x rows, vocabulary]."""
    rows = np.concatenate(logits)
    peak = rows.max(axis=1, keepdims=True)
    result: NDArray[np.float32] = (rows - peak) - (norms(rows) - peak).astype(np.float32)
    return result


def divergence_of(
    file: Path, full: NDArray[np.float32], mine: NDArray[np.float32], tokens: list[int]
) -> float:
    """Mean KL divergence, with the reference's distribution as it is kept in a file."""
    with writing(file, len(tokens)) as write:
        write(full, np.array(tokens))
    return float(compare(Reference(file, len(tokens)).rows(0, len(tokens)), mine).kl.mean())


@dataclass(frozen=True)
class Ready:
    """A project with ready-made files in its folder, measured and accepted, and what was in them before."""

    project: Project
    files: Path
    before: dict[str, tuple[str, int]]

    def job(self, cell: str) -> dict[str, Any]:
        """What the cell's process was given."""
        table: dict[str, Any] = json.loads((self.project.results / f"smoke/{cell}~job.json").read_bytes())
        return table

    def made(self) -> str:
        """Whatever the run had made, line by line."""
        lines = (self.project.folder / "spy" / "started").read_text().splitlines()
        return "\n".join(Path(line).name for line in lines if "/logs/" in line)


@pytest.fixture(scope="module")
def ready(make_project: Callable[[], Project], shipped: Path) -> Ready:
    """A model with files of some of its cells, and one that is a file alone. Tests change copies of it."""
    project = make_project()
    (files := project.folder / "files").mkdir(parents=True)
    for name in (*CHECKPOINTS.values(), ALONE):
        shutil.copy(shipped, files / name)
    tables = project.matrix["models"]
    tables["tiny"]["checkpoints"] = {key: {"path": f"files/{name}"} for key, name in CHECKPOINTS.items()}
    tables["alone"] = {"license": "Apache-2.0", "gguf": {"path": f"files/{ALONE}"}}
    schemes = {"mine": {"as_is": True}, "other": {"as_is": True}}
    project.matrix["backends"] = {"llamacpp": {"schemes": schemes}}
    project.matrix["tiers"]["smoke"]["cells"] = [
        *(REFERENCE, CELL, MINE, OTHER),
        *(f"alone/llamacpp/{scheme}" for scheme in ("F16", "Q4_K_M", "Q8_0")),
    ]
    windowed = {"text": "boolq", "n_ctx": WINDOW, "windows": WINDOWS, "protocol": "full", "block": 16}
    project.matrix["tiers"]["smoke"] |= {"divergence": windowed, "memory": {"prompt": 32, "processes": 1}}
    before = state(files)
    result = project.update("-m", "perplexity or divergence or memory")
    assert result.status == 0, result.output
    return Ready(project, files, before)


@pytest.mark.slow
def test_a_ready_made_gguf_is_measured_as_llamacpp_computes_it(ready: Ready, tmp_path: Path) -> None:
    record, job = ready.project.measurement(CELL), ready.job(CELL)
    file, reference = Path(job["weights"]), Path(ready.job(REFERENCE)["weights"])
    assert file == ready.files / CHECKPOINTS[SHIPPED]
    ids = Text.model_validate_json(Path(job["workload"], "text-boolq.json").read_bytes()).ids
    windows = [ids[begin : begin + WINDOW] for begin in range(0, WINDOW * WINDOWS, WINDOW)]
    metrics = record.metrics
    mine, full = (logits_of(one, windows) for one in (file, reference))
    scored = [logprobs(rows, ids[1:]) for rows, ids in zip(mine, windows, strict=True)]
    edges = (slice(0, 15), slice(15, 31))  # the blocks of a window
    samples = [-rows[edge].sum() / len(rows[edge]) for rows in scored for edge in edges]
    assert metrics["perplexity"].samples == samples
    assert metrics["perplexity"].value == pytest.approx(math.exp(-np.concatenate(scored).mean()), rel=1e-15)
    tokens = [token for ids in windows for token in ids[1:]]
    here, there = distributions(mine), distributions(full)
    kl = divergence_of(tmp_path / "x.npy", there, here, tokens)
    assert metrics["divergence/kl_mean"].value == kl
    assert kl == pytest.approx(float((np.exp(there) * (there - here)).sum(axis=1).mean()), abs=1e-5)
    assert 1e-4 < kl < 1
    assert state(ready.files) == ready.before
    assert "tiny-Q4_K_M" not in ready.made()
    assert metrics["memory/quantized_share"].value == 1.0
    assert metrics["memory/file_bytes"].value == file.stat().st_size
    assert record.environment["checkpoint"]
    assert "checkpoint" not in ready.project.measurement(REFERENCE).environment


def test_a_gguf_alone_is_measured_itself_by_the_scheme_of_its_type(ready: Ready) -> None:
    schemes = ("F16", "Q4_K_M", "Q8_0")
    records = {one: ready.project.measurement(f"alone/llamacpp/{one}") for one in schemes}
    assert [one for one, record in records.items() if "checkpoint" in record.environment] == ["Q4_K_M"]
    assert records["Q4_K_M"].metrics["memory/file_bytes"].value == (ready.files / ALONE).stat().st_size
    weights = {one: Path(ready.job(f"alone/llamacpp/{one}")["weights"]) for one in schemes}
    assert weights.pop("Q4_K_M").samefile(ready.files / ALONE)
    assert {file.parent for file in weights.values()} == {ready.project.cache / "checkpoints"}, "made of it"
    assert state(ready.files) == ready.before


@pytest.mark.slow
def test_another_file_under_the_same_name_is_judged_and_named(
    ready: Ready, tiny: TinyModel, tmp_path: Path
) -> None:
    project = ready.project.copy(tmp_path / "project")
    files = project.folder / "files"
    for file, ftype in ((CHECKPOINTS["llamacpp/mine"], "Q4_K_S"), (CHECKPOINTS["llamacpp/other"], "Q2_K")):
        (files / file).unlink()
        quantize_gguf(files / file, report=quiet, gguf=str(tiny.gguf), ftype=ftype, threads=1)
    (files / ALONE).unlink()
    worse = str(files / CHECKPOINTS["llamacpp/other"])
    quantize_gguf(files / ALONE, report=quiet, gguf=worse, ftype="Q4_K_M", threads=1)
    result = project.run("-k", "perplexity and not Q8_0")
    assert result.status == 1, result.output
    for cell, named, name in (
        (MINE, "checkpoint", "as-good"),
        (OTHER, "checkpoint", "worse"),
        ("alone/llamacpp/F16", "made from", "alone"),
        ("alone/llamacpp/Q4_K_M", "checkpoint", "alone"),
    ):
        verdict = result.verdict(cell, "perplexity")
        assert (verdict.status == Status.REGRESSION) == (cell != MINE), result.output
        (line,) = verdict.environment
        assert re.fullmatch(rf"{named} \w+ -> \w+ \({name}\.gguf\)", line)
        assert verdict.measured != verdict.baseline
        assert verdict.tolerance == 0.0025, "the machine and the libraries are the baseline's"
    # Other weights give other numbers: that they differ is no finding.
    reproductions = {v.cell for v in result.verdicts if v.metric.endswith("/reproduction")}
    assert reproductions == {REFERENCE, CELL}


@pytest.mark.slow
def test_folders_are_loaded_as_they_are_and_take_the_models_tokenizer(
    project: Project, tiny: TinyModel, tmp_path: Path
) -> None:
    """One in shards, one that is quantized; neither has a tokenizer."""
    import torch
    import transformers

    halves, nf4 = tmp_path / "halves", tmp_path / "nf4"
    load = transformers.AutoModelForCausalLM.from_pretrained
    load(tiny.safetensors, dtype=torch.bfloat16).save_pretrained(halves, max_shard_size="400KB")
    options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    quantization = transformers.BitsAndBytesConfig(**options, bnb_4bit_compute_dtype=torch.float32)
    load(tiny.safetensors, quantization_config=quantization, dtype=torch.float32).save_pretrained(nf4)
    assert (halves / "model.safetensors.index.json").exists()
    assert not list(tmp_path.glob("*/tokenizer*"))
    before = state(tmp_path)
    project.matrix["backends"] = {
        "transformers": {"schemes": {"halves": {"as_is": True, "dtype": "bfloat16"}}},
        "bitsandbytes": {"schemes": {"mine": {"as_is": True, "dtype": "float32", **options}}},
    }
    project.matrix["tiers"]["smoke"]["memory"]["processes"] = 1
    project.matrix["tiers"]["smoke"]["cells"] = [
        *("tiny/transformers/fp32", "tiny/transformers/halves"),
        *("tiny/bitsandbytes/mine", "tiny/bitsandbytes/nf4"),
    ]
    project.matrix["models"]["tiny"]["checkpoints"] = {
        "transformers/halves": {"path": str(halves)},
        "bitsandbytes/mine": {"path": str(nf4)},
    }
    result = project.run("-m", "memory or tokenizer or perplexity")
    assert {v.status for v in result.verdicts} <= {Status.NO_BASELINE, Status.PASS}, result.output
    full = project.measurement("tiny/transformers/fp32").metrics["perplexity"].value
    for folder, cell in ((halves, "tiny/transformers/halves"), (nf4, "tiny/bitsandbytes/mine")):
        record = project.measurement(cell)
        metrics = record.metrics
        files = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
        assert metrics["memory/file_bytes"].value == files
        assert metrics["memory/quantized_share"].value == 1
        assert metrics["tokenizer/mismatches"].value == 0
        assert metrics["perplexity"].value == pytest.approx(full, rel=0.2)
        assert record.environment["checkpoint"]
    assert project.measurement("tiny/transformers/halves").metrics["memory/bits_per_weight"].value == 16
    weights = [
        project.measurement(f"tiny/bitsandbytes/{scheme}").metrics["memory/weight_bytes"].value
        for scheme in ("mine", "nf4")
    ]
    assert weights[0] == weights[1], "as quantized here"
    assert state(tmp_path) == before
