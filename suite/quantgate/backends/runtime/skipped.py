"""Whether a library that quantizes while loading has done with each layer what the options ask for: names that match
nothing, or that it matches otherwise than their author meant, it passes over without a word."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.nn import Embedding
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers.quantizers.quantizers_utils import should_convert_module

from quantgate.backends.runtime.loading import configuration_in
from quantgate.backends.runtime.weights import quantized_layers
from quantgate.config.sentences import nearest
from quantgate.errors import MeasurementError

SKIPPED = ("modules_to_not_convert", "llm_int8_skip_modules")
"""Options that are lists of names, or of the ends or patterns of names, of what stays as it is."""
TABLES = ("fqn_to_config", "module_fqn_to_config")
"""Options of torchao that are tables by the names of layers."""
HEAD, TIED = "lm_head", "tie_word_embeddings"


def check_head(checkpoint: Path, settings: Mapping[str, Any], method: str) -> None:
    """Raise MeasurementError where the library would break the head: a list of what stays as it is lacks one that is
    the embedding, of which most make a quantized layer without constants; the embedding takes the place of another
    one."""
    if not settings:
        return
    config = configuration_in(checkpoint)
    tied = any(getattr(part, TIED, False) for part in (config, config.get_text_config()))
    for key in SKIPPED if method != "torchao" else ():
        if tied and (names := settings.get(key)) is not None and should_convert_module(HEAD, names):
            raise MeasurementError(
                f"{key}: takes the place of the library's list, which has the head, and the head of {checkpoint} is "
                f"its embedding: add {HEAD!r} to it"
            )
    if not tied and settings.get("untie_embedding_weights"):
        raise MeasurementError(
            f"untie_embedding_weights: would make the embedding the head of {checkpoint}, which has one: remove it"
        )


def check_layers(model: Any, settings: Mapping[str, Any], method: str) -> None:
    """Raise MeasurementError where an option names a layer that there is not, or that was quantized although it should
    stay, and where embeddings stay that should be quantized. settings: of the method's configuration."""
    names = [name for name, _ in model.named_modules() if name]
    quantized, kind = quantized_layers(model), type(model).__name__
    for key, pattern, means in _named(settings):
        meant = [name for name in names if means(name, pattern)]
        if not meant:
            raise MeasurementError(
                f"{key}: {pattern!r} is the name of no layer of {kind}{_hint(pattern, names)}"
            )
        if key in SKIPPED and (made := [name for name in meant if name in quantized]):
            raise MeasurementError(
                f"{key}: {pattern!r} means {made[0]}, which {method} has quantized all the same: write whole names, or "
                "regular expressions that match them from their beginning"
            )
    embedding = model.get_input_embeddings()
    if (
        settings.get("include_input_output_embeddings")
        and isinstance(embedding, Embedding)
        and not is_traceable_wrapper_subclass(embedding.weight)
    ):
        raise MeasurementError(
            f"include_input_output_embeddings: {method} has left the embeddings of {kind} as they are: remove it, or "
            "give them a configuration of their own (FqnToConfig)"
        )


def _has_that_name(layer: str, pattern: str) -> bool:
    """Return whether a key of torchao's tables names a layer or its weight."""
    whole = (layer, f"{layer}.weight")
    if pattern.startswith("re:"):
        return any(re.fullmatch(pattern.removeprefix("re:"), one) for one in whole)
    return pattern in whole


def _is_meant(name: str, pattern: str) -> bool:
    """Return whether a pattern means a layer, or its weight, by any library's rule: some match names of layers, others
    names of weights."""
    return not all(should_convert_module(one, [pattern]) for one in (name, f"{name}.weight"))


def _named(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Callable[[str, str], bool]]]:
    """Yield each option and name of layers in it, and what says whether that means a layer."""
    for key in SKIPPED:
        yield from ((key, str(pattern), _is_meant) for pattern in settings.get(key) or ())
    quant_type = settings.get("quant_type")
    tables = quant_type if isinstance(quant_type, Mapping) else {}
    for key in TABLES:
        patterns = (str(pattern) for pattern in tables.get(key) or () if pattern != "_default")
        yield from ((f"quant_type.{key}", pattern, _has_that_name) for pattern in patterns)


def _hint(pattern: str, names: list[str]) -> str:
    last = pattern.rpartition(".")[2]
    close = (
        nearest(pattern, names) if "." in pattern else nearest(last, {n.rpartition(".")[2] for n in names})
    )
    return f": did you mean {close!r}?" if close else ""
