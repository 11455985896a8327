"""The check that is prepared for a GPU: its rows, its time, its counts by hand, and a rehearsal of it on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomlkit
from quantgate.config.toml_input import read_toml
from quantgate.errors import MeasurementError
from quantgate.machine.environment import cuda_devices
from quantgate.proofs.checks import Check, Outcome, number
from quantgate.proofs.cuda import __main__ as module
from quantgate.proofs.cuda import command, rows, timed
from quantgate.proofs.cuda.bed import Bed, NoTimeError, NotTriedError, installed, reason_of
from quantgate.proofs.cuda.catalogue import Entry, catalogue
from quantgate.proofs.cuda.config import CUDA, load_config
from quantgate.proofs.cuda.counts import Llama
from quantgate.proofs.cuda.prepare import document

from selftest.forked import start

if TYPE_CHECKING:
    from selftest.tiny import TinyModel

CONFIG = load_config()


def bed_of(folder: Path, **limits: int) -> Bed:
    rehearsal = CONFIG.rehearsal.model_copy(update=limits)
    return Bed(
        config=CONFIG.model_copy(update={"rehearsal": rehearsal}), device="cpu", threads=1, work=folder / "work",
        results=folder, say=lambda *_: None,
    )  # fmt: skip


def on_gpu(folder: Path) -> Bed:
    return Bed(
        config=CONFIG, device="cuda", threads=1, work=folder / "work", results=folder, say=lambda *_: None
    )


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    with closing(bed_of(tmp_path)) as one:
        yield one


def raising(error: Exception) -> Callable[..., list[Check]]:
    def compare(*_: object, **__: object) -> list[Check]:
        raise error

    return compare


@pytest.mark.parametrize(
    ("error", "outcome", "text"),
    [
        (NotTriedError("torchao is not installed"), Outcome.NOT_TRIED, "torchao is not installed"),
        (MeasurementError("was killed by SIGSEGV"), Outcome.ERROR, "was killed by SIGSEGV"),
        (ZeroDivisionError("of nothing"), Outcome.ERROR, "ZeroDivisionError: of nothing"),
    ],
)
def test_what_fails_stays_in_its_row(bed: Bed, error: Exception, outcome: Outcome, text: str) -> None:
    row = command.check(Entry("one", "", raising(error)), bed)
    assert row.outcome == outcome
    assert text in row.error + row.not_tried


def test_a_row_without_time_is_not_tried(tmp_path: Path) -> None:
    with closing(bed_of(tmp_path, seconds=1)) as bed:
        row = command.check(Entry("one", "", lambda _: []), bed)
    assert row.not_tried == f"no time is left of 1 s for all rows and {CONFIG.rehearsal.part} s for one"


def test_what_had_no_time_is_tried_again(bed: Bed) -> None:
    with pytest.raises(NoTimeError):
        bed.once("cell", bed.left)
    bed.begin_row()
    assert bed.once("cell", bed.left) > 0


def test_what_fails_is_run_once(bed: Bed) -> None:
    calls: list[int] = []

    def make() -> None:
        calls.append(1)
        raise MeasurementError("no memory")

    for _ in range(2):
        with pytest.raises(MeasurementError, match="no memory"):
            bed.once("cell", make)
    assert len(calls) == 1


def test_a_module_that_is_not_there_is_no_failure(tmp_path: Path) -> None:
    with closing(on_gpu(tmp_path)) as bed:
        bed.begin_row()
        with pytest.raises(NotTriedError, match=r"^No module named 'quantgate\.absent'$"):
            bed.run("quantgate.absent:function", tmp_path / "output")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            "ImportError: torchao is too old (the process ended with exit status 1)\n full log: x",
            "torchao is too old",
        ),
        (
            "this llama-cpp-python was built without CUDA: rebuild it (the process ended ...)",
            "this llama-cpp-python was built without CUDA",
        ),
    ],
)
def test_what_a_library_cannot_do_is_no_failure(error: str, reason: str) -> None:
    assert isinstance(answer := reason_of(MeasurementError(error)), NotTriedError)
    assert str(answer) == reason
    assert isinstance(reason_of(MeasurementError("was killed by SIGSEGV")), MeasurementError)


def test_without_scipy_only_decoding_is_not_tried(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows.DECODING
    assert not installed("quantgate_absent")
    monkeypatch.setattr(rows, "DECODING", ())
    [entry] = (entry for entry in catalogue() if entry.name == "decoding/fp32")
    assert command.check(entry, bed).not_tried == "scipy is not installed"


def test_schemes_of_the_device_are_held_against_the_cpu(tmp_path: Path) -> None:
    """Those of matrix.toml, which the gate runs, and not the reference that they have there."""
    with closing(on_gpu(tmp_path)) as bed:
        for backend, scheme in (
            ("transformers", "fp32"), ("transformers", "fp16"), ("transformers", "bf16"), ("bitsandbytes", "int8"),
            ("bitsandbytes", "nf4"), ("transformers", "torchao-int8"), ("transformers", "torchao-fp8"),
        ):  # fmt: skip
            cell = bed.cell("pocket-3m", scheme, backend)
            assert cell.scheme_options["device"] == "cuda"
            assert cell.reference == "pocket-3m/transformers/fp32"
            assert bed.bench.modules(cell) == []
        assert bed.cell("qwen3-pocket", "Q4_K_M", "llamacpp").as_is is not None
        assert bed.cell("llama", "bf16").model == "llama"


def test_weights_counted_by_hand_are_those_of_the_library(tiny: TinyModel) -> None:
    from safetensors.torch import load_file

    config = json.loads((tiny.safetensors / "config.json").read_text())
    sizes = Llama.of(config, 4)
    assert sizes.weights == sum(t.nbytes for t in load_file(tiny.safetensors / "model.safetensors").values())
    assert sizes.cache(60) == 60 * 2 * 2 * 2 * 64 * 4
    peaks = sizes.peaks(60, 4)
    assert peaks["load"] == sizes.weights
    assert peaks["prefill"] - peaks["decode"] == 59 * (3 * 512 + 2 * 256) * 4


def test_large_models_have_a_billion_weights() -> None:
    assert 1.0e9 < Llama.of(CONFIG.device.models["llama"], 2).parameters < 1.3e9


def test_bounds_of_bytes_are_written_in_full() -> None:
    assert number(4194304.0, "bytes") == "4,194,304 bytes"


def test_names_are_unique_and_the_text_is_there() -> None:
    names = [entry.name for entry in catalogue()]
    assert len(set(names)) == len(names)
    assert len(document()) > 16 * CONFIG.text_tokens


@pytest.mark.skipif(cuda_devices() > 0, reason="this machine has a CUDA device")
def test_without_a_device_it_says_how_to_rehearse(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["--results", str(tmp_path)]) == 4
    assert "this machine has no CUDA device; --device cpu rehearses the check" in capsys.readouterr().err


def test_missing_modules_are_named_before_anything_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "NEEDED", ("numpy", "quantgate_absent"))
    assert module.main(["--device", "cpu"]) == 4
    assert capsys.readouterr().err.startswith("not installed: quantgate_absent. Install them, or bring")


def test_a_step_that_cannot_be_compiled_is_not_tried(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bed, "job", lambda *_: {})
    bed.begin_row()
    monkeypatch.setattr(Bed, "values", raising(MeasurementError("no compiler")))
    row = command.check(Entry("time/compiled", "", partial(timed.faster, name="compiled")), bed)
    assert row.not_tried == "fails here: no compiler"


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> dict[str, Any]:
    """All rows but those that only need a library that takes long to import, on fewer data than are shipped."""
    folder = tmp_path_factory.mktemp("rehearsal")
    shipped = read_toml(CUDA)
    shipped |= {"pocket": ["pocket-660k"], "items": 4}
    shipped["rehearsal"]["rounds"] = 20
    (folder / "cuda.toml").write_text(tomlkit.dumps(shipped))
    arguments = ["--device", "cpu", "-k", "^(?!torchao|llamacpp)", "--markdown", "table.md"]
    arguments += ["--config", "cuda.toml"]
    status, output = start("quantgate.proofs.cuda", arguments, folder, environment).finish(900)
    assert status == 0, output
    assert "rehearsed on the CPU" in (folder / "table.md").read_text()
    kept: dict[str, Any] = json.loads((folder / ".quantgate" / "cuda" / command.FILE).read_text())
    return kept


@pytest.mark.slow
def test_the_rehearsal_runs_every_row_that_makes_sense(rehearsed: dict[str, Any]) -> None:
    outcomes = {row["name"]: row["outcome"] for row in rehearsed["rows"]}
    assert list(outcomes) == [e.name for e in catalogue() if not e.name.startswith(("torchao", "llamacpp"))]
    not_tried = {name for name, outcome in outcomes.items() if outcome == "not tried"}
    assert not_tried == {"memory/peaks", "memory/reset"}
    assert set(outcomes.values()) == {"within", "not tried"}


def test_the_rehearsal_finds_what_is_there_to_find(rehearsed: dict[str, Any]) -> None:
    what = {row["name"]: [check["what"] for check in row["checks"]] for row in rehearsed["rows"]}
    assert "hybrid, takes the plain way; plain is right" in what["scoring/bf16"]
    assert "llama, takes the shared way; shared is right" in what["scoring/bf16"]
    assert "can't allocate memory" in what["process/out-of-memory"][0]
    differences = {row["name"]: [check["difference"] for check in row["checks"]] for row in rehearsed["rows"]}
    assert all(value > 1e-4 for value in differences["likelihood/bf16"]), "bf16 is not fp32"
    assert set(differences["determinism/bf16"]) == {0.0}
