"""The cache: its types reach llama.cpp, its bytes are those of a count by hand, few bits are seen by the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from quantgate.errors import MeasurementError
from quantgate.records import Status

from selftest.project import Accepted, Project, tiny_matrix

if TYPE_CHECKING:
    from pathlib import Path

    from selftest.once import Once
    from selftest.tiny import TinyModel

LAYERS, WIDTH = 2, 2 * 64
"""Of the tiny model; its width is heads of keys and values x head size."""
CELLS = 512
"""llama.cpp rounds 264 tokens up to a multiple of 256."""
BYTES = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32,
         "q4_0": 18 / 32, "iq4_nl": 18 / 32}  # fmt: skip
"""Of a number: ggml's blocks of 32 with their scales and minima."""


def line(cells: int, layers: int, k: str, k_mib: float, v: str, v_mib: float) -> str:
    """As llama.cpp logs a cache."""
    size = f"size = {k_mib + v_mib:7.2f} MiB ({cells:6} cells, {layers:3} layers,  1/1 seqs)"
    return f"llama_kv_cache: {size}, K ({k}): {k_mib:7.2f} MiB, V ({v}): {v_mib:7.2f} MiB"


ONE = line(8192, 30, "f16", 90.0, "f16", 90.0)
SLIDING = [line(1024, 3, "f16", 1.5, "f16", 1.5), line(768, 15, "q8_0", 2.99, "q4_0", 1.58)]
RECURRENT = (
    "llama_memory_recurrent: size =    0.20 MiB (     1 cells,   6 layers,  1 seqs  0 rs_seq), "
    "R (f32):    0.02 MiB, S (f32):    0.18 MiB, P (f32):    0.00 MiB"
)


def loaded(tiny: TinyModel, **options: Any) -> Any:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    return LlamaCpp(tiny.gguf, {"device": "cpu", **options}, 1)


def by_hand(keys: str, values: str) -> float:
    return LAYERS * CELLS * WIDTH * (BYTES[keys] + BYTES[values])


# --- bytes ----------------------------------------------------------------------------------------


def test_the_log_is_counted_cache_by_cache() -> None:
    from quantgate.backends.runtime.llama_cache import cache_bytes

    assert cache_bytes(["llama_context: n_ctx = 8192", ONE], 192, 192) == 8192 * 30 * 192 * 2 * 2
    both = 1024 * 3 * 256 * 4 + 768 * 15 * 256 * (34 + 18) // 32
    assert cache_bytes(SLIDING, 256, 256) == both


def test_what_cannot_be_counted_is_not_guessed() -> None:
    from quantgate.backends.runtime.llama_cache import cache_bytes

    assert cache_bytes([], 192, 192) is None
    assert cache_bytes([ONE], 192, 128) is None, "other widths than those that the library's size is of"
    assert cache_bytes([ONE, RECURRENT], 192, 192) is None


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_of_each_type_are_those_of_a_count_by_hand(tiny: TinyModel, kind: str) -> None:
    model = loaded(tiny, type_k=kind, type_v=kind)
    model.reserve(264, 1)
    model.prefill([1, 2, 3])
    assert model.cache_bytes() == by_hand(kind, kind)
    assert model.next_logits().any()


def test_keys_and_values_may_be_of_different_types_and_the_cache_of_any_length(tiny: TinyModel) -> None:
    model = loaded(tiny, type_k="q8_0", flash_attn=False, n_ubatch=64)
    model.reserve(264, 1)
    assert model.cache_bytes() == by_hand("q8_0", "f16")
    model.reserve(513, 1)
    assert model.cache_bytes() == by_hand("q8_0", "f16") / 2 * 3


def test_a_type_that_never_reaches_the_library_shows_in_the_bytes(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llama_cpp

    begin = llama_cpp.llama_init_from_model

    def forgets(model: Any, params: Any) -> Any:
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F16
        return begin(model, params)

    monkeypatch.setattr(llama_cpp, "llama_init_from_model", forgets)
    model = loaded(tiny, type_k="q4_0", type_v="q4_0")
    model.reserve(264, 1)
    assert model.cache_bytes() == by_hand("f16", "f16")


# --- options --------------------------------------------------------------------------------------


def test_without_options_nothing_is_stated_and_conditions_are_as_ever(tiny: TinyModel) -> None:
    model = loaded(tiny)
    assert not model.states_cache
    assert model.settings == "n_ubatch 512, flash attention auto, cache F16"
    assert "attention" not in model.facts()


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"type_k": "q8_0", "type_v": "q4_0"}, "n_ubatch 512, flash attention auto, cache q8_0 keys, q4_0 values"),
        ({"flash_attn": True}, "n_ubatch 512, flash attention on, cache F16"),
        ({"flash_attn": False, "n_ubatch": 64}, "n_ubatch 64, flash attention off, cache F16"),
    ],
)  # fmt: skip
def test_options_are_conditions(tiny: TinyModel, options: dict[str, Any], settings: str) -> None:
    model = loaded(tiny, **options)
    assert model.settings == model.facts()["attention"] == settings
    assert model.states_cache == ("type_k" in options)


