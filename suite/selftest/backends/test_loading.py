"""Every weight is the checkpoint's, or the cell says which are not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as library
from quantgate.backends.runtime import bitsandbytes, kbit, transformers
from quantgate.backends.tree import TokenSequence, build_tree
from quantgate.errors import AssetError, InputError, MeasurementError
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    Tensors = dict[str, torch.Tensor]

HERE: dict[str, Any] = {"bits": 32, "dtype": "float32", "device": "cpu"}
NF4 = {**HERE, "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
INT8 = {**HERE, "load_in_8bit": True}
INT4 = {**HERE, "bits": 4, "data_type": "int"}
LLAMA: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
UP = "model.layers.1.mlp.up_proj.weight"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def saved(folder: Path, config: Any, **options: Any) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        library.AutoModelForCausalLM.from_config(config).save_pretrained(folder, **options)
    return folder


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = library.LlamaConfig(**LLAMA, tie_word_embeddings=False)
    return saved(tmp_path_factory.mktemp("untied"), config)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("tied"), library.LlamaConfig(**LLAMA, tie_word_embeddings=True))


def changed(source: Path, folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """A copy of the checkpoint with other tensors."""
    shutil.copytree(source, folder)
    file = folder / "model.safetensors"
    save_file({k: v.contiguous() for k, v in change(load_file(file)).items()}, file, {"format": "pt"})
    return folder


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


def with_(name: str, make: Callable[[Tensors], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: make(tensors)}


def in_place(name: str, value: float) -> Callable[[Tensors], Tensors]:
    def make(tensors: Tensors) -> torch.Tensor:
        tensor = tensors[name].clone()
        tensor.view(-1)[3] = value
        return tensor

    return with_(name, make)


SCHEMES = pytest.mark.parametrize(
    ("backend", "options"), [(transformers, HERE), (bitsandbytes, NF4), (bitsandbytes, INT8)]
)


@SCHEMES
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(HEAD), r"lm_head\.weight \(missing, and would be random"),
        (
            lambda tensors: {("x." + k if ".layers.1." in k else k): v for k, v in tensors.items()},
            r"model\.layers\.1\.mlp\.up_proj\.weight, .*missing.*x\.model\.layers\.1\..*unexpected",
        ),
        (
            with_(UP, lambda tensors: torch.zeros(100, 64)),
            r"model\.layers\.1\.mlp\.up_proj\.weight 100x64, not",
        ),
        (with_("model.extra.weight", lambda tensors: torch.zeros(2)), r"model\.extra\.weight \(unexpected"),
        (in_place(UP, float("inf")), rf"{re.escape(UP)} \(not finite\)"),
        (in_place(UP, float("nan")), rf"{re.escape(UP)} \(not finite\)"),
    ],
    ids=["no head", "layer renamed", "shape", "unexpected", "infinite", "NaN"],
)
def test_a_weight_that_is_not_the_checkpoints_is_named(
    untied: Path, tmp_path: Path, backend: Any, options: dict[str, Any], change: Any, message: str
) -> None:
    folder = changed(untied, tmp_path / "changed", change)
    with pytest.raises(MeasurementError, match=message) as caught:
        backend.load(folder, options, 1)
    assert str(caught.value).startswith(str(folder))


def test_a_dozen_names_are_enough(untied: Path, tmp_path: Path) -> None:
    many = {f"model.x{number:02}.weight": torch.zeros(1) for number in range(20)}
    folder = changed(untied, tmp_path / "many", lambda tensors: {**tensors, **many})
    with pytest.raises(MeasurementError, match=r"model\.x11\.weight and 8 more \(unexpected"):
        transformers.load(folder, HERE, 1)


def test_a_value_that_the_scheme_cannot_hold_is_named(untied: Path, tmp_path: Path) -> None:
    folder = changed(untied, tmp_path / "large", in_place(UP, 1e5))
    transformers.load(folder, HERE, 1)
    with pytest.raises(MeasurementError, match=re.escape(f"{UP} (not finite)")):
        transformers.load(folder, {**HERE, "dtype": "float16"}, 1)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "sharded", library.LlamaConfig(**LLAMA), max_shard_size="50KB")
    transformers.load(folder, HERE, 1)
    index = folder / "model.safetensors.index.json"
    table = json.loads(index.read_bytes())
    index.write_text(json.dumps({"weight_map": table["weight_map"]}))
    with pytest.raises(MeasurementError, match=r'index\.json: has no "metadata", .* add "metadata": \{\}'):
        transformers.load(folder, HERE, 1)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(AssetError, match=re.escape(shard.name)):
        transformers.load(folder, HERE, 1)


def test_an_expert_that_is_missing_is_named(tmp_path: Path) -> None:
    config = library.MixtralConfig(**LLAMA, num_local_experts=4, num_experts_per_tok=2)
    whole = saved(tmp_path / "whole", config)
    one = next(name for name in load_file(whole / "model.safetensors") if "experts.2" in name)
    with pytest.raises(MeasurementError, match=r"model\.layers\.0\.mlp\.experts\.gate_up_proj"):
        transformers.load(changed(whole, tmp_path / "partial", without(one)), HERE, 1)


@SCHEMES
def test_a_tied_head_that_differs_is_refused(
    tied: Path, tmp_path: Path, backend: Any, options: dict[str, Any]
) -> None:
    folder = changed(tied, tmp_path / "other", with_(HEAD, lambda tensors: tensors[EMBEDDING] + 1))
    with pytest.raises(MeasurementError, match=r"lm_head\.weight \(different from the embeddings"):
        backend.load(folder, options, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors,
        with_(HEAD, lambda tensors: tensors[EMBEDDING].clone()),
        lambda tensors: {**without(EMBEDDING)(tensors), HEAD: tensors[EMBEDDING].clone()},
        with_("model.layers.0.self_attn.rotary_emb.inv_freq", lambda tensors: torch.zeros(8)),
    ],
    ids=["as saved", "the same head", "the head alone", "rotary frequencies"],
)
def test_what_is_no_fault_of_a_checkpoint_loads(tied: Path, tmp_path: Path, change: Any) -> None:
    plain = transformers.load(tied, HERE, 1)
    model = transformers.load(changed(tied, tmp_path / "same", change), HERE, 1)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(plain._model(ids).logits, model._model(ids).logits)


def test_masks_that_older_versions_saved_are_no_fault(tmp_path: Path) -> None:
    whole = saved(tmp_path / "gpt-j", gpt2())
    old = {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    old["h.0.attn.causal_mask"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)  # CodeGen's
    transformers.load(changed(whole, tmp_path / "old", lambda t: {**t, **old}), HERE, 1)


def test_layers_that_the_class_declares_to_leave_out_are_no_fault(tmp_path: Path) -> None:
    """Multi-token prediction: GPT-NeoX declares its old masks, DeepSeek the layer after its last."""
    config = library.GPTNeoXConfig(**{k: v for k, v in LLAMA.items() if "key_value" not in k})
    whole = saved(tmp_path / "neox", config)
    declared = with_("gpt_neox.layers.0.attention.bias", lambda tensors: torch.ones(3, 7))
    transformers.load(changed(whole, tmp_path / "declared", declared), HERE, 1)


@pytest.mark.parametrize("asked", [{"return_dict": False}, {"attn_implementation": "flash_attention_2"}])
def test_what_a_configuration_asks_of_the_library_changes_nothing(
    tied: Path, tmp_path: Path, asked: dict[str, object]
) -> None:
    """Tuples have no names; and a checkpoint that was saved where there was a GPU is loaded where there is none."""
    folder = shutil.copytree(tied, tmp_path / "asked")
    table = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**table, **asked}))
    tree = build_tree([TokenSequence((1, 2, 3, 4), 1)])
    other, plain = (transformers.load(one, HERE, 1).logits(tree) for one in (folder, tied))
    assert (other == plain).all()


def gpt2() -> Any:
    return library.GPT2Config(
        vocab_size=64, n_embd=64, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0
    )


def test_only_files_that_are_loaded_count(tied: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tied, tmp_path / "more")
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    size = (folder / "model.safetensors").stat().st_size
    assert transformers.load(folder, HERE, 1).weights().file_bytes == size


# --- quantized already, adapters -----------------------------------------------------------------------


def test_a_quantized_checkpoint_is_measured_as_what_it_is_alone(tied: Path, tmp_path: Path) -> None:
    model = library.AutoModelForCausalLM.from_pretrained(
        tied, quantization_config=library.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    )
    model.save_pretrained(tmp_path / "nf4")
    for backend, options in ((transformers, HERE), (bitsandbytes, INT8), (kbit, INT4)):
        with pytest.raises(InputError, match=r"already quantized \(bitsandbytes, 4 bits, nf4\)"):
            backend.load(tmp_path / "nf4", options, 1)
    with pytest.raises(InputError, match="already quantized"):
        bitsandbytes.load(tmp_path / "nf4", {**NF4, "bnb_4bit_quant_type": "fp4"}, 1)
    assert bitsandbytes.load(tmp_path / "nf4", NF4, 1).weights().quantized_share == 1.0


def test_an_adapter_is_refused(tied: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tied, tmp_path / "adapted")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(InputError, match="merge it into the model"):
        transformers.load(folder, HERE, 1)
