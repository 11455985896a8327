"""Maker of checkpoints that llmcompressor quantizes, in an environment of its own (fixtures/llmcompressor.txt)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantgate.backends.llmcompressor import Options as Recipe
from quantgate.errors import InputError
from quantgate.supply.checkpoints import Report, whole

TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt", "*.model")
BATCH = 4
"""Sequences of a forward pass while calibrating."""


def compress(
    output: Path,
    *,
    report: Report,
    safetensors: str,
    recipe: dict[str, Any],
    threads: int,
    sequences: str | None,
    mean_squares: str | None,
) -> None:
    """Write a folder in the format of compressed-tensors. sequences: of `quantgate.supply.calibration`;
    mean_squares: of the layers' inputs, by which those with more bits are chosen. Raises InputError for a
    group that does not divide a layer."""
    import torch
    import transformers
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.accelerator.is_available():
        # AWQ pins its inputs for the device (llm-compressor's pull request 2813), which torch refuses without one.
        IntermediatesCache.pin_memory = lambda *_: None
    wanted = Recipe.model_validate(recipe)
    torch.set_num_threads(threads)
    report(f"quantize by {wanted.method}", 0, 1)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        safetensors, dtype=getattr(torch, wanted.dtype), local_files_only=True, trust_remote_code=False
    )
    head = model.get_output_embeddings()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
    check_groups(wanted, {n: m.in_features for n, m in layers.items()})
    high: list[str] = []
    if wanted.high:
        from safetensors.torch import load_file

        high = most_sensitive(layers, load_file(str(mean_squares)), wanted)
    data = None
    if sequences is not None:
        rows = torch.tensor(json.loads(Path(sequences).read_bytes()))
        data = torch.utils.data.DataLoader(
            [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in rows], batch_size=BATCH
        )
    oneshot(model=model, dataset=data, recipe=modifiers(wanted, list(layers), high))
    with whole(output, folder=True) as work:
        model.save_pretrained(work, save_compressed=True)
        for file in {f for pattern in TOKENIZER for f in Path(safetensors).glob(pattern)}:
            shutil.copy(file, work)


def check_groups(recipe: Recipe, inputs: dict[str, int]) -> None:
    """Raise InputError for a group that does not divide a layer's inputs."""
    for name, size in inputs.items():
        if recipe.group != "channel" and size % recipe.group:
            fitting = [g for g in (32, 64, 96, 128, 192, 256) if not any(s % g for s in inputs.values())]
            raise InputError(
                f"group = {recipe.group} does not divide the {size} inputs of {name}; what divides all layers: "
                f"{', '.join(map(str, fitting)) or 'channel alone'}"
            )


def most_sensitive(layers: dict[str, Any], mean_squares: dict[str, Any], recipe: Recipe) -> list[str]:
    """The share `high` of the layers whose output rounding to nearest changes most: the sum over weights of
    (error squared times the mean square of the input), as a share of the same sum over the weights
    themselves. It is the objective of GPTQ (equation 1) with inputs taken for uncorrelated."""
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    arguments = _weights(recipe, recipe.bits)
    lost = {}
    for name, layer in layers.items():
        weight, inputs = layer.weight.detach(), mean_squares[name]
        size = weight.shape[1] if recipe.group == "channel" else recipe.group
        groups = weight.unflatten(1, (-1, size))
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), arguments)
        error = (weight - fake_quantize(weight, scale, zero, arguments)).square()
        lost[name] = float((error @ inputs).sum() / (weight.square() @ inputs).sum())
    count = max(1, round(recipe.high * len(layers)))
    return sorted(lost, key=lambda name: -lost[name])[:count]


def modifiers(recipe: Recipe, layers: Sequence[str], high: Sequence[str]) -> list[Any]:
    """What llmcompressor does one after the other. layers: all that are quantized; high: those with more bits."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    inputs = None
    if recipe.activations:
        inputs = QuantizationArgs(
            num_bits=recipe.activations, type="int", symmetric=True, strategy="token", dynamic=True
        )
    parts = {"low": (recipe.bits, [n for n in layers if n not in high]), "high": (recipe.high_bits, high)}
    groups = {
        name: QuantizationScheme(
            targets=list(names), weights=_weights(recipe, bits), input_activations=inputs
        )
        for name, (bits, names) in parts.items()
        if names
    }
    rounding = {"config_groups": groups}
    if recipe.method == "gptq":
        return [GPTQModifier(**rounding)]
    before = {"awq": [AWQModifier], "smoothquant": [SmoothQuantModifier]}.get(recipe.method, [])
    return [*(modifier() for modifier in before), QuantizationModifier(**rounding)]


def _weights(recipe: Recipe, bits: int) -> Any:
    """Symmetric, as llmcompressor's own W4A16 and W8A8 are: transformers 5.23 cannot load the packed zero points of
    compressed-tensors 0.19 (it expects them unpacked)."""
    from compressed_tensors.quantization import QuantizationArgs

    grouped: dict[str, Any] = {"strategy": "channel"}
    if recipe.group != "channel":
        grouped = {"strategy": "group", "group_size": recipe.group}
    return QuantizationArgs(num_bits=bits, type="int", symmetric=True, **grouped)
