"""Texts and tasks of a user's own matrix: where they lie, what pins them, and what a change of them changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.config.data import TaskEntry, TextEntry
from quantgate.errors import InputError
from quantgate.items import RULES, Questions
from quantgate.machine.environment import Environment
from quantgate.processes.progress import ignore_progress
from quantgate.supply.encoder import Encoder, read_text
from quantgate.supply.maker import Maker
from quantgate.supply.marks import mark
from quantgate.supply.sources import Sources, task_file
from quantgate.supply.tasks import make_task
from quantgate.supply.workload import make_workload

if TYPE_CHECKING:
    from selftest.tiny import TinyModel

CAPITALS = """\
task: capitals
output_type: multiple_choice
doc_to_text: "{{country}}:"
doc_to_choice: "{{cities}}"
doc_to_target: "{{right}}"
metric_list: [{metric: acc}]
"""
WRITTEN = """\
task: capitals
output_type: generate_until
doc_to_text: "{{country}}:"
doc_to_target: "{{cities[0]}}"
generation_kwargs: {until: ["."], max_gen_toks: 8}
process_results: !function rules.results
metric_list: [{metric: acc}]
"""
RESULTS = "def results(document, answers):\n    return {'acc': float(answers[0].strip() == document['cities'][0])}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with a matrix, a text and a task."""
    (tmp_path / "evals").mkdir()
    (tmp_path / "book.txt").write_text("One two three four. " * 20)
    (tmp_path / "evals" / "capitals.yaml").write_text(CAPITALS)
    write_rows(tmp_path, [["Bern", "Basel"], ["Vienna", "Graz"]])
    return tmp_path


