"""What a verdict means for the search, what is kept of it, and how the outcome reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from quantgate.bisect.hunt import patient
from quantgate.bisect.outcome import conclusion, difference_in_words, no_change, reply_in_words, report
from quantgate.bisect.search import Answer, Culprit, Finding
from quantgate.bisect.state import State
from quantgate.bisect.trial import Question, Reply, answered, grown
from quantgate.config.matrix import Matrix
from quantgate.config.tolerances import load_tolerances
from quantgate.errors import InputError
from quantgate.measure.metrics import accuracy, memory, perplexity
from quantgate.records import Status, Verdict
from quantgate.run.inputs import load_matrix

from selftest.bisect.tables import pins
from selftest.tiny import TEXT, TinyModel

S, A = Status, Answer


def verdict(status: Status, **values: object) -> Verdict:
    return Verdict.model_validate(
        {"cell": "m/b/s", "metric": "perplexity", "status": status, "text": "why\nmore"} | values
    )


@pytest.mark.parametrize(
    ("target", "status", "answer"),
    [
        (S.REGRESSION, S.REGRESSION, A.BAD),
        (S.REGRESSION, S.PASS, A.GOOD),
        (S.REGRESSION, S.IMPROVEMENT, A.GOOD),
        (S.REGRESSION, S.INCONCLUSIVE, A.INCONCLUSIVE),
        (S.REGRESSION, S.ERROR, A.BROKEN),
        (S.REGRESSION, S.NOT_COMPARABLE, A.BROKEN),
        (S.CHANGED, S.CHANGED, A.BAD),
        (S.CHANGED, S.PASS, A.GOOD),
        (S.IMPROVEMENT, S.IMPROVEMENT, A.BAD),
        (S.IMPROVEMENT, S.PASS, A.GOOD),
        (S.IMPROVEMENT, S.REGRESSION, A.GOOD),
        (S.NOT_COMPARABLE, S.NOT_COMPARABLE, A.BAD),
        (S.NOT_COMPARABLE, S.PASS, A.GOOD),
        (S.NOT_COMPARABLE, S.ERROR, A.BROKEN),
    ],
)
def test_an_environment_is_bad_where_it_is_as_the_bad_end(
    target: Status, status: Status, answer: Answer
) -> None:
    assert answered(verdict(status), target).answer == answer


def test_a_value_that_is_wrong_whatever_the_good_end_is_bad() -> None:
    assert answered(verdict(S.ERROR, wrong="3 lines differ"), S.REGRESSION).answer == A.BAD


def test_what_cannot_be_judged_keeps_its_reason_in_one_line() -> None:
    assert answered(verdict(S.ERROR), S.REGRESSION).text == "error: why"


@pytest.mark.parametrize(
    ("replies", "answer", "levels"),
    [
        (["good"], "good", 1),
        (["inconclusive", "bad"], "bad", 2),
        (["inconclusive", "inconclusive", "good"], "good", 3),
        (["inconclusive", "inconclusive", "inconclusive"], "inconclusive", 3),
        (["inconclusive", "broken"], "inconclusive", 2),
        (["broken"], "broken", 1),
    ],
)
def test_a_judge_who_cannot_tell_takes_more_samples_and_never_guesses(
    replies: list[str], answer: str, levels: int
) -> None:
    levels_tried: list[int] = []

    def ask(level: int) -> Reply:
        levels_tried.append(level)
        return Reply(answer=Answer(replies[level]), text=f"of level {level}")

    reply = patient(ask, 3)
    assert reply.answer == Answer(answer)
    assert reply.text == f"of level {max(n for n, one in enumerate(replies) if one == answer)}"
    assert levels_tried == list(range(levels))


def test_a_larger_sample_has_more_windows_and_items_and_nothing_else() -> None:
    text = perplexity.Options(text="boolq", n_ctx=64, windows=4)
    assert grown(text, 4) == perplexity.Options(text="boolq", n_ctx=64, windows=16)
    assert grown(text, 1) is text
    tasks = accuracy.Options(tasks=["a", "b"], items=8, items_of={"b": 6})
    assert grown(tasks, 4) == accuracy.Options(tasks=["a", "b"], items=32, items_of={"b": 24})
    assert "items" in grown(accuracy.Options(tasks=["a"]), 4).model_dump(exclude_unset=True), (
        "it is handed on"
    )
    assert grown(memory.Options(), 4) == memory.Options()


# --- state ------------------------------------------------------------------------------------------


def test_replies_outlive_the_process(tmp_path: Path) -> None:
    question = {"cell": "m/b/s", "good": pins("a", version=1)}
    state = State(tmp_path, question)
    reply = Reply(answer=A.BAD, text="worse", verdict=verdict(S.REGRESSION, change=0.1))
    state.aim(S.REGRESSION)
    state.add(pins("a", version=2), 0, reply)
    state.add(pins("a", version=3), 1, Reply(answer=A.BROKEN, text="cannot be built"))
    again = State(tmp_path, question)
    assert (again.target, again.count) == (S.REGRESSION, 2)
    assert again.reply(pins("a", version=2), 0) == reply
    assert again.reply(pins("a", version=2), 1) is None, "another size of sample is another question"
    assert State(tmp_path, {**question, "cell": "m/b/t"}).count == 0
    assert sorted(path.name for path in state.folder.iterdir()) == ["state.json"], "no temporary files"


def test_what_is_forgotten(tmp_path: Path) -> None:
    def filled() -> State:
        state = State(tmp_path, {})
        state.aim(S.CHANGED)
        state.add(pins("a", version=2), 0, Reply(answer=A.BAD, text=""))
        state.add(pins("a", version=3), 0, Reply(answer=A.BROKEN, text=""))
        return state

    filled().forget(broken=True)
    again = State(tmp_path, {})
    assert (again.target, again.count) == (S.CHANGED, 1)
    assert again.reply(pins("a", version=3), 0) is None
    filled().forget(broken=False)
    again = State(tmp_path, {})
    assert (again.target, again.count) == (None, 0)


def test_other_weights_and_texts_are_another_question_whatever_their_paths(
    tmp_path: Path, tiny: TinyModel
) -> None:
    weights, text = tmp_path / "weights", tmp_path / "text.txt"
    shutil.copytree(tiny.safetensors, weights)
    text.write_text(TEXT)
    matrix = load_matrix_of(tmp_path, weights)

    def work() -> str:
        question = Question(
            matrix,
            "smoke",
            matrix.cell("tiny/transformers/fp32"),
            "perplexity",
            load_tolerances(),
            1,
            text,
            2,
        )
        return question.work(tmp_path)

    first = work()
    assert work() == first
    text.write_text(f"{TEXT} and more")
    second = work()
    config = weights / "config.json"
    config.write_text(f"{config.read_text()}\n")
    assert len({first, second, work()}) == 3


def load_matrix_of(folder: Path, weights: Path) -> Matrix:
    (folder / "quantgate.toml").write_text(
        f'[models.tiny]\nlicense = "MIT"\nweights = {{ path = "{weights}" }}\n[tiers.smoke]\ntime_limit = 900\n'
        'cells = ["tiny/transformers/fp32"]\nperplexity = { text = "boolq", n_ctx = 8, windows = 4 }\n'
    )
    return load_matrix(folder / "quantgate.toml")


@pytest.mark.parametrize("text", ["", "{}", '{"format": 9, "question": {}}', "\x00"])
def test_a_state_that_cannot_be_read_is_named_with_the_remedy(tmp_path: Path, text: str) -> None:
    state = State(tmp_path, {})
    state.folder.mkdir()
    state.file.write_text(text)
    with pytest.raises(
        InputError, match=r"state\.json: is not the state of a search of this version .*: remove it"
    ):
        State(tmp_path, {})


# --- words ------------------------------------------------------------------------------------------


def test_a_reply_reads_as_answer_change_and_tolerance() -> None:
    judged = verdict(S.REGRESSION, change=0.031, change_low=0.029, change_high=0.033, tolerance=0.0025)
    reply = answered(judged, S.REGRESSION)
    assert reply_in_words(reply) == "bad (regression, +3.10 % (+2.90 % to +3.30 %), tolerance 0.25 %)"
    assert reply_in_words(Reply(answer=A.BROKEN, text="no wheel")) == "broken (no wheel)"
    assert no_change(
        answered(verdict(S.PASS, change=0.0, tolerance=0.01), S.REGRESSION), "perplexity", "m/b/s"
    ) == ("perplexity of m/b/s: the bad end is as good as the good one: 0 %, tolerance 1 %")
    unclear = answered(verdict(S.INCONCLUSIVE, change=0.02, tolerance=0.01), S.REGRESSION)
    assert no_change(unclear, "perplexity", "m/b/s").endswith(
        "even the largest sample does not tell whether the bad end is worse: +2.00 %, tolerance 1 %"
    )


def test_what_is_new_is_named_and_a_long_list_cut() -> None:
    good = pins(*"abcdefgh", version=1)
    assert difference_in_words(good, {**good, "b": "b==2"}) == "b 2"
    assert difference_in_words(good, pins(*"abcdefgh", version=2)) == "a 2, b 2, c 2, d 2, e 2, f 2, 2 more"


@pytest.mark.parametrize(
    ("culprits", "beside", "lines"),
    [
        (
            [Culprit(("b",), "b==2", "b==3")],
            (),
            ["b 2 -> 3", "bad by itself, every other package as in the good end"],
        ),
        (
            [Culprit(("a",), "a==1", "a==2"), Culprit(("c",), "c==1", "c==3")],
            (),
            ["a 1 -> 2 and c 1 -> 3: only together"],
        ),
        (
            [Culprit(("a", "b"))],
            (),
            ["a 1 -> 3 or b 1 -> 3", "a and b: no environment that tells them apart could be judged"],
        ),
        (
            [Culprit(("b",), "b==1", "b==3", ("b==2",))],
            (),
            ["b 1 -> 3", "b 2 could not be judged: it may have begun there"],
        ),
        (
            [Culprit(("b",), "b==2", "b==3")],
            ("a", "c"),
            ["b 2 -> 3", "judged with a, c new as well: without them it could not be judged"],
        ),
    ],
)
def test_the_conclusion_says_what_is_certain(
    culprits: list[Culprit], beside: tuple[str, ...], lines: list[str]
) -> None:
    good, bad = (pins(*"abc", version=version) for version in (1, 3))
    assert conclusion(Finding(tuple(culprits), good, bad, beside), good, bad) == lines


def test_the_report_has_the_change_and_the_step_before_it() -> None:
    good, bad = (pins("a", version=version) for version in (1, 3))
    finding = Finding((Culprit(("a",), "a==2", "a==3"),), pins("a", version=2), bad)
    replies = (
        answered(verdict(S.PASS, change=0.0001, tolerance=0.0025), S.REGRESSION),
        answered(verdict(S.REGRESSION, change=0.031, tolerance=0.0025), S.REGRESSION),
    )
    assert report(finding, (good, bad), replies, "perplexity", "m/b/s") == [
        "a 2 -> 3",
        "  bad by itself, every other package as in the good end",
        "  perplexity of m/b/s: regression, +3.10 %, tolerance 0.25 %",
        "  one step before it: pass, +0.01 %, tolerance 0.25 %",
    ]
    whole = Finding((Culprit(("a",), "a==1", "a==3"),), good, bad)
    assert report(whole, (good, bad), (None, replies[1]), "perplexity", "m/b/s")[-1] == (
        "  one step before it: the good end itself"
    )
