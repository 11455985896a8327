"""Loads a causal language model of transformers so that every weight is the checkpoint's, or says which are not."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
)

from quantgate.backends.runtime.weights import numbers, quantized_layers
from quantgate.checkpoint.checks import is_composite, read_json, tensors_of
from quantgate.checkpoint.contents import INDEX, SINGLE, weight_files
from quantgate.checkpoint.heads import is_tied
from quantgate.errors import (
    MeasurementError,
    QuantgateError,
    in_one_line,
    is_out_of_memory,
    says_out_of_memory,
)
from quantgate.words import shortened

NAMED = 12
"""Tensors that a message names at most."""
_CONVERSION = re.compile(r"(\S+)\s*\|\s*CONVERSION")
_ERROR = re.compile(r"\w*(Error|Exception): ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OLD_MASK = re.compile(r"(^|\.)(attn|attention|self_attn|self_attention)\.((masked_)?bias|causal_mask)$")
"""Causal masks and their fill value, which older versions of transformers saved with the weights."""
OTHER_PARTS = re.compile(r"vision|visual|audio|image|speech|multi_modal|multimodal|mm_")
"""Of models that see or hear too: what their language model leaves out."""


def load_model(checkpoint: Path, method: str = "", **arguments: Any) -> Any:
    """Return a model of `from_pretrained`. method: that quantizes it, or has.

    Raises MeasurementError naming the tensors that are missing in the checkpoint, that the model has no place for, that
    have another shape, or that differ from the one they are tied to; or saying why the method fails.

    What the model's class declares ignorable, buffers that follow from the configuration and tied weights that the file
    holds once are no fault: transformers has taken those out of its lists.
    """
    weight_files(checkpoint)  # says which shard is missing
    index = checkpoint / INDEX
    if not (checkpoint / SINGLE).is_file() and "metadata" not in read_json(index):
        raise MeasurementError(
            f'{index}: has no "metadata", which transformers asks for: add "metadata": {{}} to it'
        )
    config = configuration_in(checkpoint)
    if "flash" in str(config._attn_implementation) and not torch.cuda.is_available():
        # Saved by who had a GPU: the library chooses among what there is.
        arguments["attn_implementation"] = None
    with _reported() as lines:
        try:
            model, info = auto_class(checkpoint, config).from_pretrained(
                checkpoint, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
            )
        except QuantgateError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # What fails while tensors are put together is reported alone, as if the checkpoint were at fault.
            if full := next(filter(says_out_of_memory, lines), ""):
                raise MeasurementError(f"{checkpoint}: loading runs out of memory: {full.strip()}") from error
            # The error of a quantizer is in the report; where there is no report, it is the one that was raised.
            unreported = "" if any(lines) else in_one_line(error)
            if method and (cause := next(filter(_ERROR.match, lines), unreported)):
                raise MeasurementError(f"{checkpoint}: quantization by {method} fails: {cause}") from error
            broken = dict.fromkeys(m[1] for line in lines if (m := _CONVERSION.match(line)))
            if not broken:
                raise
            raise MeasurementError(
                f"{checkpoint}: {_named(broken, 'parts are missing or of another shape')}: fetch the checkpoint again"
            ) from error
    misshapen = [f"{name} {_shape(a)}, not {_shape(b)}" for name, a, b in sorted(info["mismatched_keys"])]
    if "quantization_config" in arguments:
        misshapen += _misshapen(model, checkpoint)
    wrong = {
        "missing, and would be random numbers": _missing(model, info["missing_keys"]),
        "unexpected: the model has no place for them": _unexpected(checkpoint, info["unexpected_keys"]),
        "of another shape than the configuration says": misshapen,
        "different from the embeddings they are tied to (tie_word_embeddings)": _untied(model, checkpoint),
    }
    if any(wrong.values()):
        raise MeasurementError(
            f"{checkpoint}: the tensors of this checkpoint are not those of {type(model).__name__}: "
            f"{'; '.join(_named(names, what) for what, names in wrong.items() if names)}. Fetch the checkpoint again, "
            "or correct its config.json"
        )
    for config in (model.config, model.config.get_text_config()):
        config.return_dict = True  # whatever config.json says: tuples have no names
    return model


def auto_class(checkpoint: Path, config: Any) -> Any:
    """Return the class of transformers that loads a checkpoint: that of causal language models, or that of models which
    see or hear too, and are given text alone here. Raises MeasurementError for any other model."""
    # Of an encoder with a decoder a causal class would take the decoder alone.
    has_encoder = getattr(config, "is_encoder_decoder", False)
    if not has_encoder:
        if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
            return AutoModelForCausalLM
        if type(config) in MODEL_FOR_MULTIMODAL_LM_MAPPING:
            return AutoModelForMultimodalLM
    named = ", ".join(getattr(config, "architectures", None) or ()) or "no architecture"
    kind = (
        "an encoder with a decoder"
        if has_encoder
        else f"no language model of transformers {transformers.__version__}"
    )
    raise MeasurementError(
        f"{checkpoint}/config.json: model_type {config.model_type} ({named}) is {kind}: only models that continue a "
        "text from left to right can be measured"
    )


def configuration_in(checkpoint: Path) -> Any:
    """Return a checkpoint's configuration, as an object of transformers."""
    return AutoConfig.from_pretrained(checkpoint, trust_remote_code=False, local_files_only=True)


