"""Written texts: where two part, what is a loop, what a reference leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.backends.base import Stops
from quantgate.errors import MeasurementError
from quantgate.measure.written import Written, ends_in_loop, leave, of_texts, read_left


@pytest.mark.parametrize(
    ("ids", "loop"),
    [
        ([5, 6, *[1] * 12], True),
        ([5, 6, *[1] * 11], False),
        ([9, *[1, 2, 3, 4, 5] * 3], True),
        ([9, *[1, 2, 3, 4, 5] * 2, 1, 2, 3, 4], False),
        ([9, *[1, 2] * 3], False),
        ([9, *[1, 2] * 6], True),
        ([*[1] * 30, 2], False),
        (list(range(16)) * 3, True),
        (list(range(17)) * 3, False),
        (list(range(60)), False),
        ([], False),
    ],
)
def test_a_loop_is_an_n_gram_three_times_at_the_end(ids: list[int], loop: bool) -> None:
    assert ends_in_loop(ids) is loop


def test_a_text_whose_last_token_ends_it_has_an_end_at_the_limit() -> None:
    words = {1: "an", 2: " egg", 3: ".", 4: " st", 5: "op"}
    stops = Stops(frozenset({9}), (".", " stop"), lambda ids: "".join(words.get(token, "") for token in ids))
    texts = [[1, 2, 3], [1, 2, 9], [1, 4, 5], [1, 2, 1], [2, 3]]
    metrics = of_texts("t", texts, stops, 3, {})
    assert metrics["t/limit"].samples == [0, 0, 0, 1, 0]
    assert of_texts("t", texts, Stops(frozenset({9})), 3, {})["t/limit"].samples == [1, 0, 1, 1, 0]


WRITTEN = Written(prompts="p", texts=[[1, 2]], logprobs=[[-0.5, -0.25]], gaps=[[1.0, 0.0]])


def test_what_a_reference_leaves_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path))
    path = tmp_path / "logprobs" / "r"
    leave(path, WRITTEN)
    assert read_left(path, "p") == WRITTEN
    with pytest.raises(MeasurementError, match="r: the reference was asked other prompts"):
        read_left(path, "q")
    path.write_text("{")
    with pytest.raises(MeasurementError, match="r: what the reference wrote cannot be read"):
        read_left(path, "p")
    path.unlink()
    with pytest.raises(MeasurementError, match="cannot be read"):
        read_left(path, "p")
