"""Cells that load a checkpoint as it is: the file itself is measured, to the last digit, and is not touched."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from quantgate.items import Text
from quantgate.measure.kl import compare
from quantgate.measure.logprobs import Reference, writing
from quantgate.records import Status
from quantgate.supply.checkpoints import quantize_gguf

from selftest.project import Project
from selftest.supply.test_same_tokens import with_another_splitting
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


def windows_of(project: Project) -> list[list[int]]:
    """The windows of the text, from the workload that the run left in the cache."""
    (file,) = project.cache.glob("workloads/tiny-*/text-boolq.json")
    ids = Text.model_validate_json(file.read_bytes()).ids
    return [ids[begin : begin + WINDOW] for begin in range(0, WINDOW * WINDOWS, WINDOW)]


@pytest.mark.slow
def test_a_ready_made_gguf_is_measured_as_llamacpp_computes_it(
    project: Project, shipped: Path, tmp_path: Path
) -> None:
    project.environment["QUANTGATE_CACHE"] = str(tmp_path / "cache")  # without the workloads of other tests
    before, made = state(shipped.parent), quantized_in(project)
    project.matrix["models"]["tiny"]["checkpoints"] = {SHIPPED: {"path": str(shipped)}}
    windowed = {"text": "boolq", "n_ctx": WINDOW, "windows": WINDOWS, "protocol": "full", "block": 16}
    project.matrix["tiers"]["smoke"]["divergence"] = windowed
    result = project.update()
    assert result.status == 0, result.output
    metrics = project.measurement(CELL).metrics
    windows = windows_of(project)
    mine, full = (logits_of(file, windows) for file in (shipped, reference_of(project)))
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
    assert state(shipped.parent) == before
    assert quantized_in(project) == made
    assert metrics["memory/quantized_share"].value == 1.0
    assert metrics["memory/file_bytes"].value == shipped.stat().st_size
    assert project.measurement(CELL).environment["checkpoint"]
    assert "checkpoint" not in project.measurement(REFERENCE).environment


def quantized_in(project: Project) -> set[Path]:
    return set(project.cache.glob("checkpoints/tiny-Q4_K_M-*"))


def reference_of(project: Project) -> Path:
    (file,) = project.cache.glob("checkpoints/tiny-F16-*.gguf")
    return file


@pytest.mark.slow
@pytest.mark.parametrize(("ftype", "worse"), [("Q4_K_S", False), ("Q2_K", True)], ids=["as good", "worse"])
def test_another_file_under_the_same_name_is_judged_and_named(
    project: Project, shipped: Path, tiny: TinyModel, tmp_path: Path, ftype: str, worse: bool
) -> None:
    file, cell = Path(shutil.copy(shipped, tmp_path / "x.gguf")), "tiny/llamacpp/mine"
    project.matrix["backends"] = {"llamacpp": {"schemes": {"mine": {"as_is": True}}}}
    project.matrix["models"]["tiny"]["checkpoints"] = {"llamacpp/mine": {"path": str(file)}}
    project.matrix["tiers"]["smoke"]["cells"] = [REFERENCE, cell]
    assert project.update("-m", "perplexity").status == 0
    file.unlink()
    quantize_gguf(file, report=quiet, gguf=str(tiny.gguf), ftype=ftype, threads=1)
    result = project.run("-m", "perplexity")
    verdict = result.verdict(cell, "perplexity")
    assert (verdict.status == Status.REGRESSION) == worse, result.output
    (line,) = verdict.environment
    assert re.fullmatch(r"checkpoint \w+ -> \w+ \(x\.gguf\)", line)
    assert verdict.measured != verdict.baseline
    assert verdict.tolerance == 0.0025, "the machine and the libraries are the baseline's"
    # Other weights give other numbers: that they differ is no finding.
    assert not [v for v in result.verdicts if v.cell == cell and v.metric.endswith("/reproduction")]
    assert [v for v in result.verdicts if v.cell == REFERENCE and v.metric.endswith("/reproduction")]


@pytest.mark.slow
def test_another_file_is_judged_where_the_model_is_that_file(
    project: Project, shipped: Path, tiny: TinyModel, tmp_path: Path
) -> None:
    file = Path(shutil.copy(shipped, tmp_path / "my-Q4_K_M.gguf"))
    project.matrix["models"]["tiny"] = {"license": "Apache-2.0", "gguf": {"path": str(file)}}
    project.matrix["tiers"]["smoke"]["cells"] = [REFERENCE, CELL]
    assert project.update("-m", "perplexity").status == 0
    worse = tmp_path / "worse.gguf"
    quantize_gguf(worse, report=quiet, gguf=str(tiny.gguf), ftype="Q2_K", threads=1)
    file.unlink()
    quantize_gguf(file, report=quiet, gguf=str(worse), ftype="Q4_K_M", threads=1)
    result = project.run("-m", "perplexity")
    assert result.status == 1, result.output
    for cell, named in ((REFERENCE, "made from"), (CELL, "checkpoint")):
        verdict = result.verdict(cell, "perplexity")
        assert verdict.status == Status.REGRESSION, result.output
        (line,) = verdict.environment
        assert re.fullmatch(rf"{named} \w+ -> \w+ \(my-Q4_K_M\.gguf\)", line)
    assert not [v for v in result.verdicts if v.metric.endswith("/reproduction")]


@pytest.mark.slow
def test_a_broken_file_and_a_foreign_tokenizer_are_the_errors_of_their_cells(
    project: Project, shipped: Path, tmp_path: Path
) -> None:
    broken, foreign = tmp_path / "broken.gguf", with_another_splitting(shipped, tmp_path / "foreign.gguf")
    broken.write_bytes(shipped.read_bytes()[:300_000])
    project.matrix["backends"] = {"llamacpp": {"schemes": {"foreign": {"as_is": True}}}}
    project.matrix["tiers"]["smoke"]["cells"].append("tiny/llamacpp/foreign")
    project.matrix["models"]["tiny"]["checkpoints"] = {
        SHIPPED: {"path": str(broken)},
        "llamacpp/foreign": {"path": str(foreign)},
    }
    result = project.run("-m", "perplexity")
    texts = {cell: result.verdict(cell, "perplexity").text for cell in (CELL, "tiny/llamacpp/foreign")}
    assert "broken.gguf: is cut off" in texts[CELL], result.output
    assert re.search(
        r"foreign\.gguf: its tokenizer differs .* of [\d,]+ lines differ", texts["tiny/llamacpp/foreign"]
    )
    assert result.verdict(REFERENCE, "perplexity").status == Status.NO_BASELINE


@pytest.mark.slow
def test_a_gguf_alone_is_measured_itself_by_the_scheme_of_its_type(project: Project, shipped: Path) -> None:
    before, made = state(shipped.parent), quantized_in(project)
    project.matrix["models"]["tiny"] = {"license": "Apache-2.0", "gguf": {"path": str(shipped)}}
    project.matrix["tiers"]["smoke"]["cells"] = [REFERENCE, CELL, "tiny/llamacpp/Q8_0"]
    result = project.run("-m", "memory")
    assert {v.status for v in result.verdicts} <= {Status.NO_BASELINE, Status.PASS}, result.output
    environments = {
        cell: project.measurement(cell).environment for cell in (CELL, REFERENCE, "tiny/llamacpp/Q8_0")
    }
    assert [cell for cell, table in environments.items() if "checkpoint" in table] == [CELL]
    assert project.measurement(CELL).metrics["memory/file_bytes"].value == shipped.stat().st_size
    assert quantized_in(project) == made
    assert state(shipped.parent) == before


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
    quantization = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    load(tiny.safetensors, quantization_config=quantization, dtype=torch.float32).save_pretrained(nf4)
    assert (halves / "model.safetensors.index.json").exists()
    assert not list(tmp_path.glob("*/tokenizer*"))
    before = state(tmp_path)
    project.matrix["backends"] = {
        "transformers": {"schemes": {"halves": {"as_is": True, "dtype": "bfloat16"}}}
    }
    project.matrix["tiers"]["smoke"]["cells"] = [
        "tiny/transformers/fp32", "tiny/transformers/halves", "tiny/bitsandbytes/nf4",
    ]  # fmt: skip
    project.matrix["models"]["tiny"]["checkpoints"] = {"transformers/halves": {"path": str(halves)}}
    made_here = project.run("-m", "memory and nf4").verdict("tiny/bitsandbytes/nf4", "memory/weight_bytes")
    project.matrix["models"]["tiny"]["checkpoints"]["bitsandbytes/nf4"] = {"path": str(nf4)}
    result = project.run("-m", "memory or tokenizer or perplexity")
    assert {v.status for v in result.verdicts} <= {Status.NO_BASELINE, Status.PASS}, result.output
    full = project.measurement("tiny/transformers/fp32").metrics["perplexity"].value
    for folder, cell in ((halves, "tiny/transformers/halves"), (nf4, "tiny/bitsandbytes/nf4")):
        record = project.measurement(cell)
        metrics = record.metrics
        files = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
        assert metrics["memory/file_bytes"].value == files
        assert metrics["memory/quantized_share"].value == 1
        assert metrics["tokenizer/mismatches"].value == 0
        assert metrics["perplexity"].value == pytest.approx(full, rel=0.2)
        assert record.environment["checkpoint"]
    assert project.measurement("tiny/transformers/halves").metrics["memory/bits_per_weight"].value == 16
    assert result.verdict("tiny/bitsandbytes/nf4", "memory/weight_bytes").measured == made_here.measured
    assert state(tmp_path) == before
