"""Wrong input, end to end: the exit status, a message that names file, key and remedy, and nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from quantgate.records import Status

from selftest.plugin.runs import F16, Q4, statuses
from selftest.project import Project, Result, Table

if TYPE_CHECKING:
    from selftest.tiny import TinyModel


def assert_usage_error(result: Result, *words: str) -> None:
    """Exit status 4, everything in plain words, nothing measured."""
    assert result.status == 4, result.output
    for word in words:
        assert word in result.output
    assert "Traceback" not in result.output
    assert "INTERNALERROR" not in result.output
    assert result.measured == []


def test_a_text_in_another_encoding_is_a_usage_error(project: Project) -> None:
    project.folder.mkdir(parents=True)
    project.text.write_bytes(b"caf\xe9 au lait. " * 500)
    assert_usage_error(
        project.run(), "text.txt: is not UTF-8: byte 0xe9 at offset 3 (line 1)", "iconv -f LATIN1"
    )


@pytest.mark.slow
def test_a_task_without_data_fails_alone(project: Project) -> None:
    """Its case and the mean's; what takes other texts and tasks is measured, and nothing is cached without it."""
    project.matrix["tiers"]["smoke"].update(accuracy={"tasks": ["race"], "items": 2})
    project.limit = 600  # lm-eval is imported
    result = project.run("-k", "F16 and not memory or accuracy")  # of Q4_K_M, accuracy alone
    cases = {name.partition("[")[0]: outcome for name, outcome in result.cases.items() if F16 in name}
    assert cases == {
        "accuracy": "failed", "mean_accuracy": "failed",
        "perplexity": "skipped", "tokenizer": "skipped",
    }  # fmt: skip
    assert result.status == 10
    for metric in ("accuracy/race", "accuracy/mean"):
        assert "task 'race': it cannot be loaded from" in result.verdict(F16, metric).text
    assert project.measurement(F16).metrics.keys() >= {"perplexity", "tokenizer/mismatches"}
    assert {case.partition("[")[0] for case in result.failed() if Q4 in case} == {"accuracy", "mean_accuracy"}
    assert statuses(result, Q4) == {Status.ERROR}


# --- the matrix --------------------------------------------------------------------------------------


def cells(*ids: str) -> Callable[[Table], object]:
    return lambda matrix: matrix["tiers"]["smoke"].update(cells=list(ids))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            cells("tinny/llamacpp/F16"),
            ["tiers.smoke.cells", "a model that this file does not have: 'tinny'", "Did you mean 'tiny'?"],
        ),
        (cells("tiny/lamacpp/F16"), ["tiers.smoke.cells", "an unknown backend: 'lamacpp'", "transformers"]),
        (
            cells("tiny/llamacpp/Q4KM"),
            ["tiers.smoke.cells", "a scheme that llamacpp does not have: 'Q4KM'", "Q4_K_M"],
        ),
        (
            lambda matrix: matrix["tiers"]["smoke"].update(accuracy={"tasks": ["arc_eazy"]}),
            ["unknown task 'arc_eazy'", "lm-eval ls tasks"],
        ),
        (
            lambda matrix: matrix["tiers"]["smoke"]["perplexity"].update(window=8),
            ["tiers.smoke.perplexity.window: unknown key", "Did you mean 'windows'?"],
        ),
    ],
    ids=["model", "backend", "scheme", "task", "key"],
)
def test_what_the_matrix_names_and_nobody_knows(
    project: Project, change: Callable[[Table], object], words: list[str]
) -> None:
    change(project.matrix)
    result = project.run()
    assert_usage_error(result, *words)
    assert f"{project.matrix_file}: " in result.output


def test_malformed_toml(project: Project) -> None:
    path = project.folder / "mine.toml"
    project.write()
    path.write_text("[models.tiny]\nlicense = MIT\n")
    result = project.run("--matrix", str(path))
    assert_usage_error(result, f"{path}: is not valid TOML", "line 2, column 11")


def test_a_text_that_nobody_knows(project: Project) -> None:
    project.matrix["tiers"]["smoke"]["perplexity"]["text"] = "bolq"
    del project.options["--text"]
    assert_usage_error(project.run(), "no text 'bolq'", "boolq", "wikitext2")


