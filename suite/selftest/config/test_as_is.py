"""Checkpoints that cells load as they are, in a user's matrix: which cells there are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.config.matrix import Matrix
from quantgate.errors import InputError
from quantgate.run.inputs import load_matrix

USER = """
[models.mine]
license = "MIT"
gguf = { path = "mine.gguf" }
[models.mine.checkpoints]
CHECKPOINTS
[models.other]
license = "MIT"
gguf = { path = "other.gguf" }

[backends.llamacpp.schemes]
my-mix = { as_is = true }

[tiers.smoke]
time_limit = 60
cells = ["*/llamacpp/F16", CELLS]
perplexity = { text = "boolq", n_ctx = 256 }
"""
Q4 = '"llamacpp/Q4_K_M" = { path = "q4.gguf" }'
MIX = '"llamacpp/my-mix" = { path = "mix.gguf" }'


def loaded(folder: Path, checkpoints: str, cells: str = '"*/llamacpp/Q4_K_M"') -> Matrix:
    file = folder / "matrix.toml"
    file.write_text(USER.replace("CHECKPOINTS", checkpoints).replace("CELLS", cells))
    return load_matrix(file)


def test_a_cell_with_a_checkpoint_is_loaded_as_it_is(tmp_path: Path) -> None:
    cells = {c.id: c for c in loaded(tmp_path, Q4).cells("smoke")}
    mine, other = (cells[f"{model}/llamacpp/Q4_K_M"] for model in ("mine", "other"))
    assert mine.as_is is not None
    assert mine.as_is.path == Path("q4.gguf")
    assert mine.scheme_options == {**other.scheme_options, "as_is": True}
    assert (mine.bits, mine.reference) == (4, "mine/llamacpp/F16")
    assert other.as_is is None


def test_a_scheme_for_files_as_they_are_exists_where_there_is_one(tmp_path: Path) -> None:
    cells = [c.id for c in loaded(tmp_path, MIX, '"*/llamacpp/my-*"').cells("smoke")]
    assert cells == ["mine/llamacpp/F16", "other/llamacpp/F16", "mine/llamacpp/my-mix"]


@pytest.mark.parametrize(
    ("checkpoints", "cells", "message"),
    [
        (
            '"llamacpp/Q4_KM" = { path = "x.gguf" }',
            "",
            "models.mine.checkpoints: 'llamacpp/Q4_KM': llamacpp has no scheme 'Q4_KM'. Did you mean 'Q4_K_M'? ",
        ),
        (
            '"lamacpp/Q4_K_M" = { path = "x.gguf" }',
            "",
            "models.mine.checkpoints: 'lamacpp/Q4_K_M' is not a backend/scheme: there is no backend 'lamacpp'. "
            "Did you mean 'llamacpp'? ",
        ),
        (
            '"llamacpp/Q4_K_M" = { pth = "x.gguf" }',
            "",
            "models.mine.checkpoints.\"llamacpp/Q4_K_M\".pth: unknown key. Did you mean 'path'? ",
        ),
        (
            Q4,
            '"mine/llamacpp/my-mix", "mine/llamacpp/Q4_K_M"',
            "tiers.smoke.cells: 'mine/llamacpp/my-mix' names a scheme with as_is: add llamacpp/my-mix to "
            "models.mine.checkpoints",
        ),
        (
            Q4,
            '"mine/llamacpp/Q8_0"',
            "models.mine.checkpoints: 'llamacpp/Q4_K_M': no tier has this cell, so the checkpoint would never be "
            "measured: add 'mine/llamacpp/Q4_K_M' to the cells of a tier",
        ),
        (
            '"llamacpp/Q4_K_M" = { path = "x.gguf", sha256 = "12" }',
            "",
            'models.mine.checkpoints."llamacpp/Q4_K_M".sha256: must be the 64 hexadecimal digits that `sha256sum FILE` '
            "prints, not '12'",
        ),
    ],
)
def test_what_is_wrong_is_named_at_collection(
    tmp_path: Path, checkpoints: str, cells: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, checkpoints, cells)
    assert str(caught.value).startswith(f"{tmp_path / 'matrix.toml'}: {message}")


def test_a_scheme_that_simulates_takes_no_checkpoint_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, '"kbit/int4-b64" = { path = "x" }', '"mine/kbit/int4-b64", "mine/transformers/fp32"')
    assert f"{tmp_path / 'matrix.toml'}: models.mine.checkpoints.kbit/int4-b64: its bits are simu" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ('{ ftype = "Q4_0" }', r"schemes\.my-mix\.bits: is missing; add it"),
        ("{ bits = 4 }", r"schemes\.my-mix: ftype is missing: name it, or as_is = true"),
    ],
)
def test_a_scheme_that_quantizes_needs_a_quantizer_and_bits(
    tmp_path: Path, scheme: str, message: str
) -> None:
    file = tmp_path / "matrix.toml"
    text = USER.replace("CHECKPOINTS", "").replace("CELLS", "")
    file.write_text(text.replace("{ as_is = true }", scheme))
    with pytest.raises(InputError, match=message):
        load_matrix(file)
