"""What is measured of texts: by hand on a model of bigrams, whose greedy texts and probabilities are exact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.errors import UnmeasurableError
from quantgate.items import Prompts
from quantgate.jobs import Needs, PromptRequest
from quantgate.measure.metrics import generation
from quantgate.measure.written import read_left

from selftest.measure.fakes import VOCABULARY, Bigrams, Here

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantgate.records import Metric

PROMPTS = [[1, 2], [3], [4, 5, 6], [6, 1]]
LIMIT = 5
END = 0


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    here = Here(tmp_path)
    prompts = Prompts(name="mine", chat=True, template="t", ends=[END], items=PROMPTS, token_hash="h")
    here.write("prompts-mine.json", prompts.model_dump_json())
    return here


def measured(here: Here, model: Bigrams, *, reference: bool = False, **options: Any) -> dict[str, Metric]:
    here.backend = model
    here.job = {
        "requests": ["generation"],
        "reference": "tiny/fake/f" if reference else "tiny/fake/reference",
        "left": {"generation": here.folder / "left" / "r"},
    }
    return here.measure(generation, prompts="mine", tokens=LIMIT, **options)


def chain(successors: dict[int, int]) -> Bigrams:
    """A model that writes these successors, and after any other token the end."""
    model = Bigrams()
    model.table = np.random.default_rng(1).normal(0, 0.1, (VOCABULARY, VOCABULARY)).astype(np.float32)
    for token in range(VOCABULARY):
        model.table[token, successors.get(token, END)] = 3.0
    return model


def texts_by_hand(model: Bigrams) -> list[list[int]]:
    texts = []
    for prompt in PROMPTS:
        text: list[int] = []
        token = prompt[-1]
        while len(text) < LIMIT and END not in text:
            token = int(model.table[token].argmax())
            text.append(token)
        texts.append(text)
    return texts


REFERENCE = {1: 2, 2: 3, 3: 4, 4: 5, 6: 6}


def test_a_reference_writes_and_leaves_its_texts(asked: Here) -> None:
    model = chain(REFERENCE)
    metrics = measured(asked, model, reference=True)
    texts = texts_by_hand(model)
    assert texts == [[3, 4, 5, 0], [4, 5, 0], [6, 6, 6, 6, 6], [2, 3, 4, 5, 0]]
    assert metrics["generation/length"].raw["ids"] == texts
    assert metrics["generation/length"].value == pytest.approx((4 * 3 * 5 * 5) ** 0.25)
    assert metrics["generation/limit"].samples == [0.0, 0.0, 1.0, 0.0], "the last ends with its last token"
    assert metrics["generation/loops"].samples == [0.0] * 4
    assert metrics.keys() == {f"generation/{name}" for name in ("length", "limit", "loops")}
    left = read_left(asked.folder / "left" / "r", "h")
    assert left.texts == texts
    by_hand = [model.logprob(3, 4), model.logprob(4, 5), model.logprob(5, 0)]
    assert left.logprobs[1] == pytest.approx(by_hand, abs=1e-6)
    two = sorted(model.table[3])[-2:]
    assert left.gaps is not None
    assert left.gaps[1][0] == pytest.approx(two[1] - two[0], abs=1e-6)


def test_a_cell_reads_the_references_texts_in_one_pass_each(asked: Here) -> None:
    reference, cell = chain(REFERENCE), chain({**REFERENCE, 4: 1})
    measured(asked, reference, reference=True)
    metrics = measured(asked, cell)
    agreement, shift = metrics["generation/agreement"], metrics["generation/shift"]
    texts = texts_by_hand(reference)
    same = [[(a, b) != (4, 5) for a, b in pairs(p, t)] for p, t in zip(PROMPTS, texts, strict=True)]
    assert agreement.samples == pytest.approx([sum(s) / len(s) for s in same])
    assert agreement.samples == pytest.approx([3 / 4, 2 / 3, 1.0, 4 / 5])
    assert agreement.weights == [4.0, 3.0, 5.0, 5.0]
    assert agreement.value == pytest.approx(14 / 17)
    less = [
        sum(reference.logprob(a, b) - cell.logprob(a, b) for a, b in pairs(p, t))
        for p, t in zip(PROMPTS, texts, strict=True)
    ]
    assert shift.value == pytest.approx(sum(less) / 17, abs=1e-6)
    assert [(len(tree.ids), tree.is_chain) for tree in cell.trees] == [
        (5, True),
        (3, True),
        (7, True),
        (6, True),
    ]
    assert metrics.keys() == {"generation/agreement", "generation/shift"}
    assert not [call for call in cell.calls if call[0] == "prefill"], "it writes nothing itself"
    assert agreement.conditions["reference"] == "tiny/fake/reference"


def pairs(prompt: Sequence[int], text: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip([prompt[-1], *text[:-1]], text, strict=True))


def test_the_same_model_agrees_with_itself(asked: Here) -> None:
    measured(asked, chain(REFERENCE), reference=True)
    metrics = measured(asked, chain(REFERENCE), written=4)
    assert metrics["generation/agreement"].value == 1
    assert metrics["generation/shift"].value == pytest.approx(0, abs=1e-9)
    assert metrics["generation/divergence"].samples == [4.0, 3.0, 5.0, 5.0]
    assert metrics["generation/divergence"].raw == {"apart": 0, "near ties": 0}


def test_texts_of_a_cell_part_where_it_writes_another_token(asked: Here) -> None:
    reference = chain(REFERENCE)
    reference.table[4, 1] = 2.95  # a near tie: the cell writes 1 after 4
    measured(asked, reference, reference=True)
    metrics = measured(asked, chain({**REFERENCE, 4: 1}), written=3)
    assert metrics["generation/length"].raw["ids"] == [[3, 4, 1, 2, 3], [4, 1, 2, 3, 4], [6, 6, 6, 6, 6]]
    divergence = metrics["generation/divergence"]
    assert divergence.samples == [2.0, 1.0, 5.0]
    assert divergence.raw == {"apart": 2, "near ties": 2}
    assert metrics["generation/limit"].value == 1
    assert metrics["generation/length"].conditions["items"] == 3
    assert metrics["generation/agreement"].conditions["items"] == 4


def test_prompts_that_lead_to_one_text_have_gaps_of_their_own(asked: Here) -> None:
    prompts = Prompts(
        name="mine", chat=False, template="", ends=[END], items=[[1, 2], [1, 2, 3], [6]], token_hash="h"
    )
    asked.write("prompts-mine.json", prompts.model_dump_json())
    reference = chain(REFERENCE)
    reference.table[6, 1] = 2.95  # a near tie, in the last text alone
    measured(asked, reference, reference=True)
    left = read_left(asked.folder / "left" / "r", "h")
    assert left.texts == [[3, 4, 5, 0], [4, 5, 0], [6] * 5]
    assert left.gaps is not None
    assert [len(gaps) for gaps in left.gaps] == [4, 3, 5]
    metrics = measured(asked, chain({**REFERENCE, 6: 1}), written=3)
    assert metrics["generation/divergence"].raw == {"apart": 1, "near ties": 1}


def test_a_loop_counts_without_the_end(asked: Here) -> None:
    asked.write(
        "prompts-mine.json",
        Prompts(
            name="mine", chat=True, template="t", ends=[END], items=[[6], [1]], token_hash="h"
        ).model_dump_json(),
    )
    asked.backend = chain({6: 6})
    asked.job = {
        "requests": ["generation"], "reference": "tiny/fake/f", "left": {"generation": asked.folder / "left/r"},
    }  # fmt: skip
    metrics = asked.measure(generation, prompts="mine", tokens=20)
    assert metrics["generation/loops"].samples == [1.0, 0.0]


def test_a_text_beyond_the_positions_is_no_loss_of_other_groups(asked: Here) -> None:
    from quantgate.backends.base import Sizes

    class Short(Bigrams):
        def sizes(self) -> Sizes:
            return Sizes(vocabulary=VOCABULARY, positions=7)

    message = "^prompts 'mine': .* 7 positions, .* has 3 tokens .*: set tokens .* to 4 at the most"
    with pytest.raises(UnmeasurableError, match=message):
        measured(asked, Short(), reference=True)


def test_prompts_may_be_asked_without_a_template(asked: Here) -> None:
    prompts = Prompts(name="mine", chat=False, template="", ends=[], items=PROMPTS, token_hash="h")
    asked.write("prompts-mine.json", prompts.model_dump_json())
    asked.backend = chain(REFERENCE)
    asked.job = {
        "requests": ["generation"], "reference": "tiny/fake/f", "left": {"generation": asked.folder / "left/r"},
    }  # fmt: skip
    asked.options = {"generation": {"prompts": "mine", "tokens": LIMIT, "chat": False}}
    session = asked.session()
    metrics = generation.measure(session, [])
    assert "names no end-of-sequence token" in session.notes["ends"]
    assert metrics["generation/limit"].value == 1, "without an end all go on"
    assert metrics["generation/length"].conditions["chat"] is False


def test_what_it_needs_of_the_workload() -> None:
    options = generation.Options(items=3, system="Be brief.")
    assert generation.GROUP.needs(options) == Needs(
        prompts={"everyday": PromptRequest(items=3, chat=True, system="Be brief.")}
    )
