"""lm-evaluation-harness's model class and the suite on 20 items: same tokens, log-likelihoods and judgements."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from pydantic import TypeAdapter
from quantgate.config.toml_input import read_toml
from quantgate.errors import MeasurementError
from quantgate.proofs.peers import harness
from quantgate.proofs.peers.config import PEERS
from quantgate.proofs.peers.outcome import largest_difference

from selftest.forked import start
from selftest.project import Project
from selftest.run.test_as_is_answers import with_tasks
from selftest.tiny import TinyModel

__all__ = ["with_tasks"]


def arc(n: int) -> dict[str, Any]:
    texts = ["on the road", "two sacks of rye", "Vega", "in winters"]
    label = ["1234", "ABCD"][n % 2]
    return {
        "question": f"The keeper wrote down {200 + n} ships; what was it that he counted, and where?",
        "choices": {"text": texts[n % 3 :] + texts[: n % 3], "label": list(label)},
        "answerKey": label[n % 4],
    }


def piqa(n: int) -> dict[str, Any]:
    return {
        "goal": f"Boil {n} eggs well",
        "sol1": "put them into boiling water, and take them out after six minutes.",
        "sol2": "put them into the old bridge.",
        "label": n % 2,
    }


def quiet(*_: object) -> None: ...


def lm_evals(
    output: Path, tiny: TinyModel, tasks: dict[str, dict[str, Any]], gguf: Path | None = None
) -> dict[str, harness.TaskScores]:
    """What lm-eval makes of the tasks, left at `output`."""
    harness.score(
        output, report=quiet, model=str(tiny.safetensors), gguf=str(gguf) if gguf else None, add_bos=None,
        tasks=tasks, batch_sizes=[4], softmax="float64", threads=1,
    )  # fmt: skip
    return TypeAdapter(harness.Scores).validate_json(output.read_bytes())[4]


@pytest.mark.parametrize("examples", [0, 3])
def test_loglikelihoods_are_those_of_lm_evals_class(tiny: TinyModel, tmp_path: Path, examples: int) -> None:
    """20 items, with and without examples before them: the same tokens, the same log-likelihoods, the same judgement of
    each."""
    import datasets
    from quantgate.backends.runtime import transformers as backend
    from quantgate.measure.metrics.accuracy import groups_of, item_metrics
    from quantgate.measure.scoring import score
    from quantgate.supply.encoder import Encoder
    from quantgate.supply.tasks import make_task

    datasets.disable_progress_bars()
    specs: dict[str, dict[str, Any]] = {}
    for name, document_of in (("arc_easy", arc), ("piqa", piqa)):
        folder = tmp_path / name
        datasets.Dataset.from_list([document_of(n) for n in range(10)]).save_to_disk(folder)
        specs[name] = {"folder": str(folder), "split": "validation", "items": 10, "fewshot": examples}
    theirs = lm_evals(tmp_path / "scores.json", tiny, specs)
    model = backend.load(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1)
    for name, spec in specs.items():
        task = make_task(name, spec, Encoder(tiny.safetensors, None))
        harness.check_tokens(task, theirs[name])
        scored = score(model, groups_of(task), 256)
        ours = [[choice.total for choice in item] for item in scored]
        assert largest_difference(ours, theirs[name].loglikelihoods) < 5e-4
        assert harness.predicted_differently(task, ours, theirs[name], tie=0.0) == 0
        judged = [item_metrics(task, item, choices) for item, choices in zip(task.items, scored, strict=True)]
        samples = {metric: [j[metric] for j in judged] for metric in task.metrics}
        assert harness.judged_differently(samples, theirs[name]) == 0
        assert theirs[name].seconds > 0
        # What would be seen if it were otherwise:
        turned = {metric: [1 - value for value in values] for metric, values in samples.items()}
        assert harness.judged_differently(turned, theirs[name]) == 10
        other = [[-value for value in item] for item in ours]
        assert harness.predicted_differently(task, other, theirs[name], tie=0.0) > 5
        cut = theirs[name].model_copy(update={"tokens": theirs[name].tokens[:-1]})
        with pytest.raises(
            MeasurementError, match=f"{name}: lm-eval and the suite scored different tokens, first at item 9"
        ):
            harness.check_tokens(task, cut)


def test_items_beyond_the_positions_are_cut_as_lm_eval_cuts_them(tiny: TinyModel, tmp_path: Path) -> None:
    import datasets
    from quantgate.backends.runtime import transformers as backend
    from quantgate.measure.metrics.accuracy import groups_of
    from quantgate.measure.scoring import fitted, score
    from quantgate.supply.encoder import Encoder
    from quantgate.supply.tasks import make_task

    short = TinyModel(shutil.copytree(tiny.safetensors, tmp_path / "short"), tiny.gguf)
    config = short.safetensors / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 40}))
    datasets.Dataset.from_list([piqa(n) for n in range(10)]).save_to_disk(tmp_path / "piqa")
    spec = {"folder": str(tmp_path / "piqa"), "split": "validation", "items": 10, "fewshot": 1}
    theirs = lm_evals(tmp_path / "scores.json", short, {"piqa": spec})["piqa"]
    model = backend.load(short.safetensors, {"device": "cpu", "dtype": "float32"}, 1)
    whole = groups_of(make_task("piqa", spec, Encoder(short.safetensors, None)))
    groups, cut = fitted(whole, model.sizes().positions)
    assert cut > 0
    ours = [[choice.total for choice in item] for item in score(model, groups, 256)]
    assert largest_difference(ours, theirs.loglikelihoods) < 5e-4
    uncut = [[choice.total for choice in item] for item in score(model, whole, 256)]
    assert largest_difference(uncut, theirs.loglikelihoods) > 5e-2


def test_lm_eval_takes_the_weights_of_a_gguf(tiny: TinyModel, tmp_path: Path) -> None:
    """In full precision they are the folder's; quantized they come closer to what llama.cpp makes of that file than the
    folder's do."""
    import datasets
    from quantgate.backends.runtime.llamacpp import load
    from quantgate.measure.metrics.accuracy import groups_of
    from quantgate.measure.scoring import score
    from quantgate.supply.checkpoints import quantize_gguf
    from quantgate.supply.encoder import Encoder
    from quantgate.supply.tasks import make_task

    folder = tmp_path / "piqa"
    datasets.Dataset.from_list([piqa(n) for n in range(10)]).save_to_disk(folder)
    spec = {"folder": str(folder), "split": "validation", "items": 10, "fewshot": 0}

    def lm_eval(gguf: Path | None) -> list[list[float]]:
        return lm_evals(tmp_path / "scores.json", tiny, {"piqa": spec}, gguf)["piqa"].loglikelihoods

    coarse = tmp_path / "Q4_0.gguf"
    quantize_gguf(coarse, report=quiet, gguf=str(tiny.gguf), ftype="Q4_0", threads=1)
    folders = lm_eval(None)
    assert largest_difference(lm_eval(tiny.gguf), folders) < 1e-4
    task = make_task("piqa", spec, Encoder(tiny.safetensors, None))
    scored = score(load(coarse, {"device": "cpu"}, 1), groups_of(task), 256)
    ours = [[choice.total for choice in item] for item in scored]
    assert largest_difference(ours, lm_eval(coarse)) < largest_difference(ours, folders) / 4


