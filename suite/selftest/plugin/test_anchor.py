"""Losses within the tolerance that add up over accepted baselines, end to end."""

from __future__ import annotations

import math
import re

from quantgate.baselines import store
from quantgate.files import write_atomic
from quantgate.records import Status

from selftest.plugin.runs import Q4
from selftest.project import Project, Result

STEP = 0.002
"""Of the perplexity; its tolerance in an unchanged environment is 0.0025."""
THIS = ("--reuse", "-k", f"perplexity and {Q4}")


def worsen(project: Project, **environment: str) -> None:
    """Let the latest measurement have lost another step of perplexity, as a library that rounds more would."""
    record = project.measurement(Q4)
    metric = record.metrics["perplexity"]
    samples = [sample + math.log1p(STEP) for sample in metric.samples or []]
    worse = metric.model_copy(update={"samples": samples, "value": metric.value * (1 + STEP)})
    record = record.model_copy(
        update={
            "metrics": {**record.metrics, "perplexity": worse},
            "environment": {**record.environment, **environment},
        }
    )
    write_atomic(project.results / "smoke" / f"{Q4}.json", record.model_dump_json().encode())


def states(result: Result) -> dict[str, Status]:
    names = ("perplexity", "perplexity/anchor", "perplexity/loss", "perplexity/loss/anchor")
    return {v.metric: v.status for v in result.verdicts if v.metric in names}


def test_small_accepted_steps_end_in_drift_until_the_anchor_is_moved(baselined: Project) -> None:
    worsen(baselined)
    first = baselined.update(*THIS)
    assert first.status == 0, first.output
    green = baselined.run(*THIS)
    assert green.status == 0, green.output
    assert set(states(green).values()) == {Status.PASS}
    assert len(states(green)) == 4, "held against the baseline and against the anchor"

    # The second step is within the tolerance of the first, and the sum beyond that of the anchor.
    worsen(baselined)
    red = baselined.run(*THIS)
    assert red.status == 15
    assert states(red) == {
        "perplexity": Status.PASS,
        "perplexity/anchor": Status.DRIFT,
        "perplexity/loss": Status.PASS,
        "perplexity/loss/anchor": Status.DRIFT,
    }
    drift = red.verdict(Q4, "perplexity/anchor")
    assert drift.change is not None
    assert abs(drift.change - 2 * STEP) < 1e-4
    assert "since the anchor of 20" in red.output
    assert "(selftest): worse by more than the tolerance" in red.output
    assert "Worse than the anchor" in (baselined.folder / "report/report.md").read_text()
    assert "| ↘ drift |" in (baselined.folder / "report/comment.md").read_text()

    # Neither a plain update nor one that accepts regressions takes it.
    before = store.read(baselined.baselines, Q4, "smoke")
    assert before is not None
    for options in ((), ("--accept-regressions",)):
        refused = baselined.update(*THIS, *options)
        assert refused.status == 15
        assert "the baseline is not updated" in refused.output
        assert "(--re-anchor accepts it)" in refused.output
    assert store.read(baselined.baselines, Q4, "smoke") == before

    moved = baselined.run("--update-baselines", "--re-anchor", "--reason", "faster kernels", *THIS)
    assert moved.status == 0, moved.output
    text = " ".join(re.sub(r"[│\s]+", " ", moved.output).split())
    assert re.search(
        r"perplexity +[\d.]+ [\d.]+ \+[\d.]+ \(\+0\.20 %\) \+[\d.]+ \(\+0\.40 %\) since 20", text
    )
    assert "anchor of perplexity: moved from" in text
    after = store.read(baselined.baselines, Q4, "smoke")
    assert after is not None
    assert after.anchors == {}
    assert after.origin("perplexity").reason == "faster kernels"
    assert baselined.run(*THIS).status == 0


def test_what_has_changed_since_the_anchor_alone_is_not_said_of_the_baselines(baselined: Project) -> None:
    worsen(baselined, torch="0.0")
    first = baselined.update(*THIS)
    assert first.status == 0, first.output
    assert re.search("changed since the baselines: torch .* -> 0.0", first.output)
    green = baselined.run(*THIS)
    assert green.status == 0, green.output
    assert "perplexity/anchor" in states(green)
    assert "changed since the baselines" not in green.output
