"""What the model writes: chat prompts continued greedily, one sequence in a batch, nothing of the checkpoint's sampling
defaults applied (`Generates.generate`).

The reference writes after every prompt, and leaves its texts (`quantgate.measure.written`). Each other cell reads them
in one pass and says at every token whether it would have written the same: the divergent token rate of Deiseroth et al.
(arXiv 2311.01544), on the model's own texts. A pass costs a hundredth of writing, and every token counts, where two
free texts have nothing in common after the first that differs. Of the first `written` prompts each cell writes itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from quantgate.backends.base import Stops
from quantgate.backends.tree import TokenSequence
from quantgate.files import hash_of
from quantgate.items import Prompts, common_length
from quantgate.jobs import Needs, PromptRequest
from quantgate.measure.groups import Column, Group, of_blocks, paired
from quantgate.measure.options import InChat
from quantgate.measure.scoring import Look, Scored, score
from quantgate.measure.session import Session
from quantgate.measure.written import Written, check_room, leave, of_texts, read_left, write
from quantgate.records import Declared, Metric, Scalar

NEAR = 0.1
"""Nats by which the reference's token leads the second likeliest where the two are a near tie."""


class Options(InChat):
    """prompts: a file of fixtures/chats, or the user's own. items: how many of them, the first ones. tokens: a text has
    at most so many. written: after how many of the prompts a cell that is no reference writes itself. chat: ask through
    the model's chat template, after the message `system` if there is one."""

    prompts: str = Field(default="everyday", min_length=1)
    items: int = Field(default=24, ge=2)
    tokens: int = Field(default=48, ge=2)
    written: int = Field(default=0, ge=0)
    chat: bool = True

    @field_validator("written")
    @classmethod
    def _none_or_several(cls, count: int) -> int:
        if count == 1:
            raise ValueError("must be 0, or 2 or more: one text alone has no standard error")
        return count


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return, of a cell that is no reference, `generation/agreement`, the share of the tokens of the reference's texts
    that are the cell's likeliest, and `generation/shift`, by how much less likely they are to it (nats per token).

    Of what the cell wrote itself: `generation/length` (tokens, geometric mean), `generation/limit`, the share of texts
    that had no end at `tokens`, `generation/loops`, the share that ends in a loop (`ends_in_loop`), and, if it is no
    reference, `generation/divergence`: the tokens before the first that the reference did not write.
    """
    options = session.options("generation", Options)
    prompts = session.prompts(options.prompts)
    what = f"prompts {options.prompts!r}"
    check_room(session, "generation", prompts.items, options.tokens, what, "take other prompts")
    path = session.left_for("generation")
    conditions: dict[str, Scalar] = {
        "source": session.source_hash,
        "prompts": prompts.name,
        "tokens": prompts.token_hash,
        "chat": prompts.chat,
        "template": prompts.template or None,
        "length": options.tokens,
        **session.attention,
    }
    reference, metrics, count = None, dict[str, Metric](), len(prompts.items)
    if not session.is_reference:
        reference, count = read_left(path, prompts.token_hash), options.written
        conditions["reference"] = session.reference
        metrics = _agreement(session, prompts, reference, {**conditions, "items": len(reference.texts)})
    if not count:
        return metrics

    def progress(number: int, total: int) -> None:
        session.progress(number, total + 1)

    stops = Stops(frozenset(prompts.ends))
    texts = write(session, prompts.items[:count], options.tokens, stops, what, progress)
    conditions["items"] = len(texts)
    metrics |= of_texts("generation", texts, stops, options.tokens, conditions)
    if reference is None:
        leave(path, _with_scores(session, prompts, texts))
    else:
        metrics["generation/divergence"] = _divergence(texts, reference, conditions)
    return metrics


def _scored(
    session: Session, prompts: Prompts, texts: Sequence[Sequence[int]], look: Look | None = None
) -> list[Scored]:
    """Score the texts after their prompts, each in a pass of its own."""
    groups = [[TokenSequence((*p, *t), len(p))] for p, t in zip(prompts.items, texts, strict=False)]
    longest = max(len(group[0].ids) for group in groups)
    scored = score(session.backend, groups, longest, session.progress, look, way="plain")
    return [one for (one,) in scored]


def _with_scores(session: Session, prompts: Prompts, texts: list[list[int]]) -> Written:
    """Return the reference's texts with the log-probability of each token, and how far it led the second."""
    gaps: list[list[float]] = []

    def look(logits: NDArray[np.float32], norm: NDArray[np.float64]) -> None:
        best = np.partition(logits, -2, axis=1)[:, -2:]
        gaps.append((best[:, 1] - best[:, 0]).astype(float).tolist())

    has_logits = hasattr(session.backend, "logits")
    scored = _scored(session, prompts, texts, look if has_logits else None)
    return Written(
        prompts=prompts.token_hash,
        texts=texts,
        logprobs=[one.logprobs.tolist() for one in scored],
        gaps=gaps if has_logits else None,
    )


def _agreement(
    session: Session, prompts: Prompts, reference: Written, conditions: dict[str, Scalar]
) -> dict[str, Metric]:
    """Hold the cell against the reference's texts. The texts are of this run and no condition: a unit is a prompt."""
    scored = _scored(session, prompts, reference.texts)
    sizes = np.array([len(one) for one in scored])
    same = np.array([one.greedy.sum() for one in scored], dtype=float)
    less = np.array([sum(before) - one.total for before, one in zip(reference.logprobs, scored, strict=True)])
    raw = {"texts": hash_of(reference.texts)}
    return {
        "generation/agreement": of_blocks(same, sizes, conditions, unit="fraction", better="higher", raw=raw),
        "generation/shift": of_blocks(less, sizes, conditions, unit="nats"),
    }


def _divergence(texts: list[list[int]], reference: Written, conditions: dict[str, Scalar]) -> Metric:
    """Return how many tokens a text has in common with the reference's before the first that differs; where none does,
    all of them, since what would have followed is not known."""
    lengths = [common_length(a, b) for a, b in zip(texts, reference.texts, strict=False)]
    apart = [n for n, text in enumerate(texts) if lengths[n] < max(len(text), len(reference.texts[n]))]
    near = None
    if reference.gaps is not None:
        near = sum(reference.gaps[n][min(lengths[n], len(reference.gaps[n]) - 1)] < NEAR for n in apart)
    raw = {"apart": len(apart), "near ties": near}
    return paired(lengths, conditions, unit="tokens", better="higher", raw=raw)


GROUP = Group(
    options=Options,
    metrics={
        "generation": Declared("paired"),  # its reproduction: whether all tokens are the baseline's
        "generation/agreement": Declared("paired", held=True),
        "generation/shift": Declared("paired", held=True),
        "generation/length": Declared("paired", "exp"),
        "generation/limit": Declared("paired"),
        "generation/loops": Declared("paired"),
        "generation/divergence": Declared("paired", held=True),
    },
    measure=measure,
    family="quality",
    order=20,  # what is imported and allocated here is in no peak of another group
    relative=True,
    reads_reference=True,
    capabilities=frozenset({"scores", "generates"}),
    needs=lambda options: Needs(
        prompts={
            options.prompts: PromptRequest(items=options.items, chat=options.chat, system=options.system)
        }
    ),
    columns=(
        Column(
            "agreement", "", 1, 5, 1, ("generation/agreement",), ("generation", "generation/*"), percent=True
        ),
    ),
)
