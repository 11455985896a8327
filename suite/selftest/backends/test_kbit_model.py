"""Models with simulated k-bit weights lose what they should, and say what they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from quantgate.backends.runtime import bitsandbytes, kbit, transformers
from quantgate.backends.runtime.kbit import outlier_dimensions, quantized
from quantgate.backends.runtime.linear import linear_layers
from quantgate.backends.tree import TokenSequence
from quantgate.errors import InputError
from quantgate.measure.scoring import score

from selftest.backends.test_kbit import PLAIN, options, weights
from selftest.tiny import TEXT, TinyModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from selftest.project import Project


# --- a model --------------------------------------------------------------------------------------


def logprobs(backend: Any) -> np.ndarray[Any, Any]:
    ids = backend.tokenize(TEXT)
    windows = [[TokenSequence(tuple(ids[i : i + 128]), 1)] for i in range(0, 512, 128)]
    return np.concatenate([scored.logprobs for (scored,) in score(backend, windows, 128)])


def loaded(tiny: TinyModel, **more: Any) -> Any:
    return kbit.load(tiny.safetensors, {**PLAIN, **more}, 1)


def test_bits_of_a_model_are_those_of_its_weights(tiny: TinyModel) -> None:
    backend = loaded(tiny, bits=3, data_type="int", block=64)
    plain = transformers.load(tiny.safetensors, PLAIN, 1)
    linear = sum(m.weight.numel() for m in linear_layers(plain._model).values())
    size = backend.weights()
    assert linear == 2 * (256 * (256 + 128 + 128 + 256) + 3 * 256 * 512)
    assert 8 * size.bytes == linear * (3 + 16 / 64) + 16 * (size.parameters - linear)
    assert size.parameters == plain.weights().parameters
    assert size.simulated


def test_everything_else_has_16_bits(tiny: TinyModel) -> None:
    backend = loaded(tiny, bits=16)
    assert backend.weights().bits_per_weight == 16
    for parameter in backend._model.parameters():
        assert torch.equal(parameter, parameter.half().float())
    plain = logprobs(transformers.load(tiny.safetensors, PLAIN, 1))
    assert 0 < np.abs(logprobs(backend) - plain).max() < 0.05


@pytest.mark.parametrize("data_type", ["int", "quantile"])
def test_fewer_bits_lose_more(tiny: TinyModel, data_type: str) -> None:
    losses = [-logprobs(loaded(tiny, bits=bits, data_type=data_type)).mean() for bits in (3, 4, 6)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - losses[2] > 0.1


def test_nf4_is_that_of_bitsandbytes(tiny: TinyModel) -> None:
    real = {**PLAIN, "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    theirs = logprobs(bitsandbytes.load(tiny.safetensors, real, 1))
    ours = logprobs(loaded(tiny, bits=4, data_type="nf4", block=64))
    plain = logprobs(transformers.load(tiny.safetensors, PLAIN, 1))
    assert np.abs(ours - theirs).mean() < 0.2 * np.abs(plain - theirs).mean()


# --- outliers -------------------------------------------------------------------------------------

FEEDS: dict[str, Callable[[Any], torch.Tensor]] = {
    "model.layers.0.self_attn.q_proj": lambda m: m.embed_tokens.weight.std(0),
    "model.layers.1.self_attn.v_proj": lambda m: m.layers[0].mlp.down_proj.weight.std(1),
    "model.layers.1.mlp.gate_proj": lambda m: m.layers[1].self_attn.o_proj.weight.std(1),
    "model.layers.1.mlp.up_proj": lambda m: m.layers[1].self_attn.o_proj.weight.std(1),
    "model.layers.0.mlp.down_proj": lambda m: m.layers[0].mlp.up_proj.weight.std(1),
}


@pytest.mark.parametrize("name", FEEDS)
def test_outliers_are_fed_by_the_widest_hidden_units(tiny: TinyModel, name: str) -> None:
    model = transformers.load(tiny.safetensors, PLAIN, 1)._model
    dimensions = outlier_dimensions(model, name, 0.02)
    spread = FEEDS[name](model.model)
    assert len(dimensions) == round(0.02 * len(spread))
    rest = np.delete(np.arange(len(spread)), dimensions.numpy())
    assert spread[dimensions].min() >= spread[rest].max()


def test_values_feed_the_heads_that_share_them(tiny: TinyModel) -> None:
    model = transformers.load(tiny.safetensors, PLAIN, 1)._model
    layer = model.model.layers[0].self_attn
    layer.v_proj.weight.data[64 + 5] *= 100  # of the second of two value heads, which heads 2 and 3 read
    dimensions = outlier_dimensions(model, "model.layers.0.self_attn.o_proj", 2 / 256)
    assert dimensions.tolist() == [2 * 64 + 5, 3 * 64 + 5]


def test_outliers_keep_16_bits_and_leave_their_blocks(tiny: TinyModel) -> None:
    tensor = weights(8, 64)
    tensor[:, 7] = 10.0
    result = quantized(tensor, options(4, block=64), torch.tensor([7]))
    assert (result[:, 7] == 10).all()
    without = torch.cat([tensor[:, :7], torch.zeros(8, 1), tensor[:, 8:]], dim=1)
    rest = torch.arange(64) != 7
    assert torch.equal(result[:, rest], quantized(without, options(4, block=64))[:, rest])
    assert (
        loaded(tiny, bits=4, data_type="int", outliers=0.02).weights().bytes
        > loaded(tiny, bits=4, data_type="int").weights().bytes
    )


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ({"bits": 4}, "without a data_type, weights have 16 bits"),
        (
            {"bits": 16, "outliers": 0.1},
            "outliers does nothing without a data_type: give one, or leave it out",
        ),
        (
            {"bits": 4, "data_type": "int", "as_is": True},
            "its bits are simulated in whatever is loaded, so that nothing is measured as it is",
        ),
        ({"bits": 9, "data_type": "int"}, "the int type has 2 or 3 or 4 or 5 or 6 or 7 or 8 bits"),
        ({"bits": 3, "data_type": "nf4"}, "the nf4 type has 4 bits"),
        ({"bits": 4, "data_type": "int", "block": 0}, "a block has at least one weight"),
        ({"bits": 4, "data_type": "int", "exponent_bits": 2}, "only the float type has exponent_bits"),
        ({"bits": 4, "data_type": "float", "exponent_bits": 4}, "4 bits leave 1 to 3 exponent_bits"),
        (
            {"bits": 4, "data_type": "int", "blocks": 64},
            "kbit scheme: blocks: unknown key. Did you mean 'block'?",
        ),
        (
            {"bits": 4, "data_type": "int4"},
            "kbit scheme: data_type: cannot be 'int4'. Did you mean 'int'? ",
        ),
    ],
)
def test_what_a_scheme_may_not_say(tiny: TinyModel, scheme: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(tiny, **scheme)
    assert message in str(caught.value)


# --- a run ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_claims_neither_memory_nor_speed(project: Project) -> None:
    cell = "tiny/kbit/int4"
    # Its own reference, so that no other cell is measured.
    scheme = {"bits": 4, "dtype": "float32", "data_type": "int", "block": 64, "reference": "kbit/int4"}
    project.matrix["backends"] = {"kbit": {"schemes": {"int4": scheme}}}
    project.matrix["tiers"]["smoke"]["memory"]["processes"] = 1
    project.matrix["tiers"]["timed"]["cells"] = project.matrix["tiers"]["smoke"]["cells"] = [cell]
    result = project.run("--tier", "timed")
    assert result.status == 0, result.output
    assert not [c for c in result.cases if "prefill" in c or "decode" in c]
    metrics = project.measurement(cell, "timed").metrics
    memory = {n: m for n, m in metrics.items() if n.startswith("memory/")}
    assert set(memory) == {"memory/weight_bytes", "memory/bits_per_weight", "memory/quantized_share"}
    assert all(m.conditions["simulated"] is True for m in memory.values())
    assert memory["memory/bits_per_weight"].value < 9
    assert f"perplexity[{cell}]" in result.cases
