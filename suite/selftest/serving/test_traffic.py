"""Traffic: a closed loop, timed request by request, by a process of its own."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from quantgate.config.tolerances import load_tolerances
from quantgate.errors import MeasurementError
from quantgate.judge.compare import Comparison, Rules, verdicts
from quantgate.measure.metrics.traffic import doubt
from quantgate.records import Measurement, Metric
from quantgate.run.relative import served_speed
from quantgate.serving.client import Client
from quantgate.serving.dialect import Vocabulary
from quantgate.serving.level import Level
from quantgate.serving.llama_server import LlamaServer
from quantgate.serving.traffic import Job, run_traffic, send, timed

from selftest.serving.fake import Fake, serving
from selftest.serving.models import Bigrams

PROMPTS = [[1, 2, 3, n] for n in range(1, 10)]
LEVELS = [(1, PROMPTS[:3]), (3, PROMPTS)]


def job(url: str, **further: object) -> Job:
    fields = {
        "url": url,
        "dialect": "llama-server",
        "timeout": 20.0,
        "levels": LEVELS,
        "tokens": 5,
        **further,
    }
    return Job.model_validate(fields)


def level(**further: object) -> Level:
    fields = {
        "concurrency": 2,
        "tokens": 5,
        "seconds": 4.0,
        "cpu": 1.0,
        "first": [0.5, 1.0],
        "whole": [0.9, 3.0],
    }
    return Level.model_validate({**fields, **further})


def test_a_level_has_so_many_requests_at_once_and_its_warm_up_does_not_count() -> None:
    fake = Fake(Bigrams())
    with serving(fake) as url:
        *_, answered, last = list(send(job(url)))
    assert answered == 8, "2 and 6"
    assert isinstance(last, Level)
    assert len(last.first) == len(last.whole) == 6
    assert fake.most == 3
    prompts = Counter(tuple(body["prompt"]) for _, body in fake.asked)
    assert prompts == Counter(map(tuple, [*PROMPTS[:3], *PROMPTS]))
    assert all(body["ignore_eos"] and body["n_predict"] == 5 for _, body in fake.asked)
    assert all(0 < a < b for a, b in zip(last.first, last.whole, strict=True))
    assert max(last.whole) <= last.seconds


def test_times_per_token_leave_the_first_token_out() -> None:
    assert level().per_token == pytest.approx([0.1, 0.5])
    assert level().good(first=0.7, per_token=0.2) == 1
    assert level().good(first=1.0, per_token=0.05) == 0
    assert level().client_share == 0.25


def test_the_client_is_a_process_of_its_own_and_says_how_far_it_is() -> None:
    seen: list[int] = []
    with serving(Fake(Bigrams())) as url:
        levels = run_traffic(job(url), seen.append)
    assert seen == [*range(1, 9)]
    assert [one.concurrency for one in levels] == [1, 3]
    assert all(one.cpu > 0 for one in levels)


def test_a_request_that_fails_ends_the_traffic() -> None:
    with (
        serving(Fake(Bigrams(), "503")) as url,
        pytest.raises(MeasurementError, match="POST /completion: the server answers 503"),
    ):
        run_traffic(job(url), lambda _: None)


@pytest.mark.parametrize("kind", ["data", "error"])
def test_an_answer_that_ends_with_an_error_is_that_error(kind: str) -> None:
    says = 'POST /completion: the server ends its answer with an error: {"error": {"message": "no slot"}}'
    with serving(Fake(Bigrams(), kind)) as url, pytest.raises(MeasurementError, match=re.escape(says)):
        run_traffic(job(url), lambda _: None)


def test_an_answer_of_another_length_is_an_error() -> None:
    with serving(Fake(Bigrams(), "stops early")) as url:
        server = LlamaServer(Client(url, timeout=20), Vocabulary(12))
        with pytest.raises(MeasurementError, match="5 tokens were to be written, and the server streamed 3"):
            timed(server, [1, 2], 5)


def test_tokens_without_an_event_of_their_own_count() -> None:
    with serving(Fake(Bigrams(), "half characters")) as url:
        server = LlamaServer(Client(url, timeout=20), Vocabulary(12))
        counts = [new for _, new in server.stream([1, 2], 6)]
    assert counts[-1] > 0
    assert sum(counts) == 6


def test_a_client_that_takes_half_a_core_may_be_what_is_slow() -> None:
    assert doubt([level(cpu=0.1), level(cpu=2.0)]) == ""
    says = doubt([level(cpu=0.1), level(cpu=2.4, concurrency=8)])
    assert says.startswith("the client took 60 % of a core at 8 requests at once")


def test_what_may_be_the_clients_time_is_inconclusive() -> None:
    scaling = Metric(kind="ratio", value=2.0, unit="x", better="higher", samples=[2.0, 2.1, 2.0])
    seconds = scaling.model_copy(update={"kind": "rounds", "unit": "s", "processes": [1, 1, 1]})

    def status(
        old: list[str],
        new: list[str],
        *,
        against: bool = False,
        metric: Metric = scaling,
        name: str = "scaling",
    ) -> str:
        before, now = (
            Measurement(
                cell="m/served/Q8_0", tier="served", fingerprint="", created="",
                metrics={f"traffic/{name}": metric.model_copy(update={"raw": {"doubts": doubts}})},
            )
            for doubts in (old, new)
        )  # fmt: skip
        rules = Rules(tolerances=load_tolerances(), alpha=0.001, against=against)
        (verdict,) = verdicts(Comparison(now, before), lambda _: True, rules)
        return f"{verdict.status}: {verdict.text}"

    none, slow = ["", "", ""], ["", "the client took 60 % of a core", ""]
    assert status(none, none).startswith("pass")
    assert status(none, slow) == "inconclusive: the client took 60 % of a core"
    assert status(slow, none).startswith("pass"), "a person accepted the baseline"
    assert status(slow, none, against=True) == "inconclusive: the client took 60 % of a core"
    unnamed = status(none, slow, metric=seconds, name="1/per_token")
    assert unnamed.startswith("pass: timings are gated on a named machine"), (
        "no gate, so no gate that is not judged"
    )


def test_a_server_is_held_against_decoding_in_process() -> None:
    def rounds(samples: list[float], value: float, unit: str) -> Metric:
        better = "higher" if unit == "tokens/s" else "lower"
        return Metric(
            kind="rounds", value=value, unit=unit, better=better, samples=samples, processes=[1, 1],
            conditions={"threads": 2},
        )  # fmt: skip

    def record(cell: str, **metrics: Metric) -> Measurement:
        return Measurement(cell=cell, tier="served", fingerprint="", created="", metrics=metrics)

    server = record("m/served/Q8_0", **{"traffic/1/per_token": rounds([0.02, 0.02], 0.02, "s")})
    decode = rounds([0.32, 0.32], 100.0, "tokens/s")
    (metric,) = served_speed(server, record("m/llamacpp/Q8_0", **{"throughput/decode": decode})).values()
    assert metric.value == pytest.approx(0.5)
    assert metric.samples == pytest.approx([0.5, 0.5])
    assert metric.conditions["reference"] == "m/llamacpp/Q8_0"
    assert not served_speed(server, record("m/llamacpp/Q8_0"))
