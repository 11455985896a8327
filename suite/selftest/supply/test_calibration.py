"""Calibration sets, importance matrices and recipes: what is made of them, from what, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from pydantic import ValidationError
from quantgate.backends.base import ShowsInputs
from quantgate.backends.llmcompressor import Options as Recipe
from quantgate.backends.runtime.transformers import Transformers
from quantgate.config.matrix import Cell, Model, Source
from quantgate.errors import AssetError, InputError
from quantgate.machine.environment import Environment
from quantgate.processes.progress import ignore_progress
from quantgate.supply.calibrated import Calibrated, requirements
from quantgate.supply.calibration import make_mean_squares, make_sequences
from quantgate.supply.checkpoints import quantize_gguf
from quantgate.supply.compress import check_groups
from quantgate.supply.imatrix import gguf_names, importance_matrix
from quantgate.supply.maker import Maker
from quantgate.supply.sources import Sources

from selftest.tiny import TEXT, TinyModel

OPTIONS = {"bits": 4, "dtype": "float32", "device": "cpu"}


def quiet(phase: str, done: float, total: float) -> None:
    pass


# --- sequences ------------------------------------------------------------------------------------


@pytest.fixture
def sequences(tiny: TinyModel, tmp_path: Path) -> Path:
    """The beginning of the tiny model's text, 4 rows of 16 tokens."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    output = tmp_path / "made" / "sequences.json"
    make_sequences(
        output,
        report=quiet,
        tokenizer=str(tiny.safetensors),
        add_bos=None,
        name="own",
        text={"path": str(text)},
        tokens=64,
        length=16,
    )
    return output


def test_a_set_is_rows_of_the_text_in_order(tiny: TinyModel, sequences: Path) -> None:
    import transformers

    rows = json.loads(sequences.read_bytes())
    assert [len(row) for row in rows] == [16] * 4
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.safetensors)
    assert TEXT.startswith(tokenizer.decode([token for row in rows for token in row]))


def test_a_text_that_is_too_short_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("short")
    with pytest.raises(InputError, match=r"text 'own' has \d+ tokens, the tier needs 64"):
        make_sequences(
            tmp_path / "out.json",
            report=quiet,
            tokenizer=str(tiny.safetensors),
            add_bos=None,
            name="own",
            text={"path": str(tmp_path / "text.txt")},
            tokens=64,
            length=16,
        )


# --- activations ------------------------------------------------------------------------------------


@pytest.fixture
def squares(tiny: TinyModel, sequences: Path, tmp_path: Path) -> Path:
    output = tmp_path / "squares.safetensors"
    make_mean_squares(
        output, report=quiet, safetensors=str(tiny.safetensors), sequences=str(sequences), threads=1
    )
    return output


def test_mean_squares_are_those_of_the_inputs(tiny: TinyModel, sequences: Path, squares: Path) -> None:
    import torch
    from safetensors.numpy import load_file

    model = Transformers(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1)._model
    found = load_file(squares)
    layers = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    assert sorted(found) == sorted(layers)
    ids = torch.tensor(json.loads(sequences.read_bytes()))
    first = model.model.layers[0]
    inputs = first.input_layernorm(model.model.embed_tokens(ids)).flatten(0, 1)
    expected = inputs.square().mean(dim=0).numpy()
    assert np.allclose(found["model.layers.0.self_attn.q_proj"], expected, rtol=1e-5)
    assert found["model.layers.0.mlp.down_proj"].shape == (first.mlp.down_proj.in_features,)


def test_looking_leaves_the_model_as_it_was(tiny: TinyModel) -> None:
    model = Transformers(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1)
    assert isinstance(model, ShowsInputs)
    seen: list[str] = []
    model.inputs([1, 2, 3], lambda name, inputs: seen.append(f"{name} {len(inputs)}"))
    assert seen
    assert all(line.endswith(" 3") for line in seen)
    assert not any(m._forward_pre_hooks for m in model._model.modules())


