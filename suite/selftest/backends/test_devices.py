"""A cell of the CPU computes on the CPU, whatever llama.cpp was built for."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selftest.tiny import TinyModel


@pytest.fixture
def parameters(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What llama.cpp is given, which it then works with."""
    import llama_cpp

    seen: dict[str, Any] = {}
    load, begin = llama_cpp.llama_model_load_from_file, llama_cpp.llama_init_from_model

    def loads(path: bytes, params: Any) -> Any:
        address = params.devices
        first = ctypes.c_void_p.from_address(address).value if address else None
        seen["devices"] = "all" if not address else "none" if first is None else "some"
        return load(path, params)

    def begins(model: Any, params: Any) -> Any:
        seen["offload"] = (params.offload_kqv, params.op_offload)
        return begin(model, params)

    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", loads)
    monkeypatch.setattr(llama_cpp, "llama_init_from_model", begins)
    return seen


def test_the_cpu_is_given_no_device_and_offloads_nothing(tiny: TinyModel, parameters: dict[str, Any]) -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    model = LlamaCpp(tiny.gguf, {"device": "cpu"}, 1)
    model.reserve(8, 1)
    model.prefill([1, 2, 3])
    assert model.next_logits().any()
    assert parameters == {"devices": "none", "offload": (False, False)}