def test_a_type_that_does_not_fit_the_model_is_an_error_in_the_librarys_words(tiny: TinyModel) -> None:
    model = loaded(tiny, type_k="q4_K")  # refused at collection; a library may take fewer than it names
    with pytest.raises(
        MeasurementError, match=r"does not divide n_embd_head_k=64; name other types in type_k and type_v$"
    ):
        model.reserve(8, 1)
    with pytest.raises(MeasurementError, match="this llama-cpp-python has no type 'q9_9'; it has f32, f16,"):
        loaded(tiny, type_k="q9_9").reserve(8, 1)


# --- whole runs -----------------------------------------------------------------------------------

FULL = "tiny/llamacpp/F16"
Q8, Q4 = (f"{FULL}-cache-{kind}" for kind in ("q8_0", "q4_0"))

FORGETS = """\
import sys
if "quantgate.measure.worker" in sys.orig_argv:
    import llama_cpp
    begin = llama_cpp.llama_init_from_model
    f16, q4, q8 = (getattr(llama_cpp, f"GGML_TYPE_{name}") for name in ("F16", "Q4_0", "Q8_0"))
    def forgets(model, params):
        params.type_k = params.type_v = {f16: f16, q4: f16, q8: q4}[params.type_k]
        return begin(model, params)
    llama_cpp.llama_init_from_model = forgets
"""
"""Of the reference, nothing is changed."""


@pytest.fixture(scope="session")
def accepted_caches(once: Once, tiny: TinyModel, environment: dict[str, str]) -> Accepted:
    """Three cells that differ in their caches, with windows whose thirds are told apart: measured and accepted once."""

    def new(folder: Path) -> Project:
        project = Project(folder / "p", tiny_matrix(tiny), dict(environment))
        text = {"text": "boolq", "n_ctx": 256, "windows": 2, "block": 16}
        project.matrix["tiers"]["smoke"] |= {
            "cells": [FULL, Q8, Q4],
            "perplexity": text,
            "divergence": {**text, "protocol": "full"},
            "memory": {"prompt": 256, "decode": 8, "processes": 1},
        }
        return project

    def make(folder: Path) -> None:
        result = new(folder).update()
        assert result.status == 0, result.output
        (folder / "output").write_text(result.output)

    folder = once("caches", make)
    project = new(folder)
    return Accepted(project, project.left(0, (folder / "output").read_text()))


@pytest.fixture
def caches(accepted_caches: Accepted, tmp_path: Path) -> Project:
    """A copy of it."""
    return accepted_caches.project.copy(tmp_path / "project")


def test_few_bits_are_seen(accepted_caches: Accepted) -> None:
    metrics = {cell: accepted_caches.project.measurement(cell).metrics for cell in (FULL, Q8, Q4)}
    assert "memory/cache_bytes" not in metrics[FULL]
    assert metrics[Q8]["memory/cache_bytes"].value == by_hand("q8_0", "q8_0")
    assert metrics[Q4]["memory/cache_bytes"].value == by_hand("q4_0", "q4_0")
    for name in ("kl_mean", "kl_early", "kl_late"):
        q8, q4 = (metrics[cell][f"divergence/{name}"] for cell in (Q8, Q4))
        assert 0 < q8.value < q4.value / 3, name
        assert len(q4.samples or ()) == (32 if name == "kl_mean" else 10)
    assert "attention" not in metrics[FULL]["perplexity"].conditions
    assert "q4_0 values" in str(metrics[Q4]["perplexity"].conditions["attention"])


def test_an_ignored_type_is_red(caches: Project, tmp_path: Path) -> None:
    """In the bytes where it is larger, in the divergence where it is smaller."""
    (tmp_path / "sitecustomize.py").write_text(FORGETS)
    caches.environment["PYTHONPATH"] += f":{tmp_path}"
    result = caches.run("-k", "memory and cache-q4_0 or divergence and cache-q8_0")
    assert set(result.failed()) == {f"memory[{Q4}]", f"divergence[{Q8}]"}
    verdict = result.verdict(Q4, "memory/cache_bytes")
    assert (verdict.status, verdict.measured) == (Status.REGRESSION, by_hand("f16", "f16"))
    assert result.verdict(Q8, "divergence/kl_mean/reproduction").status == Status.CHANGED


def test_another_type_under_the_same_name_is_not_compared(caches: Project) -> None:
    scheme = {"bits": 16, "ftype": "F16", "type_k": "q8_0", "type_v": "q4_0"}
    caches.matrix["backends"] = {"llamacpp": {"schemes": {"F16-cache-q8_0": scheme}}}
    verdict = caches.run("-k", "perplexity and cache-q8_0").verdict(Q8, "perplexity")
    assert verdict.status == Status.NOT_COMPARABLE
    assert verdict.text.startswith("attention differs: ")
