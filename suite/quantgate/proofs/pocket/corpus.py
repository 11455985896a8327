"""Text of the pocket models: training documents, none of which shares a run of words with the held-out text; tokens."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantgate.config.matrix import MATRIX
from quantgate.errors import AssetError, InputError
from quantgate.files import hash_of, replacing
from quantgate.machine.environment import Environment
from quantgate.paths import RESULTS
from quantgate.processes.progress import ignore_progress
from quantgate.proofs.pocket.bpe import END, train_tokenizer
from quantgate.proofs.pocket.plan import Part, Plan
from quantgate.supply.assets import fetch, load_assets
from quantgate.supply.encoder import read_text
from quantgate.supply.maker import Maker
from quantgate.supply.sources import ASSETS, Sources

RUN = 13
"""Words in a row that no training document shares with the held-out text, as in Brown et al., Language Models are
Few-Shot Learners (2020), appendix C."""
TIME_LIMIT = 600.0
"""Seconds."""
PARAGRAPH = 40
"""Characters below which a piece of a document is a heading or a number, and is left out."""


@dataclass(frozen=True)
class Tokens:
    """tokenizer: a `tokenizers.Tokenizer`. train, heldout: token ids, documents one after the other."""

    tokenizer: Any
    train: NDArray[np.uint16]
    heldout: NDArray[np.uint16]


def load_tokens(plan: Plan, work: Path, say: Callable[[str], None]) -> Tokens:
    """Tokens of the plan's texts; made once and kept below `work`. Raises AssetError, InputError."""
    import tokenizers

    key = hash_of([plan.vocabulary, plan.heldout.text, {k: v.model_dump() for k, v in plan.corpus.items()}])
    files = {name: work / f"{name}-{key}" for name in ("tokenizer.json", "train.npy", "heldout.npy")}
    if not all(file.exists() for file in files.values()):
        heldout = heldout_text(plan)
        documents = disjoint(training_documents(plan, say), heldout)
        say(f"{len(documents):,} documents, {sum(map(len, documents)):,} characters share nothing with it")
        tokenizer = train_tokenizer(documents, plan.vocabulary)
        _write(files["train.npy"], encode(tokenizer, documents))
        _write(files["heldout.npy"], encode(tokenizer, [heldout]))
        with replacing(files["tokenizer.json"]) as file:
            file.write(tokenizer.to_str().encode())
    tokens = Tokens(
        tokenizers.Tokenizer.from_file(str(files["tokenizer.json"])),
        np.load(files["train.npy"]),
        np.load(files["heldout.npy"])[: plan.heldout.tokens],
    )
    if len(tokens.heldout) < plan.heldout.tokens:
        raise InputError(f"the held-out text has {len(tokens.heldout)} tokens, not {plan.heldout.tokens}")
    return tokens


def training_documents(plan: Plan, say: Callable[[str], None]) -> list[str]:
    """Every document of the corpus once, in the order of the file."""
    assets = load_assets(ASSETS)
    unique: dict[str, None] = {}
    for name, part in plan.corpus.items():
        documents = dict.fromkeys(read_documents(fetch(part.asset, assets) / part.file, part))
        say(f"{name}: {len(documents):,} documents, {sum(map(len, documents)):,} characters")
        unique.update(documents)
    return list(unique)


def read_documents(path: Path, part: Part) -> Iterator[str]:
    """The text of each line; pieces of nested lists are paragraphs. Raises AssetError for a line without it."""
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as file
    ):
        for number, line in enumerate(file, start=1):
            value = json.loads(line)
            for key in part.text:
                if not isinstance(value, dict) or key not in value:
                    raise AssetError(f"{path}: line {number} has no {'.'.join(part.text)}")
                value = value[key]
            if text := "\n".join(piece for piece in _pieces(value) if len(piece) >= PARAGRAPH):
                yield text


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.strip()
    elif isinstance(value, list):
        for one in value:
            yield from _pieces(one)


def heldout_text(plan: Plan) -> str:
    """As every model of the suite is measured on it."""
    return read_text(Sources(MATRIX, None, new_maker()).text(plan.heldout.text))


def new_maker() -> Maker:
    """Makes what the cache holds, in processes of this environment."""
    return Maker((RESULTS / "logs").absolute(), TIME_LIMIT, ignore_progress, Environment())


def disjoint(documents: Iterable[str], heldout: str) -> list[str]:
    """The documents that have no run of `RUN` words in common with the held-out text."""
    forbidden = set(_runs(heldout))
    return [d for d in documents if forbidden.isdisjoint(_runs(d))]


def _runs(text: str) -> Iterator[str]:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return (" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1))


def encode(tokenizer: Any, documents: Sequence[str]) -> NDArray[np.uint16]:
    """Ids of all documents, each after an `END`."""
    end = tokenizer.token_to_id(END)
    pieces = [[end, *encoding.ids] for encoding in tokenizer.encode_batch_fast(list(documents))]
    return np.concatenate([np.array(ids, dtype=np.uint16) for ids in pieces])


def _write(path: Path, ids: NDArray[np.uint16]) -> None:
    with replacing(path) as file:
        np.save(file, ids, allow_pickle=False)
