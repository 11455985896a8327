"""A checkpoint that does not go with the matrix is refused before anything is measured; what disagrees, on the first
run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.checkpoint.checks import describe, positions_of, tensors_of, tokens_of
from quantgate.checkpoint.heads import check_head, is_head
from quantgate.config.matrix import MATRIX
from quantgate.errors import AssetError, InputError, MeasurementError
from quantgate.records import AGREEMENT, Status
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import lengths_of
from quantgate.supply.encoder import Encoder
from quantgate.supply.fitness import check_cell, check_model
from safetensors.torch import load_file, save_file

from selftest.project import Project, tree
from selftest.supply.copies import checked, edit, set_metadata

if TYPE_CHECKING:
    from selftest.tiny import TinyModel


def test_a_tensor_that_two_shards_hold_is_refused(folder: Path) -> None:
    """A library loads the one of the shard that it opens last, whatever the index says."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    name, *others = sorted(tensors)
    save_file({name: tensors[name]}, folder / "a.safetensors", {"format": "pt"})
    save_file({one: tensors[one] for one in others}, folder / "b.safetensors", {"format": "pt"})
    places = {name: "a.safetensors"} | dict.fromkeys(others, "b.safetensors")
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert tensors_of(folder).keys() == tensors.keys()
    save_file(tensors, folder / "b.safetensors", {"format": "pt"})
    with pytest.raises(AssetError, match=rf"a.safetensors and b.safetensors both hold {name}: one of them"):
        check_head(folder, derived=False)  # which every cell of a folder goes through


# --- tokenizers ----------------------------------------------------------------------------------------


def test_a_tokenizer_larger_than_the_embedding_is_told_with_both_numbers(folder: Path) -> None:
    assert tokens_of(folder) == 512
    edit(folder / "config.json", vocab_size=500)
    with pytest.raises(AssetError, match=r"tokenizer has 512 tokens, its embedding 500 rows"):
        checked(folder)


def test_a_special_token_without_a_row_is_no_fault_of_a_tokenizer(folder: Path) -> None:
    """As a `[PAD]` that was added for training, or Gemma 3 1B's token for a picture."""
    table = json.loads((folder / "tokenizer.json").read_bytes())
    added = {**table["added_tokens"][0], "id": 512, "content": "[PAD]"}
    edit(folder / "tokenizer.json", added_tokens=[*table["added_tokens"], added])
    checked(folder)
    assert tokens_of(folder) == Encoder(folder, None).vocabulary == 512


def test_a_token_for_padding_that_the_embedding_has_no_row_for_is_told(folder: Path) -> None:
    edit(folder / "config.json", pad_token_id=512)
    with pytest.raises(
        AssetError, match=r"pad_token_id is 512, and the embedding has 512 rows .* remove the key"
    ):
        checked(folder)


def test_what_continues_no_text_is_refused_before_anything_is_loaded(folder: Path) -> None:
    edit(folder / "config.json", architectures=["LlamaForTokenClassification"])
    with pytest.raises(
        AssetError, match=r"config\.json: architectures is Llama\w+, whose head writes no text"
    ):
        checked(folder)


# --- lengths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        (
            {"perplexity": {"text": "boolq", "n_ctx": 513}},
            "perplexity: n_ctx is 513 tokens, .* 512 positions",
        ),
        ({"divergence": {"text": "boolq", "n_ctx": 1024}}, "divergence: n_ctx is 1,024 tokens"),
        (
            {"decoding": {"text": "boolq", "context": 500, "tokens": 16}},
            r"decoding: context \+ tokens is 516 tokens",
        ),
    ],
)
def test_texts_longer_than_the_positions_are_told_with_both_numbers(
    folder: Path, workload: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        checked(folder, **workload)
    edit(folder / "config.json", max_position_embeddings=2048)
    checked(folder, **workload)


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 64}, 64),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, None),
        (
            {"max_position_embeddings": 64, "rope_scaling": {"type": "yarn", "factor": 4.0}},
            256,
        ),
        ({"max_seq_len": 2048, "attn_config": {"alibi": True}}, None),
        ({"max_position_embeddings": 2048, "alibi": True}, None),
        ({"hidden_size": 64}, None),
    ],
)
def test_how_many_positions_a_model_has(config: dict[str, Any], positions: int | None) -> None:
    assert positions_of(config) == positions


def test_the_models_of_this_project_go_with_their_tiers() -> None:
    matrix = load_matrix()
    for name, tier in matrix.tiers.items():
        lengths = lengths_of(tier.group_options)
        for cell in matrix.cells(name):
            source = matrix.models[cell.model].weights
            if source is not None and source.path is not None:
                folder = MATRIX.parent / source.path
                check_model(MATRIX, cell.model, matrix.models[cell.model], lengths, folder)
                check_cell(cell, folder, derived=False)


def test_a_model_without_a_limit_takes_any_length(folder: Path) -> None:
    edit(folder / "config.json", max_position_embeddings=None)
    checked(folder, perplexity={"text": "boolq", "n_ctx": 10**6})


