"""Perplexity and bits per byte: exact values from a model of bigrams."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from quantgate.backends.base import Sizes
from quantgate.errors import InputError, MeasurementError, UnmeasurableError
from quantgate.items import Opening, Text, opening_name
from quantgate.measure.metrics import perplexity

from selftest.measure.fakes import (
    IDS,
    N_CTX,
    STARTS,
    WINDOWS,
    Bigrams,
    Here,
    with_text,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from quantgate.backends.tree import TokenTree

    from selftest.tiny import TinyModel


protocols = pytest.mark.parametrize(("protocol", "start", "scored"), [("full", 1, 7), ("half", 5, 3)])
starts = pytest.mark.parametrize("bos", [None, 0])


def windows(bos: int | None = None) -> list[list[int]]:
    every = [IDS[n : n + N_CTX] for n in range(0, len(IDS), N_CTX)]
    return every if bos is None else [[bos, *ids[1:]] for ids in every]


@protocols
@starts
def test_perplexity_is_the_exponential_of_the_mean_over_the_scored_tokens(
    here: Here, protocol: str, start: int, scored: int, bos: int | None
) -> None:
    model = with_text(here, bos)
    metrics = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS, protocol=protocol)
    nll = [-model.total(ids, start) for ids in windows(bos)]
    metric = metrics["perplexity"]
    assert metric.value == pytest.approx(math.exp(sum(nll) / (scored * WINDOWS)), rel=1e-6)
    assert metric.samples == pytest.approx([x / scored for x in nll], rel=1e-6)
    assert metric.weights == [scored] * WINDOWS
    error = np.std([x / scored for x in nll], ddof=1) / math.sqrt(WINDOWS)
    assert metric.stderr == pytest.approx(metric.value * error, rel=1e-6)
    assert (metric.kind, metric.link, metric.better) == ("paired", "exp", "lower")
    assert metric.conditions == {
        "source": "w1", "tokens": "t1", "text": "t", "n_ctx": N_CTX, "windows": WINDOWS,
        "protocol": protocol, "block": 128, "scored tokens": scored * WINDOWS,
    }  # fmt: skip


@protocols
@starts
def test_in_a_chat_the_same_tokens_of_the_text_are_scored_after_those_of_the_template(
    here: Here, protocol: str, start: int, scored: int, bos: int | None
) -> None:
    model = with_text(here, bos)
    before = [2, 6, 4]
    opening = Opening(template="h", ids=before)
    here.write(f"{opening_name('Be brief.')}.json", opening.model_dump_json())
    options = {"text": "t", "n_ctx": N_CTX, "windows": WINDOWS, "protocol": protocol}
    metrics = here.measure(perplexity, **options, chat=True, system="Be brief.")
    begun = [[*before, *ids[1:]] for ids in windows()]
    assert [tree.ids for tree in model.trees] == [ids[:-1] for ids in begun]
    nll = [-model.total(ids, len(before) - 1 + start) for ids in begun]
    metric = metrics["perplexity"]
    assert metric.samples == pytest.approx([x / scored for x in nll], rel=1e-6)
    plain = here.measure(perplexity, **options)
    changed = metric.conditions.items() - plain["perplexity"].conditions.items()
    assert {key for key, _ in changed} == {"tokens", "chat", "template"}
    size = "perplexity/bits_per_byte"
    assert metrics[size].weights == plain[size].weights


def test_a_chat_that_leaves_no_room_for_a_window_says_what_helps(here: Here) -> None:
    class Short(Bigrams):
        def sizes(self) -> Sizes:
            return Sizes(vocabulary=7, positions=N_CTX + 2)

    here.backend = Short()
    with_text(here)
    opening = Opening(template="h", ids=[2] * 3)
    here.write(f"{opening_name(None)}.json", opening.model_dump_json())
    here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS, chat=True)
    message = "text 't': the model has 10 positions, its chat template takes 3 before a window of 12 tokens: "
    with pytest.raises(UnmeasurableError, match=message + "lower n_ctx to 8, or remove chat"):
        here.measure(perplexity, text="t", n_ctx=N_CTX + 4, windows=2, chat=True)


@pytest.mark.parametrize(("protocol", "start"), [("full", 1), ("half", 5)])
def test_bits_per_byte_counts_the_bytes_of_the_scored_tokens(here: Here, protocol: str, start: int) -> None:
    model = with_text(here)
    metrics = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS, protocol=protocol)
    bits = [-model.total(ids, start) / math.log(2) for ids in windows()]
    size = [STARTS[(n + 1) * N_CTX] - STARTS[n * N_CTX + start] for n in range(WINDOWS)]
    metric = metrics["perplexity/bits_per_byte"]
    assert metric.value == pytest.approx(sum(bits) / sum(size), rel=1e-6)
    assert metric.samples == pytest.approx([b / s for b, s in zip(bits, size, strict=True)], rel=1e-6)
    assert metric.weights == size
    assert metric.value == pytest.approx(np.average(metric.samples or [], weights=size)), (
        "as the judge takes it"
    )
    assert metric.link == "identity"
    assert metric.conditions["scored bytes"] == sum(size)


@pytest.mark.parametrize(("block", "sizes"), [(2, [2, 2, 2, 1]), (3, [4, 3]), (7, [7]), (100, [7])])
def test_windows_are_cut_into_blocks_that_the_judge_pairs(here: Here, block: int, sizes: list[int]) -> None:
    model = with_text(here)
    metric = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS, block=block)["perplexity"]
    assert sorted(metric.weights or []) == sorted(float(s) for s in sizes * WINDOWS)
    whole = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS)["perplexity"]
    assert metric.value == pytest.approx(whole.value), "cutting changes no value"
    sums = np.array(metric.samples) * np.array(metric.weights)
    per_window = sums.reshape(WINDOWS, len(sizes)).sum(axis=1)
    assert per_window.tolist() == pytest.approx([-model.total(ids, 1) for ids in windows()], rel=1e-6)


def test_the_value_is_what_the_judge_makes_of_samples_and_weights(here: Here) -> None:
    with_text(here)
    metric = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS)["perplexity"]
    mean = np.average(metric.samples or [], weights=metric.weights)
    assert metric.value == pytest.approx(math.exp(mean))


def test_windows_are_scored_one_at_a_time_and_fed_but_for_their_last_token(here: Here) -> None:
    model = with_text(here, bos=0)
    here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS)
    assert [tree.ids for tree in model.trees] == [ids[:-1] for ids in windows(bos=0)]
    assert all(tree.is_chain for tree in model.trees)


class SeesAhead(Bigrams):
    """Its scores depend on the last token that it is fed."""

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = super().logits(tree) + self.table[tree.ids[-1]]
        return logits


def test_a_model_that_is_not_causal_has_no_perplexity(here: Here) -> None:
    here.backend = SeesAhead()
    with_text(here)
    here.options = {"perplexity": {"text": "t", "n_ctx": N_CTX, "windows": WINDOWS}}
    session = here.session()
    session.causal = False
    with pytest.raises(MeasurementError, match="the model is not causal"):
        perplexity.measure(session, [])


def test_a_perplexity_beyond_any_number_is_an_error_that_says_so(here: Here) -> None:
    with_text(here).table *= 1000
    with pytest.raises(MeasurementError, match=r"log-likelihood is \d{4} nats per token.*broken weights"):
        here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS)


def test_llamacpps_protocol_scores_half_a_window_less_one() -> None:
    """llama-perplexity at n_ctx 512 counts 255 tokens of each window."""
    options = perplexity.Options(text="t", n_ctx=512, protocol="half")
    assert 512 - perplexity.first_scored(options) == 255


def test_fewer_windows_take_the_beginning_of_the_text(here: Here) -> None:
    model = with_text(here)
    metric = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=2)["perplexity"]
    assert metric.value == pytest.approx(
        math.exp(-sum(model.total(w, 1) for w in windows()[:2]) / 14), rel=1e-6
    )


def encoded(tiny: TinyModel, path: Path, add_bos: bool, tokens: int) -> Text:
    from quantgate.supply.encoder import Encoder

    return Encoder(tiny.safetensors, add_bos).text("t", {"path": str(path), "tokens": tokens})


def test_a_beginning_of_sequence_token_comes_before_the_text_as_in_llamacpps_tool(
    tiny: TinyModel, tmp_path: Path
) -> None:
    """`common_tokenize(..., add_special)` puts it there once; windows are cut afterwards."""
    path = tmp_path / "text"
    path.write_text("The naïve egg does not care about your recipe. " * 4)
    plain, begun = (encoded(tiny, path, add_bos, 24) for add_bos in (False, True))
    assert begun.ids == [0, *plain.ids[:-1]]
    assert begun.bos == 0
    assert begun.starts == [0, *plain.starts[:-1]]
    assert begun.bytes_between(1, 24) == plain.bytes_between(0, 23)
    assert begun.hash != plain.hash


def test_line_ends_of_a_text_are_tokens_like_others(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "unix").write_bytes(b"The egg.\nThe dog.\nThe wheel.\n" * 3)
    (tmp_path / "windows").write_bytes(b"The egg.\r\nThe dog.\r\nThe wheel.\r\n" * 3)
    unix, windows = (encoded(tiny, tmp_path / name, False, 12) for name in ("unix", "windows"))
    assert unix.ids != windows.ids


def test_blocks_that_are_a_part_of_a_character_count_with_its_end() -> None:
    sums, sizes = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]), np.array([0, 0, 3, 2, 0, 0])
    joined = perplexity.with_bytes_each(sums, sizes)
    assert [part.tolist() for part in joined] == [[7.0, 56.0], [3, 2]]
    as_it_was = perplexity.with_bytes_each(sums[:2], np.array([5, 1]))
    assert [part.tolist() for part in as_it_was] == [[1.0, 2.0], [5, 1]]


def test_a_text_of_characters_in_several_tokens_has_bits_per_byte(here: Here) -> None:
    with_text(here)
    file = here.folder / "text-t.json"
    text = Text.model_validate_json(file.read_bytes())
    starts = [2 * (n // 2) for n in range(len(text.starts))]  # two tokens to a character of two bytes
    file.write_text(text.model_copy(update={"starts": starts}).model_dump_json())
    metric = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=2, block=1)["perplexity/bits_per_byte"]
    samples, weights = metric.samples or [], metric.weights or []
    assert metric.value == pytest.approx(np.average(samples, weights=weights))
    assert set(weights) == {2.0}


def test_a_text_of_long_tokens_is_read_until_there_are_enough(tmp_path: Path) -> None:
    """Runs of spaces, rulers and the like are tokens of many characters."""
    import tokenizers
    import transformers
    from quantgate.supply.encoder import Encoder

    words = [letter * 40 for letter in "abc"]
    vocabulary = {word: n for n, word in enumerate([*words, "?"])}
    level = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    level.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    encoder = Encoder.__new__(Encoder)
    encoder.tokenizer, encoder.bos = transformers.PreTrainedTokenizerFast(tokenizer_object=level), None
    (tmp_path / "text").write_text(" ".join(words * 40))
    spec = {"path": str(tmp_path / "text")}
    text = encoder.text("t", {**spec, "tokens": 100})
    assert text.ids == ([0, 1, 2] * 34)[:100]
    assert text.bytes_between(0, 100) == 41 * 100
    with pytest.raises(
        InputError, match=r"text 't' \(.*text\) has 120 tokens, the tier needs 121: .* or name a longer text"
    ):
        encoder.text("t", {**spec, "tokens": 121})