def weighted_error(path: Path, tensor: str, true: np.ndarray, weights: np.ndarray) -> float:
    """Of the first layer's feed-forward part, by importance."""
    (found,) = (t for t in gguf.GGUFReader(path).tensors if t.name == tensor)
    values = gguf.quants.dequantize(found.data, found.tensor_type).reshape(true.shape)
    return float((np.square(values - true) @ weights).sum())


def test_an_importance_matrix_makes_the_weighted_error_smaller(
    tiny: TinyModel, squares: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    layer, tensor = "model.layers.0.mlp.down_proj", "blk.0.ffn_down.weight"
    weights = load_file(squares)[layer]
    true = load_file(tiny.safetensors / "model.safetensors")[f"{layer}.weight"]
    errors = {}
    for name, given in {"plain": None, "weighed": str(squares)}.items():
        made = tmp_path / f"{name}.gguf"
        quantize_gguf(made, report=quiet, gguf=str(tiny.gguf), ftype="Q4_0", threads=1, mean_squares=given)
        errors[name] = weighted_error(made, tensor, true, weights)
    assert errors["weighed"] < 0.98 * errors["plain"]


def test_the_matrix_ends_and_names_the_tensors(tiny: TinyModel, squares: Path) -> None:
    from safetensors.numpy import load_file

    found = importance_matrix(tiny.gguf, squares)
    *entries, last = found.entries
    assert last.name is None
    by_name = {entry.name.decode(): entry for entry in entries}
    there = {t.name: t for t in gguf.GGUFReader(tiny.gguf).tensors}
    assert all(by_name[name].size == there[name].shape[0] for name in by_name)
    entry = by_name["blk.0.attn_q.weight"]
    values = np.ctypeslib.as_array(entry.data, (entry.size,))
    assert np.array_equal(values, load_file(squares)["model.layers.0.self_attn.q_proj"])


def test_layers_of_another_model_are_refused(tiny: TinyModel) -> None:
    with pytest.raises(AssetError, match=r"has no tensor for model.layers.9.mlp.up_proj"):
        gguf_names(tiny.gguf, ["model.layers.9.mlp.up_proj"])


# --- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"method": "gptq"}, "needs a `calibration`"),
        ({"method": "rtn", "high": 0.1}, "needs a `calibration`"),
        ({"method": "rtn", "calibration": "wikipedia"}, "takes no calibration"),
        ({"method": "smoothquant", "calibration": "wikipedia"}, "add activations = 8"),
        ({"method": "rtn", "high": 0.1, "calibration": "w", "high_bits": 4}, "more than bits"),
        ({"method": "obq"}, "Input should be 'rtn'"),
        ({"method": "rtn", "groups": 64}, "Extra inputs"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Recipe.model_validate({**OPTIONS, **wrong})


def test_a_group_divides_the_layers() -> None:
    recipe = Recipe.model_validate({**OPTIONS, "method": "rtn", "group": 128})
    check_groups(recipe, {"a": 256, "b": 1536})
    with pytest.raises(InputError, match=r"128 does not divide the 576 inputs of q.*: 32, 64, 96, 192$"):
        check_groups(recipe, {"q": 576, "down": 1536})
    check_groups(recipe.model_copy(update={"group": "channel"}), {"q": 577})


class NotingMaker(Maker):
    """Notes what is to be made and makes nothing. torch: its version."""

    def __init__(self, logs: Path, torch: str = "2") -> None:
        super().__init__(logs, 60.0, ignore_progress, Environment())
        self.jobs: dict[str, dict[str, Any]] = {}
        self.elsewhere: list[str] = []
        self.torch = torch

    def make(
        self,
        output: Path,
        title: str,
        function: str,
        arguments: Callable[[], dict[str, Any]],
        *,
        command: Callable[[], Sequence[str]] | None = None,
        time_limit: float | None = None,
    ) -> Path:
        self.jobs[output.name] = {"function": function, **arguments()}
        if command is not None:
            self.elsewhere.append(function)
        return output

    def identity(self, module: str, *packages: str) -> list[Any]:
        return [module, *packages, self.torch]


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> NotingMaker:
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    return NotingMaker(tmp_path)


def calibrated(making: Maker) -> Calibrated:
    return Calibrated(Path("matrix.toml"), Sources(Path("matrix.toml"), None, making), making, 1)


def cell(**options: Any) -> Cell:
    return Cell(
        model="tiny",
        backend="llmcompressor",
        scheme="s",
        bits=4,
        scheme_options={**OPTIONS, **options},
        checkpoint="compressed",
        reference="tiny/transformers/fp32",
    )


def compressed(making: NotingMaker, tiny: TinyModel, **options: Any) -> Path:
    model = Model(license="x", weights=Source(path=tiny.safetensors))
    return calibrated(making).compressed(cell(**options), model, tiny.safetensors)


def test_each_set_and_method_is_a_checkpoint_of_its_own(making: NotingMaker, tiny: TinyModel) -> None:
    gptq = compressed(making, tiny, method="gptq", group=32, calibration="random")
    assert compressed(making, tiny, method="gptq", group=32, calibration="random") == gptq
    others = [
        compressed(making, tiny, method="awq", group=32, calibration="random"),
        compressed(making, tiny, method="rtn", group=32),
        compressed(making, tiny, method="rtn", group=64),
        compressed(making, tiny, method="rtn", group=32, high=0.25, calibration="random"),
    ]
    assert len({gptq, *others}) == 5
    job = making.jobs[gptq.name]
    assert (job["mean_squares"], Path(job["sequences"]).name in making.jobs) == (None, True)
    rounded = making.jobs[others[1].name]
    assert (rounded["sequences"], rounded["mean_squares"]) == (None, None)
    mixed = making.jobs[others[3].name]
    assert Path(mixed["mean_squares"]).name in making.jobs
    assert set(making.elsewhere) == {"quantgate.supply.compress:compress"}, "all else is made here"


def test_another_torch_or_other_safetensors_make_a_checkpoint_of_their_own(
    making: NotingMaker, tiny: TinyModel
) -> None:
    model = Model(license="x", weights=Source(path=tiny.safetensors))
    rounded = cell(method="rtn", group=32)

    def output(torch: str, safetensors: Path) -> Path:
        making.torch = torch
        return calibrated(making).compressed(rounded, model, safetensors)

    first = output("2", tiny.safetensors)
    assert output("2", tiny.safetensors) == first
    assert output("3", tiny.safetensors) != first
    assert output("2", tiny.safetensors.with_name("converted-anew")) != first


def test_what_is_calibrated_is_measured_anew_with_another_set(making: NotingMaker) -> None:
    made = calibrated(making)
    assert made.identity(cell(method="rtn").model_copy(update={"checkpoint": "gguf"})) == []
    assert made.identity(cell(method="rtn")), "the quantizer itself is a part of it"
    sets = [made.identity(cell(method="gptq", calibration=name)) for name in ("random", "german")]
    assert sets[0] != sets[1]
    weighed = Cell(
        model="m", backend="llamacpp", scheme="s", bits=4, scheme_options={"imatrix": "random"}, checkpoint="gguf",
        reference="r",
    )  # fmt: skip
    assert made.identity(weighed)


def test_a_users_own_text_is_no_calibration_set(making: NotingMaker, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("own")
    sources = Sources(Path("matrix.toml"), own, making)
    assert "path" in sources.text("random")
    assert "path" not in sources.calibration("random")["text"]


def test_unknown_names_are_refused(making: NotingMaker, tiny: TinyModel) -> None:
    with pytest.raises(InputError, match=r"matrix.toml: no text 'wiki'; tasks.toml has: boolq, .*"):
        compressed(making, tiny, method="gptq", calibration="wiki")
    with pytest.raises(InputError, match=r"backends.llmcompressor.schemes.s.grup: unknown key. .*group"):
        compressed(making, tiny, method="rtn", grup=64)


def test_requirements_are_pinned() -> None:
    assert all("==" in line for line in requirements())
    assert any(line.startswith("llmcompressor==") for line in requirements())
