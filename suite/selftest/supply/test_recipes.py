"""Recipes of calibrated checkpoints: what is made of them, from what, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from quantgate.backends.llmcompressor import Options as Recipe
from quantgate.config.matrix import Cell, Model
from quantgate.config.source import Source
from quantgate.errors import InputError
from quantgate.machine.environment import Environment
from quantgate.processes.progress import ignore_progress
from quantgate.supply.compress import check_groups
from quantgate.supply.derived import Derived, requirements
from quantgate.supply.maker import Maker
from quantgate.supply.sources import Sources

from selftest.tiny import TinyModel

OPTIONS = {"bits": 4, "dtype": "float32", "device": "cpu"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "gptq"}, "needs a `calibration`"),
        ({"method": "rtn", "high": 0.1}, "needs a `calibration`"),
        ({"method": "rtn", "calibration": "wikipedia"}, "takes no calibration"),
        ({"method": "smoothquant", "calibration": "wikipedia"}, "add activations = 8"),
        ({"method": "rtn", "high": 0.1, "calibration": "w", "high_bits": 4}, "more than bits"),
        ({"method": "rtn", "high_bits": 6}, "high_bits does nothing without high"),
        ({"method": "obq"}, "Input should be 'rtn'"),
        ({"method": "rtn", "groups": 64}, "Extra inputs"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({**OPTIONS, **wrong})


def test_a_recipe_can_be_sent_to_the_process_that_follows_it() -> None:
    recipe = Recipe.model_validate({**OPTIONS, "method": "rtn"})
    assert Recipe.model_validate(recipe.model_dump()) == recipe


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


def derived(making: Maker, **models: Model) -> Derived:
    return Derived(models, Sources(Path("matrix.toml"), None, making), making, 1)


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
    return derived(making, tiny=model).compressed(cell(**options))


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
    making: NotingMaker, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = derived(making, tiny=Model(license="x", gguf=Source(path=tiny.gguf)))
    rounded = cell(method="rtn", group=32)

    def output(torch: str, safetensors: Path) -> Path:
        making.torch = torch
        monkeypatch.setattr(made, "safetensors", lambda name: safetensors)
        return made.compressed(rounded)

    first = output("2", tiny.safetensors)
    assert output("2", tiny.safetensors) == first
    assert output("3", tiny.safetensors) != first
    assert output("2", tiny.safetensors.with_name("converted-anew")) != first


def test_what_is_calibrated_is_measured_anew_with_another_set(making: NotingMaker, tiny: TinyModel) -> None:
    made = derived(making, tiny=Model(license="x", weights=Source(path=tiny.safetensors)))
    assert made.made_by(cell(method="rtn")), "the quantizer itself is a part of it"
    gptq, weighed = ({"method": "gptq", "calibration": "{}"}, "compressed"), ({"imatrix": "{}"}, "gguf")
    for options, checkpoint in (gptq, weighed):
        sets = [
            made.made_by(
                cell(**{k: v.format(name) for k, v in options.items()}).model_copy(
                    update={"checkpoint": checkpoint}
                )
            )
            for name in ("random", "german")
        ]
        assert sets[0] != sets[1]


def test_what_was_made_otherwise_is_measured_anew(
    making: NotingMaker, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record, and what a reference has left for others, is of the checkpoint that was there then."""
    weights, gguf = Source(path=tiny.safetensors), Source(path=tiny.gguf)
    hashed: list[str] = []
    monkeypatch.setattr("quantgate.supply.derived.code_hash", lambda *files: hashed.extend(files))

    def makers(checkpoint: str, **sources: Source) -> list[str]:
        made = derived(making, tiny=Model(license="x", **sources))
        hashed.clear()
        listed = made.made_by(cell().model_copy(update={"checkpoint": checkpoint}))
        return sorted([one[0] for one in listed if isinstance(one, list)] + hashed)

    assert makers("safetensors", weights=weights) == makers("none", gguf=gguf) == []
    assert makers("safetensors", gguf=gguf) == ["dequantize", "supply/splitting.py"]
    assert makers("gguf", gguf=gguf) == ["checkpoints"]
    assert makers("gguf", weights=weights) == ["checkpoint/contents.py", "checkpoints", "supply/gguf*.py"]
    derived(making, tiny=Model(license="x", gguf=gguf)).quantized("tiny", "Q4_0", "random")
    assert "backends/runtime/transformers.py" in hashed, "it shows the activations that are squared"


def test_a_type_of_floats_is_made_from_the_file_itself_and_no_other(
    making: NotingMaker, tiny: TinyModel
) -> None:
    """F16 has fewer exponents than BF16: small weights would get lost on the way."""
    made = derived(making, tiny=Model(license="x", gguf=Source(path=tiny.gguf)))
    half, brain, four = (made.quantized("tiny", ftype).name for ftype in ("F16", "BF16", "Q4_0"))
    made_from = [Path(making.jobs[name]["gguf"]).name for name in (half, brain, four)]
    assert made_from == [tiny.gguf.name, tiny.gguf.name, half]


def test_a_users_own_text_is_no_calibration_set(making: NotingMaker, tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("mine")
    sources = Sources(Path("matrix.toml"), text, making)
    assert "path" in sources.text("random")
    assert "path" not in sources.calibration("random")["text"]


def test_unknown_names_are_refused(making: NotingMaker, tiny: TinyModel) -> None:
    with pytest.raises(InputError, match=r"matrix.toml: no text 'wiki'; tasks.toml has: boolq, .*"):
        compressed(making, tiny, method="gptq", calibration="wiki")


def test_requirements_are_pinned() -> None:
    assert all("==" in line for line in requirements())
    assert any(line.startswith("llmcompressor==") for line in requirements())
