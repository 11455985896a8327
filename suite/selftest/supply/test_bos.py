"""A beginning-of-sequence token, and what else a tokenizer puts before a text: the matrix says what becomes of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.checkpoint import checks
from quantgate.checkpoint.checks import puts_bos
from quantgate.errors import InputError
from quantgate.processes.progress import ignore_progress
from quantgate.run.cell import make_supply
from quantgate.run.inputs import load_matrix
from quantgate.supply.encoder import Encoder

from selftest.project import Project
from selftest.supply.copies import checked, edit, set_metadata

if TYPE_CHECKING:
    from selftest.tiny import TinyModel

BOS = "<|endoftext|>"
TEMPLATE: dict[str, Any] = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {BOS: {"id": BOS, "ids": [0], "tokens": [BOS]}},
}


@pytest.mark.parametrize("how", ["flag", "template", "sequence"])
def test_a_tokenizer_that_puts_a_bos_asks_for_a_choice(folder: Path, how: str) -> None:
    checked(folder)
    assert puts_bos(folder) is False
    if how == "flag":
        edit(folder / "tokenizer_config.json", add_bos_token=True)
    else:
        sequence = {"type": "Sequence", "processors": [{"type": "ByteLevel", **_BYTES}, TEMPLATE]}
        edit(folder / "tokenizer.json", post_processor=TEMPLATE if how == "template" else sequence)
        _tokenizer_is_read_anew()
    message = r"m\.toml: models\.t\.add_bos: is missing, .* add_bos = true .* add_bos = false"
    with pytest.raises(InputError, match=message):
        checked(folder)
    checked(folder, add_bos=True)
    checked(folder, add_bos=False)
    with pytest.raises(InputError, match="k: is missing"):
        Encoder(folder, None, "k")
    assert Encoder(folder, False, "k").bos is None
    assert Encoder(folder, True, "k").bos == 0


_BYTES = {"add_prefix_space": False, "trim_offsets": False, "use_regex": True}


def _tokenizer_is_read_anew() -> None:
    checks._tokenizer.cache_clear()


def test_a_template_counts_although_the_configuration_says_no(folder: Path) -> None:
    """transformers goes by the template."""
    edit(folder / "tokenizer.json", post_processor=TEMPLATE)
    edit(folder / "tokenizer_config.json", add_bos_token=False)
    _tokenizer_is_read_anew()
    with pytest.raises(InputError, match="add_bos: is missing"):
        checked(folder)
    with pytest.raises(InputError, match="k: is missing"):
        Encoder(folder, None, "k")


def test_a_bos_that_there_is_not_cannot_be_put(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", bos_token=None)
    message = r"add_bos = true, and the tokenizer of .* names no bos_token"
    with pytest.raises(InputError, match=message):
        checked(folder, add_bos=True)
    with pytest.raises(InputError, match=message):
        Encoder(folder, True)
    checked(folder)
    assert Encoder(folder, None).bos is None


def test_a_class_of_tokenizers_may_have_a_bos_of_its_own(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", bos_token=None, tokenizer_class="GPT2Tokenizer")
    checked(folder, add_bos=True)
    assert Encoder(folder, True).bos == 0


OTHER = "<|prefix|>"
PREFIXED = {
    **TEMPLATE,
    "single": [{"SpecialToken": {"id": OTHER, "type_id": 0}}, *TEMPLATE["single"]],
    "special_tokens": {**TEMPLATE["special_tokens"], OTHER: {"id": OTHER, "ids": [1], "tokens": ["!"]}},
}


@pytest.mark.parametrize("bos", [BOS, None])
def test_what_else_a_tokenizer_puts_before_a_text_is_not_left_out_in_silence(
    folder: Path, bos: str | None
) -> None:
    """As that of GLM: `[gMASK]<sop>`."""
    edit(folder / "tokenizer.json", post_processor=PREFIXED)
    edit(folder / "tokenizer_config.json", bos_token=bos)
    _tokenizer_is_read_anew()
    message = rf"add_bos: is missing, .* puts .* {re.escape(BOS)} before each text, .* write add_bos = false"
    with pytest.raises(InputError, match=message):
        checked(folder)
    with pytest.raises(InputError, match=message):
        Encoder(folder, None, "models.t.add_bos")
    with pytest.raises(InputError, match="add_bos = true, and the tokenizer"):
        checked(folder, add_bos=True)
    checked(folder, add_bos=False)
    assert Encoder(folder, False).encode("a") == Encoder(folder, False).tokenizer("a")["input_ids"][2:]


def test_what_a_tokenizer_puts_after_a_text_is_no_bos(folder: Path) -> None:
    """Nobody takes an end of text into what is scored."""
    single = list(reversed(TEMPLATE["single"]))
    edit(folder / "tokenizer.json", post_processor={**TEMPLATE, "single": single})
    _tokenizer_is_read_anew()
    checked(folder)
    encoder = Encoder(folder, None)
    assert encoder.tokenizer("a")["input_ids"] == [*encoder.encode("a"), 0]


def test_the_flag_of_a_gguf_counts(tiny: TinyModel, tmp_path: Path) -> None:
    assert Encoder(tiny.gguf, None, "k").bos is None
    file = shutil.copy(tiny.gguf, tmp_path / "bos.gguf")
    set_metadata(Path(file), "tokenizer.ggml.add_bos_token", True)
    with pytest.raises(InputError, match="k: is missing"):
        Encoder(Path(file), None, "k")


# --- the whole gate ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["flag", "no token", "gguf"])
def test_it_is_said_at_collection(project: Project, tiny: TinyModel, folder: Path, what: str) -> None:
    model = project.matrix["models"]["tiny"]
    if what == "gguf":
        file = shutil.copy(tiny.gguf, folder / "bos.gguf")
        set_metadata(Path(file), "tokenizer.ggml.add_bos_token", True)
        del model["weights"]
        model["gguf"]["path"] = str(file)
    else:
        keys = {"add_bos_token": True} if what == "flag" else {"bos_token": None}
        edit(folder / "tokenizer_config.json", **keys)
        model["weights"]["path"] = str(folder)
    if what == "no token":
        model["add_bos"] = True
    result = project.run("--collect-only")
    assert result.status == 4, result.output
    assert f"models.tiny.add_bos{' = true' if what == 'no token' else ': is missing'}, and" in result.output
    assert not result.processes


def test_a_gguf_that_cannot_be_read_is_an_error_of_its_cells(project: Project, folder: Path) -> None:
    model = project.matrix["models"]["tiny"]
    del model["weights"]
    model["gguf"]["path"] = str(folder)
    assert project.run("--collect-only").status == 0


def test_a_shipped_checkpoint_that_does_not_put_the_token_is_compared_with_none_that_does(
    tiny: TinyModel, tmp_path: Path
) -> None:
    """Measured with the token it is as good as before; whoever loads it goes without."""
    file, folder = (
        shutil.copy(tiny.gguf, tmp_path / "x.gguf"),
        shutil.copytree(tiny.safetensors, tmp_path / "f"),
    )
    matrix_file = tmp_path / "m.toml"
    matrix_file.write_text(
        f'[models.m]\nlicense = "MIT"\nadd_bos = true\nweights = {{ path = "{tiny.safetensors}" }}\n'
        'checkpoints = { "llamacpp/mine" = { path = "x.gguf" }, "transformers/mine" = { path = "f" } }\n'
        "[backends]\nllamacpp.schemes.mine = { as_is = true }\n"
        'transformers.schemes.mine = { as_is = true, dtype = "float32" }\n'
        '[tiers.t]\ntime_limit = 9\ncells = ["m/llamacpp/F16", "m/llamacpp/mine", "m/transformers/mine"]\n'
        'perplexity = { text = "boolq", n_ctx = 32 }\n'
    )
    matrix = load_matrix(matrix_file)

    def conditions() -> list[dict[str, str]]:
        supply = make_supply(matrix, matrix.tiers["t"], 1, tmp_path, ignore_progress, None)
        return [supply.conditions(cell) for cell in matrix.cells("t")]

    left_out = {"beginning-of-sequence token that the checkpoint leaves out": "one that add_bos puts"}
    assert conditions() == [{}, left_out, left_out]
    set_metadata(Path(file), "tokenizer.ggml.add_bos_token", True)
    edit(folder / "tokenizer_config.json", add_bos_token=True)
    assert conditions() == [{}, {}, left_out], "transformers goes by the template"
    edit(folder / "tokenizer.json", post_processor=TEMPLATE)
    _tokenizer_is_read_anew()
    assert conditions() == [{}, {}, {}]
    (folder / "tokenizer.json").unlink()
    assert conditions() == [{}, {}, {}]
    edit(folder / "tokenizer_config.json", add_bos_token=False)
    assert conditions() == [{}, {}, left_out]
    matrix.models["m"] = matrix.models["m"].model_copy(update={"add_bos": False})
    assert conditions() == [{}, {}, {}]
