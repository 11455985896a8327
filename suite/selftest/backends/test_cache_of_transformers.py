"""The cache of transformers: its bytes are those of a count by hand; few bits show where a text is continued."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.backends.methods import libraries_of
from quantgate.backends.transformers import Options
from quantgate.config.toml_input import validate
from quantgate.errors import InputError, MeasurementError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selftest.tiny import TinyModel

NUMBERS = 2 * 2 * 2 * 64
"""Of a token of the tiny model: layers x (keys and values) x heads x head size."""
FP8 = {"backend": "fp8"}
IDS = list(range(1, 61))


def loaded(tiny: TinyModel, cache: dict[str, Any] | None = None, dtype: str = "float32") -> Any:
    from quantgate.backends.runtime.transformers import Transformers

    options = {"device": "cpu", "dtype": dtype} | ({"cache": cache} if cache else {})
    return Transformers(tiny.safetensors, options, 1)


def continued(model: Any) -> NDArray[np.float64]:
    """Log-probabilities after each token from the 40th on, through the cache."""
    model.reserve(60, 1)
    model.prefill(IDS[:40])
    rows = []
    for token in IDS[40:]:
        model.decode([token])
        rows.append(model.next_logits().astype(float))
    logits = np.array(rows)
    logprobs: NDArray[np.float64] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logprobs


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_bytes_of_floats_are_those_of_a_count_by_hand(tiny: TinyModel, dtype: str, size: int) -> None:
    model = loaded(tiny, dtype=dtype)
    continued(model)
    assert model.cache_bytes() == 60 * NUMBERS * size
    assert not model.states_cache
    assert model.settings == "static cache, not compiled"
    assert model.facts()["attention"] == "sdpa"


def test_an_fp8_cache_takes_a_quarter_and_is_seen_where_it_is_read(tiny: TinyModel) -> None:
    exact, few = loaded(tiny), loaded(tiny, FP8)
    p, q = continued(exact), continued(few)
    scales = 2 * 2 * 4  # of each layer's keys and values, one float
    assert few.cache_bytes() == 60 * NUMBERS + scales
    assert 1e-4 < (np.exp(p) * (p - q)).sum(axis=1).mean() < 0.1
    assert few.states_cache
    assert few.settings == "cache backend fp8, not compiled"
    assert few.facts()["attention"] == "sdpa, cache backend fp8"
    few.loop(IDS[:40], 4)


@pytest.mark.skipif(not importlib.util.find_spec("hqq"), reason="hqq is not installed")
def test_an_hqq_cache_is_counted_with_its_scales(tiny: TinyModel) -> None:
    model = loaded(tiny, {"backend": "hqq", "nbits": 4, "axis_key": 1, "axis_value": 1, "q_group_size": 64})
    continued(model)
    stored, late = 40 * NUMBERS, 20 * NUMBERS * 4  # below the residual length the rest is kept in floats
    assert model.cache_bytes() == stored // 2 + stored // 64 * 2 * 4 + late


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ({"backend": "fp9"}, "backend: cannot be 'fp9'. Did you mean 'fp8'? Allowed: fp8, hqq, quanto"),
        ({"backend": "fp8", "nbits": 8}, "nbits: does nothing with fp8: leave it out"),
        ({"backend": "quanto", "nbits": 8}, "nbits: cannot be 8 with quanto. Allowed: 2, 4"),
        ({"backend": "hqq", "axis_key": -1}, "axis_key: cannot be -1 with hqq. Allowed: 0, 1"),
        (
            {"backend": "hqq", "group_size": 64},
            "group_size: unknown key. Did you mean 'q_group_size'? Allowed: axis",
        ),
    ],
)
def test_arguments_that_the_cache_does_not_take_are_refused(cache: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        validate(Options, {"bits": 32, "dtype": "float32", "cache": cache}, Path("m.toml"), "schemes.x")
    assert str(refused.value).startswith(f"m.toml: schemes.x.cache.{message}")


def test_the_libraries_of_a_cache_are_told() -> None:
    """An upgrade of one is named, and measured anew."""
    options = {"bits": 32, "dtype": "float32"}
    quanto = Options.model_validate({**options, "cache": {"backend": "quanto"}}).further_libraries()
    assert quanto == libraries_of("quanto")
    assert bool(quanto) == (importlib.util.find_spec("optimum") is not None)
    assert not Options.model_validate({**options, "cache": FP8}).further_libraries()
    quantization = {"method": "bitsandbytes", "load_in_8bit": True}
    both = {"bits": 8, "dtype": "float32", "quantization": quantization, "cache": {"backend": "quanto"}}
    assert Options.model_validate(both).further_libraries() == {**quanto, **libraries_of("bitsandbytes")}


def test_a_package_that_is_missing_is_named_with_its_command() -> None:
    options = Options.model_validate({"bits": 32, "dtype": "float32", "cache": {"backend": "quanto"}})
    installed = importlib.util.find_spec("optimum") is not None
    assert installed or options.why_not().startswith("optimum.quanto is not installed: pip install ")
    assert not Options.model_validate({"bits": 32, "dtype": "float32", "cache": FP8}).why_not()


def test_a_model_that_the_cache_does_not_work_with_is_an_error_in_the_librarys_words(tiny: TinyModel) -> None:
    model = loaded(tiny, FP8)
    model._model.config.layer_types = ["sliding_attention", "full_attention"]
    model._model.config.sliding_window = 8
    with pytest.raises(MeasurementError, match=r"transformers makes no fp8 cache here: .*full attention"):
        model.prefill(IDS)