# --- weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry", [{"quant_method": "bitsandbytes", "load_in_4bit": True}, {"quant_method": "gptq", "bits": 4}]
)
def test_an_entry_that_was_left_over_from_a_quantized_model_is_told(
    folder: Path, entry: dict[str, Any]
) -> None:
    """As merging a LoRA into a model that was trained in 4 bits leaves it."""
    edit(folder / "config.json", quantization_config=entry)
    with pytest.raises(
        AssetError, match=r"names \w+, and no weight in the files is packed: remove the entry"
    ):
        checked(folder)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq, 4 bits"),
        ({"quant_method": "awq", "bits": 4}, "awq, 4 bits"),
        ({"quant_method": "fp8"}, "fp8, 8 bits"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4}}}},
            "compressed-tensors, 4 bits",
        ),
        (
            {"load_in_4bit": True, "quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4"},
            "bitsandbytes, 4 bits, nf4",
        ),
    ],
)
def test_weights_that_are_quantized_already_are_refused_in_every_other_cell(
    folder: Path, stored: dict[str, Any], message: str
) -> None:
    assert describe(stored) == message
    edit(folder / "config.json", quantization_config=stored)
    cells = {c.scheme: c for c in load_matrix().cells("smoke")}
    others = [cells[name] for name in ("fp32", "int8", "fp4", "F16", "Q4_K_M")]
    for cell in others:
        with pytest.raises(InputError, match=re.escape(f"already quantized ({message}), and {cell.id}")):
            check_cell(cell, folder, derived=cell.checkpoint == "gguf")
    if stored.get("load_in_4bit"):
        check_cell(cells["nf4"], folder, derived=False)
        with pytest.raises(InputError, match="already quantized"):
            check_cell(cells["nf4-dq"], folder, derived=False)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("lm_head.weight", True),
        ("language_model.lm_head.weight", True),
        ("embed_out.weight", True),
        ("rwkv.blocks.0.attention.output.weight", False),
        ("model.layers.46.shared_head.head.weight", False),
        ("model.embed_tokens.weight", False),
    ],
)
def test_which_tensor_is_the_head(name: str, head: bool) -> None:
    assert is_head(name) is head


@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.tok_embeddings.weight", "backbone.embeddings.weight"]
)
def test_a_head_that_differs_from_what_it_is_tied_to_is_refused(folder: Path, name: str) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    embeddings = tensors.pop("model.embed_tokens.weight")
    tensors |= {name: embeddings, "model.position_embeddings.weight": embeddings[:8].clone()}
    save_file({**tensors, "lm_head.weight": embeddings.clone()}, file, {"format": "pt"})
    check_head(folder, derived=True)
    save_file({**tensors, "lm_head.weight": embeddings + 1}, file, {"format": "pt"})
    with pytest.raises(AssetError, match=r"lm_head\.weight, which differs from .*tie_word_embeddings"):
        check_head(folder, derived=False)
    edit(folder / "config.json", tie_word_embeddings=False)
    check_head(folder, derived=True)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(AssetError, match=r"no file holds lm_head\.weight"):
        check_head(folder, derived=True)


# --- the whole gate ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_references_that_disagree_fail_on_the_first_run_and_become_no_baseline(
    project: Project, tiny: TinyModel, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.gguf"
    shutil.copy(tiny.gguf, bad)
    set_metadata(bad, "llama.rope.freq_base", 500_000)
    project.limit = 240
    project.matrix["models"]["tiny"]["gguf"]["path"] = str(bad)
    project.matrix["tiers"]["smoke"]["cells"] = [
        "tiny/transformers/fp32", "tiny/llamacpp/F16", "tiny/llamacpp/Q4_K_M",
    ]  # fmt: skip
    result = project.update("-m", "perplexity")
    assert result.status == 10, result.output
    for cell in ("tiny/transformers/fp32", "tiny/llamacpp/F16"):
        verdict = result.verdict(cell, AGREEMENT)
        assert (verdict.status, bool(verdict.wrong)) == (Status.ERROR, True)
        assert abs(verdict.measured or 0) > 0.2
    assert not [name for name in tree(project.folder) if name.startswith("baselines/")]
    assert result.output.count("the baseline is not updated") == 3
    report = (project.folder / "report" / "report.md").read_text()
    assert "pytest --update-baselines" not in report


def test_numbers_that_a_model_has_no_vector_for_are_refused(tiny: TinyModel, tmp_path: Path) -> None:
    """In the measuring process, where the model is loaded."""
    from quantgate.backends.runtime import transformers
    from quantgate.backends.tree import TokenSequence
    from quantgate.jobs import Job
    from quantgate.measure.scoring import score
    from quantgate.measure.session import Session

    def session(vocabulary: int) -> Session:
        (tmp_path / "meta.json").write_text(json.dumps({"vocabulary": vocabulary}))
        job = Job(
            cell="t/transformers/fp32", tier="smoke", fingerprint="f", backend="transformers",
            scheme_options={"dtype": "float32", "device": "cpu"}, weights=tiny.safetensors, source_hash="s",
            workload=tmp_path, requests=[], group_options={}, threads=1, output=tmp_path / "o",
        )  # fmt: skip
        return Session(job, lambda *_: None)

    with pytest.raises(MeasurementError, match=r"tokenizer has 513 tokens, its embedding 512 rows"):
        session(513).load(transformers.load)
    loaded = session(512)
    loaded.load(transformers.load)
    score(loaded.backend, [[TokenSequence(tuple([1] * 513), 1)]], 513)  # the last one is predicted alone
    message = r"512 positions, and a text has 513 tokens: lower what \[tiers\.smoke\.load\]"
    with pytest.raises(MeasurementError, match=message):
        score(loaded.backend, [[TokenSequence(tuple([1] * 514), 1)]], 514)
