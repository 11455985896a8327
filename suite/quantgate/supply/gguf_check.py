"""Compare a model that llama.cpp's converter has written with the original: the tokens of some lines, and what both
compute of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from quantgate.backends.tree import TokenSequence, TokenTree, build_tree
from quantgate.errors import AssetError, MeasurementError
from quantgate.supply.encoder import Encoder
from quantgate.supply.lines import HARD_LINES
from quantgate.supply.splitting import encoder_of_gguf

BY_HAND = "make its GGUF in another way, and name that file as `gguf` of the model"
TOKENS = 64
LIMIT = 0.1
"""Nats by which the log-probability of a token may differ on average. llama.cpp's cache of 16 bits makes up to 0.007 on
tiny random models and 0.0014 on SmolLM2-135M; what is left out or fixed (an activation, a scale, a kind of layer) made
0.17 and more."""
ROOM = 2.5
"""Bytes of free memory for each byte of the file; with less, nothing is compared."""


def check_tokenizer(gguf: Path, folder: Path) -> None:
    """Raise AssetError where llama.cpp makes other tokens of a line than the checkpoint's own tokenizer."""
    here, there = encoder_of_gguf(gguf), Encoder(folder, add_bos=False).encode
    other = [line for line in HARD_LINES if here(line) != there(line)]
    if other:
        raise AssetError(
            f"{folder}: llama.cpp makes other tokens than its tokenizer of {len(other)} of {len(HARD_LINES)} lines, of "
            f"{other[0]!r} for one; {BY_HAND}"
        )


def check_computed(gguf: Path, folder: Path) -> None:
    """Raise AssetError where llama.cpp computes another model of an F32 file than transformers does of the folder that
    it was made from.

    A converter writes what it has a key for; what of a configuration it does not ask for is lost without a word.
    """
    if psutil.virtual_memory().available < ROOM * gguf.stat().st_size:
        return
    import torch

    from quantgate.backends.runtime import llamacpp, transformers

    ids = Encoder(folder, add_bos=False).tokenizer("\n".join(HARD_LINES))["input_ids"]
    threads = torch.get_num_threads()
    original = transformers.load(folder, {"device": "cpu", "dtype": "float32"}, threads)
    positions = original.sizes().positions or TOKENS
    tree = build_tree([TokenSequence(tuple(ids[: min(TOKENS, positions)]), 1)])
    expected = _logprobs(original, tree)
    del original
    try:
        converted = llamacpp.load(gguf, {"device": "cpu"}, threads)
    except MeasurementError as error:
        cause = str(error).removeprefix(f"{gguf}: ")
        raise AssetError(f"{folder}: its converter makes a GGUF, and {cause}; {BY_HAND}") from error
    difference = float(np.abs(_logprobs(converted, tree) - expected).mean())
    if difference > LIMIT:
        raise AssetError(
            f"{folder}: llama.cpp computes another model than transformers: the log-probability of a token differs by "
            f"{difference:.2g} nats on average of {len(expected)}; leave its llamacpp cells out, or {BY_HAND}"
        )


def _logprobs(backend: Any, tree: TokenTree) -> NDArray[np.float64]:
    """Return the natural-log probability of each token of the only sequence but the first."""
    from scipy import special

    backend.reserve(tree.length, 1)
    logprobs = special.log_softmax(backend.logits(tree).astype(np.float64), axis=1)
    rows, tokens = np.array(tree.targets[0]).T
    return np.array(logprobs[rows, tokens])
