"""The whole command on packages of our own, without network: it builds, measures, judges, goes on where it ended."""

from __future__ import annotations

import re
import shlex
import signal
import time
from pathlib import Path

import psutil
import pytest
from quantgate.bisect.state import Content

from selftest.bisect.shop import Shop, open_shop, repository
from selftest.tiny import TinyModel


@pytest.fixture(scope="module")
def shop(tiny: TinyModel, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Wheels, plugin and matrix, made once; environments stay in the cache of the test session."""
    return open_shop(tmp_path_factory.mktemp("shop"), tiny, environment)


def replies(results: Path) -> int:
    """How many a search has left below its results."""
    files = results.glob("bisect/*/state.json")
    return sum(len(Content.model_validate_json(file.read_bytes()).entries) for file in files)


@pytest.mark.slow
def test_one_of_two_is_traced_to_its_release_after_an_interruption(shop: Shop, tmp_path: Path) -> None:
    good, bad = shop.constraints("two1.txt", a=1, c=1), shop.constraints("two2.txt", a=3, c=5)
    results = f"--results={tmp_path}"
    process = shop.start(good, bad, results)
    while replies(tmp_path) < 2:
        assert psutil.pid_exists(process.pid), process.finish(10)
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    status, rest = process.finish(600)
    assert status == 2, rest
    assert "interrupted; the same command goes on where this one ended" in rest
    assert "Traceback" not in rest

    count = replies(tmp_path)
    run = shop.bisect(good, bad, results)
    assert run.status == 0, run.output
    assert f"(replies: {count})" in run.output
    assert len(re.findall("as judged before", run.output)) == count
    assert len(run.lines("bad end is bad (regression")) == 1
    # One for the packages; for the releases 3, which cannot be installed, 4 and 5.
    packages = [line for line in run.lines("environment ") if "knob-a" in line]
    assert len(packages) == 1, run.output
    assert len(run.lines("environment ")) == 4
    conclusion = run.output[run.output.index("knob-c 4.0 -> 5.0\n") :]
    assert "bad by itself, every other package as in the good end" in conclusion
    change = (
        r"perplexity of tiny/dummy/flat: regression, \+5\.\d+ % \(\+\d\.\d+ % to \+\d\.\d+ %\), tolerance 1 %"
    )
    assert re.search(change, conclusion)
    skipped = r"skipped, as they could not be judged: 1 environment\n  knob-c 3\.0: broken: .*knob-absent"
    assert re.search(skipped, conclusion)

    again = shop.bisect(good, bad, results)
    assert (again.status, again.lines("building"), again.lines("cell")) == (0, [], [])
    assert again.output.endswith(conclusion), "kept, to the last letter"

    shown = shop.run(*shlex.split(conclusion.splitlines()[-1]))
    assert shown.status == 1, shown.output
    assert "worse by more than the tolerance" in shown.output


@pytest.mark.slow
def test_two_that_are_bad_only_together(shop: Shop) -> None:
    good, bad = (shop.constraints(f"both{n}.txt", p=n, q=n) for n in (1, 2))
    run = shop.bisect(good, bad)
    assert run.status == 0, run.output
    assert re.search(
        "^knob-[pq] 1.0 -> 2.0 and knob-[pq] 1.0 -> 2.0: only together$", run.output, re.MULTILINE
    )


@pytest.mark.slow
def test_a_small_sample_is_made_larger_and_equal_ends_end_the_search(shop: Shop) -> None:
    good, bad, equal = (shop.constraints(f"noise{n}.txt", a=n, c=1) for n in (1, 2, 3))
    run = shop.bisect(good, bad)
    assert run.status == 0, run.output
    assert run.lines("bad end is inconclusive")
    assert run.lines("bad end is bad")[0].endswith("with a larger sample")
    assert run.lines("knob-a 1.0 -> 2.0")
    run = shop.bisect(good, equal)
    assert run.status == 3, run.output
    assert (
        "perplexity of tiny/dummy/flat: the bad end is as good as the good one: 0 %, tolerance 1 %"
        in run.output
    )


@pytest.mark.slow
def test_commits_of_a_repository(shop: Shop) -> None:
    commits = repository(shop.folder / "repository", [0.0, 0.0, 0.05])
    source = f"knob-c @ git+file://{shop.folder}/repository"
    ends = ("--good-commit", commits[0], "--bad-commit", commits[-1])
    run = shop.bisect(None, None, "--repository", source, *ends)
    assert run.status == 0, run.output
    step = run.lines("knob-c git+")[0]
    assert step.index(f"@{commits[1]} -> ") < step.index(f"@{commits[2]}")
    assert len(run.lines("environment ")) == 1


def test_an_end_that_cannot_be_built_ends_the_search(shop: Shop) -> None:
    good, bad = (shop.constraints(f"absent{n}.txt", a=n, c=1) for n in (1, 9))
    run = shop.bisect(good, bad)
    assert run.status == 10, run.output
    assert re.search(r"the bad end cannot be judged: .*requirement knob-a==9\.0", run.output), run.output
    assert run.lines("environment ") == []


def test_versions_that_do_not_go_together_are_named(shop: Shop) -> None:
    good, bad = (shop.constraints(f"together{n}.txt", a=n, c=1) for n in (1, 4))
    run = shop.bisect(good, bad)
    assert run.status == 10, run.output
    last = run.output.splitlines()[-1]
    assert last.startswith("the bad end cannot be judged: pip cannot install these versions together: ")
    for words in ("knob-a 4.0 depends on knob-c!=1", "(constraint) knob-c==1.0"):
        assert words in last, run.output


def test_what_differs_is_listed_without_building(shop: Shop) -> None:
    good, bad = (shop.constraints(f"list{n}.txt", a=n, b=1, d=None if n == 2 else 1, e=n) for n in (1, 2))
    run = shop.bisect(good, bad, "--dry-run")
    assert run.status == 0
    assert run.output.splitlines()[:2] == ["knob-a 1.0 -> 2.0", "knob-e 1.0 -> 2.0"]
    assert "building" not in run.output


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--metric", "perplexity/loss"], "is relative to another cell of the same run"),
        (["--metric", "perplexity/anchor"], "of the same run or to an anchor, while"),
        (["--metric", "memory"], "quantgate.toml measures no memory; it has perplexity"),
        (["--metric", "nonsense"], "measures no metric of this name"),
        (["--metric", "perplexity/bits_per_bite"], "did you mean 'perplexity/bits_per_byte'?"),
        (["--cell", "tiny/dummy/round"], "has no such cell; it has tiny/dummy/flat"),
        (["--tier", "nightly"], "no tier 'nightly'"),
        (["--good-commit", "abc"], "--repository, --good-commit and --bad-commit go together"),
        (["--threads", "0"], "--threads 0: must be 1 or more"),
        (["--pairs", "1"], "--pairs 1: must be 2 or more"),
        (["--text", "none.txt"], "--text none.txt: no such file"),
        (["--bad", "good.txt"], "pin the same versions: nothing differs"),
        (["--good", "nowhere.txt"], "nowhere.txt: cannot be read"),
    ],
)
def test_wrong_input_ends_before_anything_is_built(shop: Shop, more: list[str], words: str) -> None:
    good, bad = (shop.constraints(f"{name}.txt", a=n) for n, name in ((1, "good"), (2, "bad")))
    run = shop.bisect(good, bad, *more)
    assert run.status == 4, run.output
    assert words in run.output
    assert len(run.output.splitlines()) <= 2
