"""Written answers: the rows that hold the suite's tokens and marks against lm-evaluation-harness's own.

`write` is a maker that runs in a separate process: the harness renders, asks, writes and marks by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantgate.errors import MeasurementError
from quantgate.files import write_atomic
from quantgate.proofs.checks import Check
from quantgate.proofs.peers.bed import LM_EVAL, REFERENCE, Bed
from quantgate.records import Record
from quantgate.supply.checkpoints import Report
from quantgate.supply.tasks import load_task


class Answered(Record):
    """What the harness did with the first items of a task. prompts, texts: token ids of each item. shares: of right
    answers, by the name of the task's filter."""

    prompts: list[list[int]]
    texts: list[list[int]]
    shares: dict[str, float]


def same_answers(chat: bool, bed: Bed) -> list[Check]:
    """Count the prompts and the texts that have another token than the harness's, and compare the marks."""
    options = bed.config.answers
    name, items = options.task, bed.items or options.items
    size = {"items": items, "fewshot": options.examples, "tokens": options.tokens}
    ours = bed.ours(answers={"tasks": [name], "chat": chat, **size})
    metrics = bed.noted(ours.measure(REFERENCE, f"answers/{name}")).metrics
    output = bed.made(
        "lm-eval-answers.json",
        write,
        LM_EVAL,
        model=str(ours.checkpoint(REFERENCE)),
        add_bos=bed.matrix.models[bed.config.model].add_bos,
        task=name,
        spec=ours.supply.specs("questions")[name],
        tokens=options.tokens,
        threads=bed.threads,
    )
    theirs = Answered.model_validate_json(output.read_bytes())
    shares = metrics[f"answers/{name}/solved"].raw["by filter"]
    return [
        _others("other prompts", ours.questions(name).items, theirs.prompts),
        _others("other texts", metrics[f"answers/{name}/texts/length"].raw["ids"], theirs.texts),
        *(
            Check(
                what=f"right by {each}", ours=shares[each], peer=share, unit="fraction",
                difference=abs(shares[each] - share), difference_unit="fraction", limit=1e-9,
            )
            for each, share in theirs.shares.items()
        ),
    ]  # fmt: skip


def _others(what: str, ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> Check:
    """Check that no item has another token. Raises MeasurementError for another number of items."""
    if len(ours) != len(theirs):
        raise MeasurementError(f"{len(ours)} items here, {len(theirs)} in lm-eval")
    count = sum(list(a) != list(b) for a, b in zip(ours, theirs, strict=True))
    return Check(what=f"{what} of {len(ours)}", difference=count, difference_unit="items", limit=0)


def write(
    output: Any,
    *,
    report: Report,
    model: str,
    add_bos: bool | None,
    task: str,
    spec: dict[str, Any],
    tokens: int,
    threads: int,
) -> None:
    """Write `Answered` as JSON: what `lm_eval.evaluator.evaluate` does with `HFLM`, a sequence in a batch.

    model: a folder of safetensors. spec: as `make_questions` takes it. tokens: of an answer.
    """
    import torch
    from lm_eval import evaluator

    torch.set_num_threads(threads)
    report(f"lm-eval {task}", 0, 1)
    asked = load_task(task, spec)
    asked.set_config("generation_kwargs", {"max_gen_toks": tokens}, update=True)
    lm = _noting_class()(pretrained=model, device="cpu", dtype="float32", batch_size=1, add_bos_token=add_bos)
    results = evaluator.evaluate(
        lm,
        {"tasks": {task: asked}, "groups": {}, "group_map": {}},
        limit=spec["items"],
        bootstrap_iters=0,
        apply_chat_template=spec["chat"],
        fewshot_as_multiturn=spec["chat"] and spec["turns"],
        system_instruction=spec["system"],
    )
    samples = results["samples"][task]
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    in_order = sorted((s for s in samples if s["filter"] == filters[0]), key=lambda s: s["doc_id"])
    written = [lm.written[sample["arguments"][0][0]] for sample in in_order]
    metric = next(iter(asked.aggregation()))
    answered = Answered(
        prompts=[prompt for prompt, _ in written],
        texts=[text for _, text in written],
        shares={each: results["results"][task][f"{metric},{each}"] for each in filters},
    )
    write_atomic(output, answered.model_dump_json().encode())


def _noting_class() -> Any:
    """Return lm-eval's class for transformers, extended to keep the ids of prompt and text, by the text of the
    prompt."""
    from lm_eval.models.huggingface import HFLM

    class Noting(HFLM):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.written: dict[str, tuple[list[int], list[int]]] = {}
            self.asked = ""

        def tok_batch_encode(self, strings: Any, *arguments: Any, **options: Any) -> Any:
            (self.asked,) = strings
            return super().tok_batch_encode(strings, *arguments, **options)

        def _model_generate(self, context: Any, **options: Any) -> Any:
            ids = super()._model_generate(context=context, **options)
            prompt = context[0].tolist()
            self.written[self.asked] = prompt, ids[0, len(prompt) :].tolist()
            return ids

    return Noting