def write_rows(folder: Path, cities: list[list[str]]) -> None:
    rows = [{"country": f"Land {n}", "cities": both, "right": 0} for n, both in enumerate(cities)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def sources(folder: Path, **changes: Any) -> Sources:
    """Those of the matrix in the folder. changes: keys of its task; None: without this key."""
    task = {"file": "evals/capitals.yaml", "jsonl": "rows.jsonl", **changes}
    return Sources(
        folder / "quantgate.toml",
        None,
        Maker(folder, 60.0, ignore_progress, Environment()),
        {"book": TextEntry(path="book.txt"), "boolq": TextEntry(jsonl="rows.jsonl", column="country")},
        {"capitals": TaskEntry.model_validate({k: v for k, v in task.items() if v is not None})},
    )


def made(folder: Path, tiny: TinyModel, **changes: Any) -> Any:
    place = sources(folder, **changes).task("capitals")
    return make_task("capitals", {**place, "items": 2}, Encoder(tiny.safetensors, None))


def test_paths_are_relative_to_the_matrix_and_its_names_go_first(folder: Path) -> None:
    here = sources(folder)
    assert here.text("book") == {"path": str(folder / "book.txt")}
    assert read_text(here.text("boolq")) == "Land 0\n\nLand 1"
    assert here.task("capitals") == {
        "file": str(folder / "evals" / "capitals.yaml"), "jsonl": str(folder / "rows.jsonl")
    }  # fmt: skip
    assert set(here._entries["tasks"]) > {"capitals", "hellaswag"}


def test_whatever_is_in_the_files_pins_them(folder: Path) -> None:
    def identities() -> list[str]:
        here = sources(folder)  # hashes are kept for a run
        return [json.dumps(one) for one in (here.text_identity("book"), here.task_identity("capitals"))]

    before = identities()
    assert identities() == before
    (folder / "book.txt").write_text("Other words.")
    write_rows(folder, [["Bern", "Basel"], ["Vienna", "Linz"]])
    rows = identities()
    (folder / "evals" / "other.yaml").write_text("task: other")
    assert identities() == rows
    assert [a != b for a, b in zip(before, rows, strict=True)] == [True, True]
    (folder / "evals" / "rules.py").write_text("# called")
    rules = identities()
    (folder / "evals" / "capitals.yaml").write_text("include: base.yaml\n")
    for text in (CAPITALS, f"include: [other.yaml]\n{CAPITALS}", f"include: [capitals.yaml]\n{CAPITALS}"):
        (folder / "evals" / "base.yaml").write_text(text)
        last, rules = rules, identities()
        assert [a != b for a, b in zip(last, rules, strict=True)] == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("include: ../base.yaml", "includes ../base.yaml, which has to be a file beside it"),
        ("include: [none.yaml]", "includes none.yaml, which has to be a file beside it"),
        ("task: [", "capitals.yaml: is not YAML"),
    ],
)
def test_a_part_of_a_task_that_would_not_be_pinned_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "base.yaml").write_text(CAPITALS)
    (folder / "evals" / "capitals.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        sources(folder).check_task("capitals")


def test_changed_items_and_changed_rules_are_conditions(folder: Path, tiny: TinyModel) -> None:
    """What differs in one of these is not comparable with the baseline."""

    def conditions() -> tuple[str, ...]:
        task = made(folder, tiny)
        return task.data_hash, task.prompt_hash, task.version

    before = conditions()
    write_rows(folder, [["Bern", "Basel"], ["Vienna", "Linz"]])
    other_rows = conditions()
    assert [a == b for a, b in zip(before, other_rows, strict=True)] == [False, False, True]
    file = folder / "evals" / "capitals.yaml"
    file.write_text(f"# a remark\n{CAPITALS}")
    assert conditions() == other_rows
    file.write_text(CAPITALS.replace("{{right}}", "{{1 - right}}"))
    assert [a == b for a, b in zip(other_rows, conditions(), strict=True)] == [True, True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jsonl": "row.jsonl"}, "tasks.capitals.jsonl: row.jsonl: no such file or folder"),
        ({"file": "capitals.yaml"}, "tasks.capitals.file: capitals.yaml: no such file or folder"),
        (
            {"jsonl": None, "folders": "data/*/test"},
            r"tasks.capitals.folders: data/\*/test: no such file or folder",
        ),
        ({"documents": "bbqq"}, "tasks.capitals.documents: cannot be 'bbqq'. Did you mean 'bbq'"),
        ({"file": None}, r"unknown task 'capitals': .*; one of yours needs \[tasks.capitals\] with `file`"),
    ],
)
def test_what_is_not_there_is_named_before_anything_is_made(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"quantgate.toml: {message}"):
        sources(folder, **changes).check_task("capitals")