@pytest.mark.slow
def test_the_command_scores_10_items_as_lm_eval_does(with_tasks: Project) -> None:
    project = with_tasks
    project.write()
    config = read_toml(PEERS)
    config["likelihood"] |= {
        "tasks": ["arc_easy", "winogrande"],  # choices that differ in their ends, and in their contexts
        "nats": {"transformers/fp32": 5e-4, "llamacpp/F16": 0.2},
    }
    peers, report = project.folder / "peers.toml", project.folder / "peers.json"
    peers.write_text(tomlkit.dumps(config))
    words = ["-k", "^likelihood/(transformers|llamacpp/F16)", "--items", "5", "--json", str(report)]
    words += [
        "--matrix",
        str(project.matrix_file),
        "--model",
        "tiny",
        "--config",
        str(peers),
        "--threads",
        "1",
    ]
    words += ["--results", str(project.results)]
    status, output = start("quantgate.proofs.peers", words, project.folder, project.environment).finish(600)
    assert status == 0, output
    full, half = json.loads(report.read_bytes())
    difference, judged = full["checks"]
    assert 0 < difference["difference"] < 5e-4
    assert judged["difference"] == 0
    same_weights, predicted, before_rounding, _ = half["checks"]
    assert 0 < same_weights["difference"] < 0.1
    assert same_weights["limit"] == 0.2
    assert predicted["difference"] == 0
    assert before_rounding["limit"] is None
    assert before_rounding["difference"] != same_weights["difference"], "other weights"
