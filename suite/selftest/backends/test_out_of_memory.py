"""Where memory runs out, of the machine or of an accelerator, that is the error: nothing goes on in another way."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as library
from quantgate.backends.runtime.transformers import Transformers
from quantgate.backends.tree import TokenSequence
from quantgate.errors import MeasurementError, is_out_of_memory
from quantgate.measure.way import handshake, probe_of

if TYPE_CHECKING:
    from selftest.tiny import TinyModel

OPTIONS: dict[str, Any] = {"device": "cpu", "dtype": "float32"}


def exhaust(*_: Any, **__: Any) -> Any:
    """Take more memory than an address can name, by the library's own allocator."""
    return torch.empty(2**60)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 6.50 TiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("the text says: out of memory"), False),
    ],
)
def test_how_libraries_say_it(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_no_other_cache_is_taken(tiny: TinyModel) -> None:
    model = Transformers(tiny.safetensors, OPTIONS, 1)
    hook = model._model.register_forward_pre_hook(exhaust)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        model.prefill([1, 2])
    hook.remove()
    assert model.settings == "static cache, not compiled"


def test_no_other_way_of_scoring_is_taken(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = Transformers(tiny.safetensors, OPTIONS, 1)
    draw = random.Random(0)
    context = tuple(draw.choices(range(500), k=30))
    probe = probe_of(backend, [[TokenSequence((*context, n), 30) for n in (1, 2)]])
    monkeypatch.setattr(Transformers, "_keep", exhaust)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        handshake(backend, probe)


def test_it_is_no_fault_of_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers reports what fails while it puts experts together as it reports a broken file."""
    from transformers.core_model_loading import MergeModulelist

    config = library.MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    library.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    monkeypatch.setattr(MergeModulelist, "convert", exhaust)
    with pytest.raises(MeasurementError, match=r"loading runs out of memory: .*can't allocate memory"):
        Transformers(tmp_path, OPTIONS, 1)
