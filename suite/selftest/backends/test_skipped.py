"""What a scheme says of single layers is done, or refused: libraries pass over names that match nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers as library
from quantgate.backends.runtime import bitsandbytes, transformers
from quantgate.errors import InputError, MeasurementError

from selftest.backends.test_loading import LLAMA, saved
from selftest.backends.test_quantized import IDS, QUANTO, TORCHAO, torchao

HERE: dict[str, Any] = {"bits": 8, "dtype": "float32", "device": "cpu"}
INT8, NF4 = {**HERE, "load_in_8bit": True}, {**HERE, "bits": 4, "load_in_4bit": True}
SKIP, KEEP = "llm_int8_skip_modules", "modules_to_not_convert"
DOWN = 128 * 64 / (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
"""Of the weights of a layer, the share of `down_proj`."""


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(
        tmp_path_factory.mktemp("tied") / "m", library.LlamaConfig(**LLAMA, tie_word_embeddings=True)
    )


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = library.LlamaConfig(**{**LLAMA, "tie_word_embeddings": False})
    return saved(tmp_path_factory.mktemp("untied") / "m", config)


def int8(**more: Any) -> dict[str, Any]:
    return torchao("Int8WeightOnlyConfig") | {
        "quantization": {"method": "torchao", "quant_type": "Int8WeightOnlyConfig", **more}
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {**INT8, SKIP: ["dwn_proj"]},
            f"{SKIP}: 'dwn_proj' is the name of no layer of .*: did you mean 'down_proj'",
        ),
        ({**INT8, SKIP: ["model.layers.0.mlp.dwn_proj"]}, "did you mean 'model.layers.0.mlp.down_proj'"),
        (
            {**NF4, SKIP: ["down_proj.weight"]},
            "means .*down_proj, which bitsandbytes has quantized all the same",
        ),
        pytest.param(
            int8(**{KEEP: ["dwn_proj"]}), f"{KEEP}: 'dwn_proj' is the name of no layer", marks=TORCHAO
        ),
        pytest.param(
            int8(**{KEEP: ["down_proj"]}),
            r"'down_proj' means model\.layers\.0\.mlp\.down_proj, which torchao has quantized all the same: write",
            marks=TORCHAO,
        ),
        pytest.param(
            int8(include_input_output_embeddings=True), "has left the embeddings of .* as they", marks=TORCHAO
        ),
        pytest.param(
            int8(untie_embedding_weights=True), "would make the embedding the head of", marks=TORCHAO
        ),
    ],
)
def test_what_would_be_passed_over_is_refused(untied: Path, options: dict[str, Any], message: str) -> None:
    backend = transformers if "quantization" in options else bitsandbytes
    with pytest.raises(MeasurementError, match=message):
        backend.load(untied, options, 1)


@TORCHAO
def test_a_layer_of_a_table_that_there_is_not_is_refused(untied: Path) -> None:
    row = {"type": "Int8WeightOnlyConfig"}
    table = {"model.layers.0.mlp.down_proj": row, "re:model.layers.1.mlp.(up|gate)_proj": row}

    def load(table: dict[str, Any]) -> Any:
        return transformers.load(untied, torchao({"type": "FqnToConfig", "fqn_to_config": table}), 1)

    assert load(table).weights().quantized_share == pytest.approx(1.5 * DOWN)
    for name in ("model.layers.0.mlp.dwn_proj", "re:model.layers.1.mlp.(p|gte)_proj"):
        with pytest.raises(MeasurementError, match=r"fqn_to_config: .* is the name of no layer of Llama"):
            load({**table, name: row})


@pytest.mark.parametrize(
    "options",
    [
        {**INT8, SKIP: ["down_proj", "lm_head"]},
        pytest.param(int8(**{KEEP: ["model.layers.*.down_proj", "lm_head"]}), marks=TORCHAO),
        pytest.param(int8(**{KEEP: ["down_proj.weight", "lm_head"]}), marks=TORCHAO),
        pytest.param(
            {**HERE, "quantization": {"method": "quanto", "weights": "int8", KEEP: ["down_proj", "lm_head"]}},
            marks=QUANTO,
        ),
    ],
    ids=["bitsandbytes", "torchao", "torchao, weights", "quanto"],
)
def test_layers_that_shall_stay_stay(tied: Path, options: dict[str, Any]) -> None:
    backend = transformers if "quantization" in options else bitsandbytes
    weights = backend.load(tied, options, 1).weights()
    assert weights.quantized_share == pytest.approx(1 - DOWN)
    assert not weights.says


@pytest.mark.parametrize(
    "options",
    [
        {**INT8, SKIP: ["down_proj"]},
        {**NF4, SKIP: []},
        pytest.param(
            {**HERE, "quantization": {"method": "quanto", "weights": "int8", KEEP: []}}, marks=QUANTO
        ),
    ],
)
def test_a_list_without_the_head_is_refused_where_it_is_the_embedding(
    tied: Path, untied: Path, options: dict[str, Any]
) -> None:
    """Elsewhere the head is quantized, which is said."""
    backend = transformers if "quantization" in options else bitsandbytes
    with pytest.raises(MeasurementError, match="its embedding: add 'lm_head' to it"):
        backend.load(tied, options, 1)
    assert backend.load(untied, options, 1).weights().says == "the head is quantized, too"


@pytest.mark.parametrize("storage", ["float16", "bfloat16", "float32"])
def test_bits_that_are_packed_into_floats_are_those_packed_into_bytes(
    tied: Path, tmp_path: Path, storage: str
) -> None:
    plain = bitsandbytes.load(tied, NF4, 1)
    packed = bitsandbytes.load(tied, {**NF4, "bnb_4bit_quant_storage": storage}, 1)
    assert packed.weights() == plain.weights()
    # Before a pass, which packs anew where there is AVX-512.
    packed._model.save_pretrained(tmp_path / "saved")
    logits = plain._model(IDS).logits
    assert (packed._model(IDS).logits == logits).all()
    as_is = {**NF4, "as_is": True}
    stored = bitsandbytes.load(tmp_path / "saved", as_is, 1)
    assert (stored.weights().bytes, stored.weights().quantized_share) == (plain.weights().bytes, 1.0)
    assert (stored._model(IDS).logits == logits).all()
    with pytest.raises(
        InputError, match=f'bnb_4bit_quant_storage: is "{storage}", and the scheme says "uint8"'
    ):
        bitsandbytes.load(tmp_path / "saved", {**as_is, "bnb_4bit_quant_storage": "uint8"}, 1)


def test_a_scheme_says_nothing_else_than_the_checkpoint_that_is_loaded_as_it_is(
    tied: Path, tmp_path: Path
) -> None:
    made = bitsandbytes.load(tied, {**INT8, "llm_int8_threshold": 3}, 1)
    made._model.save_pretrained(tmp_path / "saved")
    as_is = {**INT8, "as_is": True}
    for options in (as_is, {**as_is, "llm_int8_threshold": 3}):
        assert bitsandbytes.load(tmp_path / "saved", options, 1).weights().quantized_share == 1.0
    for options, message in (
        (
            {"llm_int8_threshold": 6.0},
            r"llm_int8_threshold: is 3\.0, and the scheme says 6\.0: the library goes by",
        ),
        ({SKIP: ["down_proj"]}, rf"{SKIP}: is null, and the scheme says \[\"down_proj\"\]"),
    ):
        with pytest.raises(InputError, match=message):
            bitsandbytes.load(tmp_path / "saved", {**as_is, **options}, 1)


def test_a_whole_number_stands_for_one_with_a_point(tied: Path) -> None:
    method = {
        **HERE,
        "quantization": {"method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 4},
    }
    for backend, options in ((bitsandbytes, {**INT8, "llm_int8_threshold": 4}), (transformers, method)):
        model = backend.load(tied, options, 1)
        assert model._model.config.quantization_config.llm_int8_threshold == 4.0
