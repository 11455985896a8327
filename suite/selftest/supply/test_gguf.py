"""GGUF files that llama.cpp's converter writes from safetensors: the same model, or the reason why not."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from quantgate.errors import AssetError
from quantgate.supply.encoder import Encoder
from quantgate.supply.gguf import gguf_from_safetensors, imported
from quantgate.supply.gguf_config import with_old_names

from selftest.project import Project, borrow_assets
from selftest.tiny import TinyModel

Edit = Callable[[dict[str, Any], dict[str, Any]], object]


@pytest.fixture
def folder(tiny: TinyModel, tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(tiny.safetensors, tmp_path / "copy"))


@pytest.fixture
def make(converter: str, tmp_path: Path) -> Callable[[Path], Path]:
    """Converts a folder to a file of this test."""

    def made(folder: Path) -> Path:
        path = tmp_path / "made.gguf"
        gguf_from_safetensors(path, report=lambda *_: None, safetensors=str(folder), converter=converter)
        return path

    return made


def tensors(path: Path) -> dict[str, Any]:
    return {t.name: t.data for t in gguf.GGUFReader(path).tensors}


def value(path: Path, key: str) -> Any:
    field = gguf.GGUFReader(path).get_field(key)
    return None if field is None else field.contents()


def edited(folder: Path, edit: Edit) -> None:
    """Change config.json and tokenizer.json."""
    files = [folder / "config.json", folder / "tokenizer.json"]
    contents = [json.loads(file.read_text()) for file in files]
    edit(*contents)
    for file, content in zip(files, contents, strict=True):
        file.write_text(json.dumps(content))


def weights(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the tensors."""
    from safetensors.numpy import load_file, save_file

    table = load_file(folder / "model.safetensors")
    edit(table)
    save_file(table, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_converter_leaves_no_file_in_its_asset(
    converter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that Python compiled there would look like damage, and the asset would be fetched again."""
    copy = Path(shutil.copytree(converter, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__")))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = set(copy.rglob("*"))
    with imported(copy):
        importlib.import_module("conversion.base")
    assert set(copy.rglob("*")) == before


def test_the_converter_and_a_plain_writer_say_the_same(tiny: TinyModel, make: Callable[[Path], Path]) -> None:
    made = make(tiny.safetensors)
    ours, plain = tensors(made), tensors(tiny.gguf)
    assert ours.keys() == plain.keys()
    assert all(np.array_equal(ours[name], plain[name]) for name in ours)
    for key in ("tokens", "merges", "token_type", "model", "pre", "eos_token_id"):
        assert value(made, f"tokenizer.ggml.{key}") == value(tiny.gguf, f"tokenizer.ggml.{key}"), key
    for key in ("rope.freq_base", "rope.dimension_count", "attention.head_count_kv", "context_length"):
        assert value(made, f"llama.{key}") == value(tiny.gguf, f"llama.{key}"), key


def join_merges(config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]


def end_in_several_ways(config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    config.update(eos_token_id=[0, 1], bos_token_id=None, pad_token_id=-1)


@pytest.mark.parametrize("edit", [join_merges, end_in_several_ways])
def test_other_ways_to_write_the_same_model(
    tiny: TinyModel, folder: Path, make: Callable[[Path], Path], edit: Edit
) -> None:
    edited(folder, edit)
    made = make(folder)
    assert value(made, "tokenizer.ggml.merges") == value(tiny.gguf, "tokenizer.ggml.merges")
    ours, plain = tensors(made), tensors(tiny.gguf)
    assert all(np.array_equal(ours[name], plain[name]) for name in plain)


def test_the_files_that_transformers_loads_are_converted(
    tiny: TinyModel, folder: Path, make: Callable[[Path], Path]
) -> None:
    """Shards where the index says; neither files that are called like shards, nor code."""
    from safetensors.numpy import load_file, save_file

    table = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "sub").mkdir()
    names = sorted(table)
    parts = {"sub/z.safetensors": names[::2], "model-rest.safetensors": names[1::2]}
    for file, inside in parts.items():
        save_file({n: table[n] for n in inside}, folder / file, metadata={"format": "pt"})
    index = {n: file for file, inside in parts.items() for n in inside}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    save_file(
        {n: t * 2 for n, t in table.items()}, folder / "model-old.safetensors", metadata={"format": "pt"}
    )
    (folder / "code.py").write_text("raise SystemExit('this code has run')")
    edited(folder, lambda c, t: c.update(auto_map={"AutoConfig": "code.Config"}))
    ours, plain = tensors(make(folder)), tensors(tiny.gguf)
    assert all(np.array_equal(ours[name], plain[name]) for name in plain)


def test_the_template_is_the_one_that_transformers_takes(folder: Path, make: Callable[[Path], Path]) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "old"}))
    (folder / "chat_template.jinja").write_text("new")
    assert Encoder(folder, None).tokenizer.chat_template == "new"
    assert value(make(folder), "tokenizer.chat_template") == "new"


def test_a_head_that_differs_is_taken_as_transformers_takes_it(
    folder: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import transformers

    # No cell comes so far: loading refuses such a checkpoint, and so does the comparison of both libraries.
    monkeypatch.setattr("quantgate.supply.gguf.check_computed", lambda *_: None)
    weights(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] * np.float32(1.5)}))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert np.array_equal(tensors(make(folder))["output.weight"], model.lm_head.weight.detach().numpy())


def test_a_head_that_stands_for_the_embeddings_is_refused(folder: Path, make: Callable[[Path], Path]) -> None:
    """As `save_model` of safetensors leaves it."""
    weights(folder, lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")}))
    with pytest.raises(
        AssetError, match=r"copy: holds the head alone of head and embeddings, .* save it again"
    ):
        make(folder)


def test_a_head_that_is_missing_is_refused(folder: Path, make: Callable[[Path], Path]) -> None:
    edited(folder, lambda c, t: c.update(tie_word_embeddings=False))
    with pytest.raises(
        AssetError, match=r"copy: has no lm_head.weight, and config.json does not say that the head"
    ):
        make(folder)


def test_heads_of_another_size(
    converter: str, make: Callable[[Path], Path], tiny: TinyModel, tmp_path: Path
) -> None:
    """head_dim is not hidden_size / heads: both libraries have to say the same of it."""
    import torch
    import transformers
    from quantgate.backends.runtime import llamacpp
    from quantgate.backends.runtime import transformers as plain

    from selftest.proofs.test_pocket_models import losses

    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(tiny.safetensors)
    config.update({"head_dim": 32, "max_position_embeddings": 512})
    folder = Path(shutil.copytree(tiny.safetensors, tmp_path / "heads"))
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    options = {"device": "cpu", "dtype": "float32"}
    first, second = (
        losses(backend)
        for backend in (plain.load(folder, options, 1), llamacpp.load(make(folder), options, 1))
    )
    assert np.abs(first - second).max() < 2e-2


@pytest.mark.parametrize(
    ("hparams", "names"),
    [
        ({"rope_parameters": {"partial_rotary_factor": 0.25}}, {"rotary_pct": 0.25}),
        ({"rotary_pct": 0.5, "rope_parameters": {"partial_rotary_factor": 0.25}}, {"rotary_pct": 0.5}),
        ({"rope_parameters": None}, {"rotary_pct": 1.0}),
        ({"n_positions": 1024}, {"rotary_pct": 1.0, "n_ctx": 1024}),
        ({"n_positions": 1024, "n_ctx": 512}, {"rotary_pct": 1.0}),
    ],
)
def test_names_that_transformers_has_given_up(hparams: dict[str, Any], names: dict[str, float]) -> None:
    assert with_old_names(hparams) == {**hparams, **names}


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (
            lambda c, t: c.update(architectures=["GPTNeoForCausalLM"]),
            "llama.cpp's converter cannot make a GGUF of GPTNeoForCausalLM: Model GPTNeoForCausalLM is not supported",
        ),
        (
            lambda c, t: t.update(pre_tokenizer={"type": "Whitespace"}),
            r"llama.cpp's converter does not know how its tokenizer splits a text \(chkhsh \w{64}\), and does not",
        ),
        (
            lambda c, t: c.update(vocab_size=400),
            ".*LlamaForCausalLM: its tokenizer has a token that the embedding has no row for",
        ),
    ],
)
def test_what_the_converter_cannot_do_is_said_in_its_words(
    folder: Path, make: Callable[[Path], Path], edit: Edit, problem: str
) -> None:
    edited(folder, edit)
    with pytest.raises(AssetError, match=rf"copy: {problem}.*; make its GGUF .* name that file as `gguf`"):
        make(folder)
    assert not folder.with_name("made.gguf").exists()


def test_a_splitting_that_is_taken_for_another_is_seen(
    folder: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is identified by its definition is held against the original tokenizer."""
    from quantgate.supply import gguf as module

    monkeypatch.setattr(module, "splitting", lambda tokenizer: "llama-bpe")
    with pytest.raises(
        AssetError, match=r"copy: llama.cpp makes other tokens than its tokenizer of \d+ of \d+ lines"
    ):
        make(folder)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (
            lambda c, t: c.update(model_type="own", auto_map={"AutoConfig": "code.Config"}),
            r"its model type 'own' needs code that comes with it \(auto_map\), which is not run",
        ),
        (
            lambda c, t: c.update(model_type="own"),
            r"transformers [\d.]+ does not know its model type 'own'",
        ),
    ],
)
def test_a_configuration_that_transformers_cannot_read(folder: Path, edit: Edit, problem: str) -> None:
    edited(folder, edit)
    with pytest.raises(AssetError, match=rf"copy/config.json: {problem}; use a checkpoint that"):
        Encoder(folder, None)


@pytest.mark.slow
def test_a_model_without_gguf_runs_in_llamacpp(project: Project, converter: str) -> None:
    del project.matrix["models"]["tiny"]["gguf"]
    borrow_assets(project.cache)
    result = project.run("-k", "F16 and (perplexity or tokenizer)")
    assert result.status == 0, result.output
    metrics = project.measurement("tiny/llamacpp/F16").metrics
    assert metrics["tokenizer/mismatches"].value == 0
    assert metrics["perplexity"].value < 4
