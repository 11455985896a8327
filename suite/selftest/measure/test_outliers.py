"""Outlier statistics: exact values from given inputs, and a gate that sees them move either way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import transformers as library
from numpy.typing import NDArray
from quantgate.backends.runtime import transformers
from quantgate.config.tolerances import load_tolerances
from quantgate.errors import MeasurementError
from quantgate.items import Text
from quantgate.jobs import Job
from quantgate.judge.judge import Subject, reproduction
from quantgate.measure.metrics import outliers
from quantgate.measure.metrics.outliers import kurtosis, largest_to_median
from quantgate.measure.session import measure_cell
from scipy import stats

from selftest.backends.test_loading import gpt2, saved
from selftest.measure.fakes import Bigrams, Here
from selftest.project import Project

Look = Callable[[str, NDArray[np.float32]], None]


class Layers(Bigrams):
    """Two layers: the inputs of one are the tokens, of the other the tokens with a large first one."""

    def inputs(self, ids: Sequence[int], look: Look) -> None:
        plain = np.array(ids, dtype=np.float32)[:, None]
        look("plain", plain)
        spiky = plain.copy()
        spiky[0] = 100
        look("spiky", spiky)


IDS = [1, 2, 3, 4, 5, 6, 3, 2, 2, 1, 4, 4, 5, 1, 1, 6]


@pytest.fixture
def here(tmp_path: Path) -> Here:
    here = Here(tmp_path, Layers())
    here.write("text-t.json", Text(ids=IDS, starts=[*range(17)], bos=None, hash="t1").model_dump_json())
    return here


def test_statistics_are_those_of_the_definition() -> None:
    values = np.random.default_rng(0).normal(2, 3, (40, 50)).astype(np.float32)
    assert kurtosis(values) == pytest.approx(stats.kurtosis(values, axis=None, fisher=False), rel=1e-5)
    assert largest_to_median(np.array([[-8.0, 1.0], [2.0, 0.5]])) == pytest.approx(8 / 1.5)
    assert largest_to_median(10 * values) == pytest.approx(largest_to_median(values), rel=1e-6)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0, 1.0], [math.nan] * 4])
def test_broken_weights_are_said(values: list[float]) -> None:
    with pytest.raises(MeasurementError, match="broken weights"):
        largest_to_median(np.array(values))


def test_a_value_is_the_geometric_mean_of_layers_and_windows(here: Here) -> None:
    metrics = here.measure(outliers, "t", texts=["t"], n_ctx=8, windows=2)
    assert set(metrics) == {"outliers/t/ratio", "outliers/t/kurtosis"}
    rows = [np.array(IDS[:8], dtype=float), np.array(IDS[8:], dtype=float)]
    spiky = [np.array([100, *row[1:]]) for row in rows]
    ratios = [[np.max(v) / np.median(v) for v in pair] for pair in zip(rows, spiky, strict=True)]
    metric = metrics["outliers/t/ratio"]
    assert metric.samples == pytest.approx([np.log(pair).mean() for pair in ratios])
    assert metric.value == pytest.approx(math.exp(np.log(ratios).mean()))
    layers = metric.raw["layers"]
    assert list(layers) == ["plain", "spiky"]
    assert layers["spiky"] == pytest.approx(math.exp(np.log([pair[1] for pair in ratios]).mean()))
    assert metric.conditions["tokens"] == "t1"
    assert here.progress[-1] == ("outliers", 1.0, 1)


def test_the_layers_of_gpt2_are_linear_ones_too(tmp_path: Path) -> None:
    names: list[str] = []
    model = transformers.load(saved(tmp_path / "m", gpt2()), {"device": "cpu", "dtype": "float32"}, 1)
    model.inputs([1, 2, 3], lambda name, inputs: names.append(name.partition(".h.")[2]))
    each = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert names == [f"{layer}.{name}" for layer in (0, 1) for name in each]


def test_a_layer_shows_all_tokens_whatever_shape_the_model_hands_it(tmp_path: Path) -> None:
    """OPT takes the axis of the batch away before its feed-forward layers."""
    config = library.OPTConfig(
        vocab_size=64, hidden_size=64, ffn_dim=128, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=64,
    )  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {}
    model = transformers.load(saved(tmp_path / "m", config), {"device": "cpu", "dtype": "float32"}, 1)
    model.inputs([1, 2, 3, 4, 5], lambda name, inputs: shapes.update({name: inputs.shape}))
    layers = {name.rpartition(".")[2]: shape for name, shape in shapes.items()}
    assert layers == {
        **dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj", "fc1"), (5, 64)), "fc2": (5, 128)
    }  # fmt: skip


@pytest.mark.parametrize("shown", [[], [0]])
def test_layers_without_inputs_in_a_window_are_said(here: Here, shown: list[int]) -> None:
    class Partial(Layers):
        windows = 0

        def inputs(self, ids: Sequence[int], look: Look) -> None:
            if self.windows in shown:
                super().inputs(ids, look)
            self.windows += 1

    here.backend = Partial()
    with pytest.raises(MeasurementError, match="not all linear layers show their inputs in each window"):
        here.measure(outliers, "t", texts=["t"], n_ctx=8, windows=2)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_outliers_that_move_are_seen_either_way(here: Here, factor: float) -> None:
    """More or fewer: both are another model than was accepted."""
    name, cell = "outliers/t/ratio", "tiny/transformers/fp32"
    before = here.measure(outliers, "t", texts=["t"], n_ctx=8, windows=2)[name]
    same = load_tolerances().of_reproduction(name, cell)
    assert same is not None
    for changed, status in ((1.0, "pass"), (factor, "changed")):
        samples = [x + math.log(changed) for x in before.samples or ()]
        now = before.model_copy(update={"samples": samples, "value": before.value * changed})
        assert reproduction(Subject(cell, name), now, before, same).status == status


@pytest.mark.slow
def test_the_gate_measures_accepts_and_repeats(project: Project) -> None:
    """The second time in this process, which has the library, as a measuring process does."""
    cell, smoke = "tiny/transformers/fp32", project.matrix["tiers"]["smoke"]
    smoke["cells"] = [cell]
    smoke["outliers"] = {"texts": ["boolq"], "n_ctx": 32, "windows": 16}  # of the text that others have made
    accepted = project.update("-m", "outliers")
    assert accepted.status == 0, accepted.output
    record = project.results / "smoke" / f"{cell}.json"
    job = Job.model_validate_json(record.with_name("fp32~job.json").read_bytes())
    record.unlink()
    measure_cell(job.model_copy(update={"output": record}))
    again = project.run("-m", "outliers", "--reuse")
    assert again.measured == []
    assert (again.status, again.cases) == (0, {f"outliers[{cell}/boolq]": "passed"})
    assert {v.status for v in again.verdicts} == {"pass"}


def test_one_text_in_place_of_several_that_are_compared_is_refused(project: Project) -> None:
    project.matrix["tiers"]["smoke"]["outliers"] = {"texts": ["boolq", "code"], "n_ctx": 32, "windows": 4}
    result = project.run()
    assert result.status == 4
    assert (
        "--quantgate-text cannot be combined with tier smoke, which compares several texts (outliers): remove it"
        in result.output
    )
