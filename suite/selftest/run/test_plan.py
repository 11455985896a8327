"""The plan: which requests the collected cases make of which cells."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from quantgate.config.matrix import Cell
from quantgate.errors import InputError
from quantgate.items import opening_name, part
from quantgate.jobs import Needs, Posed
from quantgate.measure.groups import parse_options
from quantgate.records import Record
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import Need, Plan, in_turns, lacking, make_plan, needs_of, repeated

CELLS = {cell.id: cell for cell in load_matrix().cells("smoke")}
FULL = "smollm2-135m/llamacpp/F16"
Q4 = "smollm2-135m/llamacpp/Q4_K_M"
NF4 = "smollm2-135m/bitsandbytes/nf4"
FP32 = "smollm2-135m/transformers/fp32"


def planned(*needs: tuple[str, str], cells: dict[str, Cell] = CELLS) -> Plan:
    return make_plan([Need(CELLS[cell], request) for cell, request in needs], cells)


def test_two_groups_cannot_pose_one_task_in_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workload has it once: one of them would be measured on the other's items."""

    def needs(**items: int) -> Any:
        groups = {
            name: SimpleNamespace(
                needs=lambda options, count=count: Needs(tasks={"piqa": Posed(items=count, chat=False)})
            )
            for name, count in items.items()
        }
        monkeypatch.setattr("quantgate.run.plan.group_of", groups.__getitem__)
        return needs_of(dict.fromkeys(groups, Record()))

    assert needs(accuracy=8, mine=8).tasks["piqa"].items == 8
    with pytest.raises(
        InputError, match="mine asks tasks 'piqa' in another way than a metric group before it"
    ):
        needs(accuracy=8, mine=4)


def test_what_a_request_takes_and_cannot_be_had_is_said() -> None:
    missing = {
        part("task", "race"): "no race",
        part("text", "code"): "no code",
        part("lines", "code"): "no lines",
        part("task", "boolq"): "no task boolq",
        part("questions", "arc_easy"): "nothing is written there",
        part("prompts", "chats/mine.toml"): "no prompts",
        opening_name(None): "no template",
    }
    options: dict[str, dict[str, Any]] = {
        "accuracy": {"tasks": ["arc_easy", "race"]},
        "perplexity": {"text": "boolq"},
        "divergence": {"text": "boolq", "chat": True},
        "tokenizer": {"text": "code"},
        "outliers": {"texts": ["boolq", "code"]},
        "memory": {},
        "answers": {"tasks": ["race", "arc_easy"]},
        "generation": {"prompts": "chats/mine.toml"},
    }
    why = {
        request: lacking(request, parse_options(options), missing)
        for request in [
            "accuracy/arc_easy", "accuracy/race", "accuracy/mean", "accuracy", "perplexity", "tokenizer", "memory",
            "outliers/boolq", "outliers/code", "outliers", "divergence", "answers/race", "answers/arc_easy",
            "answers/pooled", "generation",
        ]
    }  # fmt: skip
    assert {request: text for request, text in why.items() if text} == {
        "accuracy/race": "no race", "accuracy/mean": "no race", "accuracy": "no race",
        "answers/arc_easy": "nothing is written there", "answers/pooled": "nothing is written there",
        "generation": "no prompts", "tokenizer": "no lines", "outliers/code": "no code", "outliers": "no code",
        "divergence": "no template",
    }  # fmt: skip


def test_requests_are_kept_per_cell_in_the_order_of_collection() -> None:
    plan = planned((Q4, "tokenizer"), (FULL, "memory"), (Q4, "memory"))
    assert plan.requests == {Q4: ["tokenizer", "memory"], FULL: ["memory"]}
    assert list(plan.requests) == [Q4, FULL]
    assert plan.cells == {Q4: CELLS[Q4], FULL: CELLS[FULL]}


def test_what_two_cases_need_is_measured_once() -> None:
    assert planned((Q4, "tokenizer"), (Q4, "memory"), (Q4, "tokenizer")).requests == {
        Q4: ["tokenizer", "memory"]
    }


@pytest.mark.parametrize("request_", ["memory", "tokenizer"])
def test_memory_and_tokenizer_need_no_reference(request_: str) -> None:
    assert list(planned((Q4, request_)).cells) == [Q4]


@pytest.mark.parametrize("request_", ["throughput/decode", "perplexity", "accuracy/piqa"])
@pytest.mark.parametrize(("cell", "reference"), [(Q4, FULL), (NF4, FP32)])
def test_what_is_judged_relative_to_the_reference_adds_it(cell: str, reference: str, request_: str) -> None:
    plan = planned((cell, "memory"), (cell, request_))
    assert plan.requests == {cell: ["memory", request_], reference: [request_]}
    assert plan.cells[reference] == CELLS[reference]


def test_divergence_adds_the_log_probabilities_of_the_reference() -> None:
    plan = planned((Q4, "memory"), (Q4, "divergence"), (NF4, "divergence"))
    assert plan.requests == {
        Q4: ["memory", "divergence"], FULL: ["divergence"], NF4: ["divergence"], FP32: ["divergence"],
    }  # fmt: skip


def test_a_reference_is_timed_for_itself_once() -> None:
    assert planned((FULL, "throughput/load")).requests == {FULL: ["throughput/load"]}
    plan = planned((FULL, "throughput/load"), (Q4, "throughput/load"), (Q4, "throughput/decode"))
    assert plan.requests == {
        FULL: ["throughput/load", "throughput/decode"],
        Q4: ["throughput/load", "throughput/decode"],
    }


def test_a_served_cell_is_measured_beside_the_same_weights_in_process() -> None:
    """By the tokens of its texts, and timed by what the tier times; elsewhere by nothing."""
    served, process = "smollm2-135m/served/Q8_0", "smollm2-135m/llamacpp/Q8_0-stepwise"
    cells = {cell.id: cell for cell in load_matrix().cells("served")}
    needs = [Need(cells[served], request) for request in ("perplexity", "traffic", "serving")]
    plan = make_plan(needs, cells, groups=("perplexity", "traffic", "serving", "throughput"))
    assert plan.requests[process] == ["perplexity", "throughput/decode"]
    untimed = make_plan(needs, cells, groups=("perplexity", "traffic", "serving"))
    assert untimed.requests[process] == ["perplexity"]
    assert process not in make_plan(needs, cells, references=False).requests


def test_a_reference_that_is_not_in_the_tier_is_left_out() -> None:
    plan = planned((Q4, "throughput/decode"), cells={Q4: CELLS[Q4]})
    assert plan.requests == {Q4: ["throughput/decode"]}


def test_nothing_collected_is_an_empty_plan() -> None:
    assert planned() == Plan()


def test_timings_alone_can_be_measured_in_turns() -> None:
    requests = ["perplexity", "memory", "throughput/decode", "throughput/load", "tokenizer"]
    workload = load_matrix().tier("smoke").group_options
    assert in_turns(requests, workload) == ["throughput/decode", "throughput/load"]
    assert repeated(requests, workload) == ["memory", "throughput/decode", "throughput/load"]