def test_a_text_or_task_that_nobody_has_says_where_one_goes(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no text 'bok'; .*; one of yours needs \[texts.bok\] here"):
        sources(folder).text_identity("bok")
    (folder / "book.txt").unlink()
    with pytest.raises(
        InputError, match=r"quantgate.toml: texts.book.path: book.txt: no such file or folder"
    ):
        sources(folder).text_identity("book")


def test_a_file_with_another_name_for_the_task_is_refused(folder: Path, tiny: TinyModel) -> None:
    (folder / "evals" / "capitals.yaml").write_text(CAPITALS.replace("task: capitals", "task: cities"))
    with pytest.raises(
        InputError, match=r"capitals.yaml: has no task 'capitals': its key `task` must be the name"
    ):
        made(folder, tiny)


def test_two_files_of_one_task_in_a_folder_are_refused(folder: Path, tiny: TinyModel) -> None:
    """The harness takes the first that it comes across, whichever the matrix names."""
    (folder / "evals" / "old").mkdir()
    (folder / "evals" / "old" / "capitals.yaml").write_text(CAPITALS)
    (folder / "evals" / "a.yaml").write_text(CAPITALS.replace("{{right}}", "{{1 - right}}"))
    with pytest.raises(
        InputError, match=r"a.yaml: defines task 'capitals', as .*evals.capitals.yaml does: rename"
    ):
        made(folder, tiny)


def test_data_that_the_task_fetches_behind_the_back_of_the_matrix_is_refused(
    folder: Path, tiny: TinyModel
) -> None:
    more = "dataset_path: json\ntest_split: test\ndataset_kwargs: {data_files: {test: rows.jsonl}}\n"
    (folder / "evals" / "capitals.yaml").write_text(CAPITALS + more)
    place = {"file": str(folder / "evals" / "capitals.yaml")}
    with pytest.raises(InputError, match=r"names its data by `data_files`, .*lie in \[tasks.capitals\]"):
        make_task("capitals", {**place, "items": 2}, Encoder(tiny.safetensors, None))


def test_written_answers_are_marked_by_the_rules_that_the_workload_was_made_with(
    folder: Path, tiny: TinyModel, tmp_path: Path
) -> None:
    (folder / "evals" / "capitals.yaml").write_text(WRITTEN)
    (folder / "evals" / "rules.py").write_text(RESULTS)
    posed = {"items": 2, "chat": False, "system": None, "fewshot": None, "turns": True}
    make_workload(
        tmp_path / "workload", report=lambda *_: None, tokenizer=str(tiny.safetensors), add_bos=None, key="k",
        specs={"questions": {"capitals": {**sources(folder).task("capitals"), **posed}}},
    )  # fmt: skip
    (folder / "evals" / "rules.py").write_text(RESULTS.replace("[0])}", "[1])}"))
    questions = Questions.model_validate_json(
        (tmp_path / "workload" / "questions-capitals.json").read_bytes()
    )
    marks = mark(questions, ["Bern", "Graz"], rules=tmp_path / "workload" / RULES / "capitals")
    assert (questions.until, questions.limit, marks.solved) == (["."], 8, [1, 0])


@pytest.mark.slow
def test_rules_of_a_task_have_all_of_transformers(folder: Path, tiny: TinyModel, tmp_path: Path) -> None:
    """A workload of texts alone is made without torch."""
    (folder / "evals" / "capitals.yaml").write_text(WRITTEN)
    check = "from transformers.utils import is_torch_available\nassert is_torch_available()\n"
    (folder / "evals" / "rules.py").write_text(check + RESULTS)
    posed = {"items": 2, "chat": False, "system": None, "fewshot": None, "turns": True}
    specs = {"questions": {"capitals": {**sources(folder).task("capitals"), **posed}}}
    program = (
        "import json, sys; from pathlib import Path; from quantgate.supply.workload import main; "
        "main(Path(sys.argv[1]), report=print, tokenizer=sys.argv[2], add_bos=None, key='k', "
        "specs=json.loads(sys.argv[3]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "w"), str(tiny.safetensors), json.dumps(specs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_group_of_tasks_is_told_from_a_name_that_nobody_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval

    for name in ("arc", "headqa", "mmlu_pro"):  # of 14,000 files
        shutil.copytree(Path(lm_eval.__file__).parent / "tasks" / name, tmp_path / "tasks" / name)
    monkeypatch.setattr("quantgate.supply.sources.package_folder", lambda name: tmp_path)
    assert task_file("arc_easy").name == "arc_easy.yaml"
    for name in ("ai2_arc", "headqa", "mmlu_pro"):
        with pytest.raises(
            InputError, match=f"unknown task '{name}': a group of tasks .*: name those of it that"
        ):
            task_file(name)
    with pytest.raises(
        InputError, match="unknown task 'ai2_ar': lm-evaluation-harness has none of this name"
    ):
        task_file("ai2_ar")


def test_an_empty_prompt_needs_a_token_to_begin_with(folder: Path, tiny: TinyModel) -> None:
    (folder / "evals" / "capitals.yaml").write_text(CAPITALS.replace("{{country}}:", ""))
    assert made(folder, tiny).items[0].choices[0].context == [0]
    place = {**sources(folder).task("capitals"), "items": 2}
    encoder = Encoder(tiny.safetensors, None)
    encoder.tokenizer.bos_token = encoder.tokenizer.eos_token = None
    with pytest.raises(InputError, match="task 'capitals': a prompt is empty, and the tokenizer has no"):
        make_task("capitals", place, encoder)