def check_finite(model: Any, checkpoint: Path) -> None:
    """Raise MeasurementError naming the weights that hold infinities or NaN. Those of packed weights are read from the
    files: a quantizer may hide them."""
    wrong = [name for name, leaf in numbers(model) if not _is_finite(leaf.data)]
    if quantized_layers(model):
        names = set(tensors_of(checkpoint))
        for file in weight_files(checkpoint):
            with safe_open(file, framework="pt") as tensors:
                of_numbers = [n for n in tensors.keys() if f"{n}.absmax" not in names]  # noqa: SIM118
                wrong += [n for n in of_numbers if not _is_finite(tensors.get_tensor(n))]
    if wrong:
        raise MeasurementError(
            f"{checkpoint}: {_named(dict.fromkeys(wrong), 'not finite')}: the numbers of such a model mean nothing; "
            "fetch the checkpoint again, or load it in a format that holds its values (dtype)"
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.element_size() < 2 or not tensor.numel():
        return True
    low, high = tensor.aminmax()  # NaN comes through, and nothing of the tensor's size is made
    return bool(torch.isfinite(low) and torch.isfinite(high))


@contextmanager
def _reported() -> Iterator[list[str]]:
    """Yield the lines of transformers' report on loading: the only place that names what it could not put together."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend(_COLOUR.sub("", record.getMessage()).splitlines())

    logger = logging.getLogger("transformers.modeling_utils")
    handler, level, propagate = Handler(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _misshapen(model: Any, checkpoint: Path) -> list[str]:
    """Name layers whose weights in the file are not inputs times outputs: a quantizer takes them as they come."""
    tensors = tensors_of(checkpoint)
    sizes = {
        f"{name}.weight": {module.in_features, module.out_features}
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    return [
        f"{name} {_shape(tensors[name][3])}, not of {_shape(sorted(size))}"
        for name, size in sizes.items()
        if name in tensors and len(tensors[name][3]) == 2 and {*tensors[name][3]} != size
    ]


def _missing(model: Any, names: Iterable[str]) -> list[str]:
    """Return the names without those of masks, indices and rotary frequencies, which are computed."""
    computed = {
        name
        for name, buffer in model.named_buffers()
        if not buffer.is_floating_point() or name.endswith(("inv_freq", "masked_bias"))
    }
    return sorted(set(names) - computed)


def _unexpected(checkpoint: Path, names: Iterable[str]) -> list[str]:
    ordered = sorted(names)
    if not ordered:
        return []
    tensors = tensors_of(checkpoint)
    parts = is_composite(checkpoint)
    return [
        name
        for name in ordered
        if not (_OLD_MASK.search(name) and _is_mask(tensors[name][3] if name in tensors else []))
        and not (parts and OTHER_PARTS.search(name))
    ]


def _is_mask(shape: list[int]) -> bool:
    return len(shape) < 1 or shape == [1] or (len(shape) == 4 and shape[0] == 1 and shape[2] == shape[3])


def _untied(model: Any, checkpoint: Path) -> list[str]:
    """Name weights that the configuration ties and the file holds twice, different: transformers leaves them untied.

    Of a model that sees or hears too, config.json has to say that they are tied. What transformers takes where it does
    not say is true for each of them (Mistral 3), while some checkpoints have a head of their own.
    """
    if is_composite(checkpoint) and not is_tied(checkpoint):
        return []
    declared = model.get_expanded_tied_weights_keys(all_submodels=True)
    return sorted(set(declared) - set(model.all_tied_weights_keys))


def _named(names: Iterable[str], what: str) -> str:
    return f"{shortened(list(names), NAMED)} ({what})"


def _shape(size: Iterable[int]) -> str:
    return "x".join(map(str, size))
