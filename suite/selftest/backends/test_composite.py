"""Models that see too are measured as what reads text in them; what reads no text from left to right is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as library
from quantgate.backends.runtime import bitsandbytes, transformers
from quantgate.backends.tree import TokenSequence, build_tree
from quantgate.checkpoint.heads import is_tied
from quantgate.errors import MeasurementError
from quantgate.measure.scoring import score_trees

HERE: dict[str, Any] = {"bits": 32, "dtype": "float32", "device": "cpu"}
TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
SIGHT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "patch_size": 16,
}
PICTURE: dict[str, Any] = {**SIGHT, "num_hidden_layers": 1, "image_size": 32}
IDS = list(range(7, 40))


def llava() -> Any:
    return library.LlavaConfig(
        text_config={"model_type": "llama", **TEXT},
        vision_config={"model_type": "clip_vision_model", **PICTURE},
        image_token_index=5,
    )


def mistral3() -> Any:
    return library.Mistral3Config(
        text_config={"model_type": "mistral", "head_dim": 8, **TEXT},
        vision_config={"model_type": "pixtral", "head_dim": 16, **PICTURE},
        image_token_index=5,
        tie_word_embeddings=False,
    )


def qwen2_5_vl() -> Any:
    rotary = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    return library.Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": rotary},
        vision_config={
            "depth": 1,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
            **SIGHT,
        },
        image_token_id=5,
    )


def saved(folder: Path, config: Any) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        library.AutoModelForMultimodalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("make", [llava, mistral3, qwen2_5_vl])
def test_texts_are_scored_as_the_model_scores_them(tmp_path: Path, make: Any) -> None:
    folder = saved(tmp_path / "m", make())
    backend = transformers.load(folder, HERE, 1)
    texts = [TokenSequence((*IDS[:20], *end), 20) for end in (IDS[20:24], IDS[30:33])]
    scored = score_trees(backend, [build_tree(texts, 0)])
    model = library.AutoModelForMultimodalLM.from_pretrained(folder).eval()
    for text, one in zip(texts, scored, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([text.ids])).logits[0].double().log_softmax(-1)
        right = logits[text.start - 1 : -1].gather(1, torch.tensor(text.ids[text.start :])[:, None])[:, 0]
        np.testing.assert_allclose(one.logprobs, right.numpy(), atol=1e-4)
    assert float(np.std(right.numpy())) > 0.1  # the tokens differ enough for a mistake to be seen


def test_what_sees_says_nothing_of_the_length_of_texts(tmp_path: Path) -> None:
    """CLIP has a vector for each place in a picture; the text's positions are rotary."""
    backend = transformers.load(saved(tmp_path / "m", llava()), HERE, 1)
    assert (backend.sizes().positions, backend.sizes().learned) == (128, False)
    assert backend.lengths() == [128]


def test_both_parts_are_quantized(tmp_path: Path) -> None:
    backend = bitsandbytes.load(
        saved(tmp_path / "m", llava()), {**HERE, "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, 1
    )
    weights = backend.weights()
    of_text = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
    assert weights.linear == weights.in_scheme > of_text


@pytest.mark.parametrize(("stated", "loads"), [(None, True), (False, True), (True, False)])
def test_a_head_of_its_own_beside_embeddings(tmp_path: Path, stated: bool | None, loads: bool) -> None:
    """transformers takes the head of every Mistral 3 for tied where its config.json does not say."""
    folder = saved(tmp_path / "m", mistral3())
    file = folder / "config.json"
    config = json.loads(file.read_bytes())
    for part in (config, config["text_config"]):
        part.pop("tie_word_embeddings", None)
    file.write_text(json.dumps({**config, **({} if stated is None else {"tie_word_embeddings": stated})}))
    assert is_tied(folder) is stated
    if not loads:
        with pytest.raises(MeasurementError, match="different from the embeddings they are tied to"):
            transformers.load(folder, HERE, 1)
        return
    head = transformers.load(folder, HERE, 1)._model.get_output_embeddings().weight
    embeddings = library.AutoModelForMultimodalLM.from_pretrained(folder).get_input_embeddings().weight
    assert not torch.equal(head, embeddings)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (
            library.T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4),
            "an encoder with",
        ),
        (
            library.BartConfig(vocab_size=64, d_model=32, encoder_layers=1, decoder_layers=1),
            "an encoder with",  # transformers has a causal class for it, which leaves out the encoder
        ),
        (library.CLIPTextConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1), "no language model of"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, config: Any, why: str) -> None:
    with torch.random.fork_rng(devices=[]):
        library.AutoModel.from_config(config).save_pretrained(tmp_path / "m")
    with pytest.raises(
        MeasurementError, match=rf"config\.json: model_type {config.model_type} \(\w+\) is {why}"
    ):
        transformers.load(tmp_path / "m", HERE, 1)