# --- options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tier", "smoky"], ["matrix.toml: no tier 'smoky'. Did you mean 'smoke'?", "timed"]),
        (["--matrix", "nowhere.toml"], ["nowhere.toml: no such file"]),
        (["--text", "nowhere.txt"], ["--quantgate-text nowhere.txt: no such file"]),
        (["--tolerances", "nowhere.toml"], ["nowhere.toml: no such file"]),
        (["--threads", "0"], ["--threads 0: must be 1 or more"]),
        (["--machine", "../bench"], ["machine '../bench'", "letters, digits"]),
        (["--machine", ""], ["machine ''", "letters, digits"]),
        (
            ["--reason", "why"],
            ["--reason has no effect without --update-baselines: add that, or remove --reason"],
        ),
        (["--accept-regressions"], ["--accept-regressions has no effect without --update-baselines"]),
        (["--re-anchor"], ["--re-anchor has no effect without --update-baselines"]),
        (["--executor", "slurm"], ["--executor 'slurm': must be ray, or ray=HOST:PORT"]),
        (
            ["--executor", "ray", "--machine", "bench"],
            ["--machine cannot be combined with --executor: it stands for this machine"],
        ),
        (["--executor", "ray", "-n", "2"], ["--executor cannot be combined with -n: Ray spreads the cells"]),
        (["--mixed-nodes"], ["--mixed-nodes has no effect without --executor"]),
        (["--pairs", "4"], ["--pairs has no effect without --against"]),
        (["--pairs", "0"], ["--pairs 0: must be 2 or more"]),
        (["--baselines="], ["argument --baselines: names nothing: give a path, or leave the option out"]),
        (["--update-baselines", "--reason", " "], ["--update-baselines needs --reason"]),
        (
            ["--update-baselines", "--reason", "why", "-n", "2"],
            ["--update-baselines cannot be combined with -n: one process writes baselines; -n 0 ends"],
        ),
    ],
    ids=lambda value: value[0].lstrip("-") if value[0].startswith("-") else "",
)
def test_options_that_make_no_sense(project: Project, arguments: list[str], words: list[str]) -> None:
    assert_usage_error(project.run(*arguments), *words)


def test_a_cache_in_the_home_of_nobody(project: Project) -> None:
    project.write()
    result = project.run(QUANTGATE_CACHE="~nobody-of-this-name/cache")
    assert_usage_error(result, "this user has none: set QUANTGATE_CACHE")


def test_a_folder_that_is_a_file(project: Project) -> None:
    project.write()
    result = project.run("--baselines", str(project.text))
    assert_usage_error(result, f"--baselines {project.text}: is a file, not a folder")


def test_a_folder_that_cannot_be_made(project: Project) -> None:
    project.write()
    result = project.run("--results", str(project.text / "results"))
    assert_usage_error(
        result, f"{project.text}/results: Not a directory; name a folder that can be written with --results"
    )


# --- checkpoints -------------------------------------------------------------------------------------


def test_checkpoints_that_cannot_be_loaded_are_errors_of_their_cells(
    baselined: Project, tiny: TinyModel
) -> None:
    """Cut in half, not there, weights that could run code: the reason in plain words, and the other cell judged."""
    half, pickled = baselined.folder / "half.gguf", baselined.folder / "pickled"
    half.write_bytes(tiny.gguf.read_bytes()[: tiny.gguf.stat().st_size // 2])
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    models: dict[str, tuple[dict[str, object], list[str]]] = {
        "half": ({"gguf": half}, [f"{half}: is cut off: ", f"the file at {half.stat().st_size:,}"]),
        "absent": (
            {"gguf": "nowhere.gguf"},
            ["nowhere.gguf: no such file or folder", f"(named by {baselined.matrix_file})"],
        ),
        "pickled": (
            {"weights": pickled},
            [f"{pickled}: has its weights in pytorch_model.bin, a format that is not loaded"],
        ),
    }
    for name, (sources, _) in models.items():
        paths = {kind: {"path": str(path)} for kind, path in sources.items()}
        baselined.matrix["models"][name] = {**baselined.matrix["models"]["tiny"], **paths}
    baselined.matrix["tiers"]["smoke"]["cells"] = [F16, *(f"{name}/llamacpp/F16" for name in models)]
    result = baselined.run("--reuse")
    assert result.status == 10, result.output
    for name, (_, words) in models.items():
        verdict = result.verdict(f"{name}/llamacpp/F16", "perplexity")
        assert verdict.status == Status.ERROR
        for word in words:
            assert word in verdict.text
    assert "Traceback" not in result.output
    assert statuses(result, F16) == {Status.PASS}
