"""Which models are themselves under test; a file of another type is not measured under the name of the old one."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.config.matrix import Matrix
from quantgate.config.source import Checkpoint, Source
from quantgate.errors import InputError
from quantgate.machine.environment import Environment
from quantgate.processes.progress import ignore_progress
from quantgate.run.inputs import load_matrix
from quantgate.supply.maker import Maker
from quantgate.supply.shipped import check_measured, shipped
from quantgate.supply.sources import Sources

from selftest.supply.test_as_is import write_folder, write_gguf

Q4_K_M, Q8_0, F16 = 15, 7, 1
"""Numbers of `general.file_type`."""


def written(folder: Path, *cells: str) -> Matrix:
    """A matrix whose model is `x.gguf`, with these cells."""
    ids = ", ".join(f'"mine/llamacpp/{cell}"' for cell in ("F16", *cells))
    file = folder / "m.toml"
    file.write_text(
        '[models.mine]\nlicense = "MIT"\ngguf = { path = "x.gguf" }\n'
        f'[tiers.smoke]\ntime_limit = 9\ncells = [{ids}]\nperplexity = {{ text = "boolq" }}\n'
    )
    return load_matrix(file)


def test_a_quantized_checkpoint_alone_is_under_test(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf", Q4_K_M, ["Q4_0"])
    write_gguf(tmp_path / "full.gguf", F16, ["F16"])
    write_folder(tmp_path / "folder")
    sources = Sources(tmp_path / "m.toml", None, Maker(tmp_path, 60.0, ignore_progress, Environment()))
    model = written(tmp_path, "Q4_K_M").models["mine"]

    def of(**changes: object) -> Source | None:
        return shipped(model.model_copy(update=changes), sources)

    assert of() == Source(path=Path("x.gguf"))
    assert of(gguf=Source(path=Path("full.gguf"))) is None, "cells are made from it"
    assert of(weights=Source(path=Path("folder"))) is None, "there is another to compare it with"
    folder = Checkpoint(path=Path("folder"))
    assert of(gguf=None, weights=Source(path=Path("folder")), checkpoints={"a/b": folder}) is not None
    assert of(checkpoints={"a/b": folder}) is None, "it is what this one is compared with"
    assert shipped(load_matrix().models["smollm2-135m"], sources) is None, "an asset cannot change"


def test_a_file_that_no_cell_measures_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "x.gguf", Q8_0, ["Q8_0"])
    for cells in (["Q8_0"], ["Q8_0", "Q4_K_M"], []):
        check_measured(written(tmp_path, *cells), "mine", file)
    message = (
        r"m\.toml: models\.mine\.gguf: .*x\.gguf is in Q8_0, and the cells measure Q4_K_M: put a file of that type "
        r"there, or have a cell measure this one as it is \(mine/llamacpp/Q8_0, or \[models\.mine\.checkpoints\]\)"
    )
    with pytest.raises(InputError, match=message):
        check_measured(written(tmp_path, "Q4_K_M"), "mine", file)
