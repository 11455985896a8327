"""Models that are split over several GPUs: what the libraries are given, and what is refused. No GPU is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.config.matrix import Matrix
from quantgate.errors import MeasurementError
from quantgate.run.inputs import load_matrix

if TYPE_CHECKING:
    from selftest.tiny import TinyModel

SPLIT = """
[models.big]
license = "mine"
weights = { path = "big" }
gguf = { path = "big.gguf" }
[models.big.resources]
"*/split-*" = { gpus = 4, memory = 100 }
[backends.transformers.schemes.split-bf16]
bits = 16
dtype = "bfloat16"
device = "cuda"
device_map = "auto"
reference = "transformers/split-bf16"
[backends.llamacpp.schemes.split-Q4_0]
bits = 4
ftype = "Q4_0"
device = "cuda"
n_gpu_layers = -1
split_mode = "row"
tensor_split = [3, 1.5]
main_gpu = 1
reference = "transformers/split-bf16"
[tiers.smoke]
time_limit = 600
cells = ["big/transformers/split-bf16", "big/llamacpp/split-Q4_0"]
perplexity = { text = "boolq", n_ctx = 512, windows = 8 }
"""


def split(tmp_path: Path) -> Matrix:
    (tmp_path / "matrix.toml").write_text(SPLIT)
    return load_matrix(tmp_path / "matrix.toml")


def test_the_options_reach_the_backend_and_the_cell_asks_for_its_gpus(tmp_path: Path) -> None:
    of_transformers, of_llamacpp = split(tmp_path).cells("smoke")
    assert of_transformers.scheme_options["device_map"] == "auto"
    assert of_llamacpp.scheme_options["tensor_split"] == [3, 1.5]
    for cell in (of_transformers, of_llamacpp):
        assert (cell.resources.gpus, cell.resources.memory) == (4, 100)


def test_llama_cpp_is_given_mode_shares_and_main_gpu(tmp_path: Path) -> None:
    import llama_cpp
    from quantgate.backends.runtime.llama_split import spread

    *_, cell = split(tmp_path).cells("smoke")
    params = llama_cpp.llama_model_default_params()
    held = spread(params, cell.scheme_options, 3)
    assert params.split_mode == llama_cpp.LLAMA_SPLIT_MODE_ROW
    assert params.main_gpu == 1
    assert [params.tensor_split[n] for n in range(4)] == [3, 1.5, 0, 0]
    assert len(held) == llama_cpp.llama_max_devices()


def test_llama_cpp_without_such_options_is_given_its_defaults() -> None:
    import llama_cpp
    from quantgate.backends.runtime.llama_split import spread

    params, untouched = (llama_cpp.llama_model_default_params() for _ in range(2))
    assert spread(params, {}, 0) is None
    assert (params.split_mode, params.main_gpu) == (untouched.split_mode, untouched.main_gpu)
    assert not params.tensor_split


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tensor_split": [1, 1]}, "tensor_split has 2 shares, and llama.cpp sees 1 GPUs"),
        ({"main_gpu": 1}, "main_gpu 1: llama.cpp sees 1 GPUs"),
    ],
)
def test_more_gpus_than_there_are_is_an_error(options: dict[str, Any], says: str) -> None:
    import llama_cpp
    from quantgate.backends.runtime.llama_split import spread

    with pytest.raises(MeasurementError, match=says):
        spread(llama_cpp.llama_model_default_params(), options, 1)


def test_the_gpus_that_torch_sees_are_those_that_llama_cpp_sees() -> None:
    import llama_cpp
    import torch
    from quantgate.backends.runtime.llama_split import visible_gpus

    assert visible_gpus() == (torch.cuda.device_count() if llama_cpp.llama_supports_gpu_offload() else 0)


def test_the_devices_of_a_split_model_are_those_of_its_map() -> None:
    import torch
    from quantgate.backends.runtime.devices import gpus_of

    places = {
        "model.embed_tokens": 0,
        "model.layers.0": 0,
        "model.layers.1": 1,
        "lm_head": torch.device("cuda:1"),
    }
    assert gpus_of(places) == [torch.device("cuda:0"), torch.device("cuda:1")]


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_a_part_that_is_left_outside_of_the_gpus_is_an_error(place: str) -> None:
    from quantgate.backends.runtime.devices import gpus_of

    places: dict[str, Any] = {"model.layers.0": 0, "model.layers.1": place, "lm_head": place}
    with pytest.raises(MeasurementError, match=r"leaves model.layers.1 and 1 more parts outside of the GPUs"):
        gpus_of(places)


def test_a_machine_without_gpus_splits_nothing(tiny: TinyModel) -> None:
    import torch
    from quantgate.backends.runtime.transformers import Transformers

    if torch.cuda.is_available():
        pytest.skip("there are GPUs")
    with pytest.raises(
        MeasurementError, match="outside of the GPUs, of which there are 0: give the cell more"
    ):
        Transformers(tiny.safetensors, {"device": "cuda", "device_map": "auto", "dtype": "float32"}, 1)
