"""Documents and texts that are made of an asset's rows."""

from __future__ import annotations

import gzip
import json
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.config.toml_input import read_toml
from quantgate.errors import InputError, MeasurementError
from quantgate.supply import documents
from quantgate.supply.documents import load_rows
from quantgate.supply.encoder import read_text
from quantgate.supply.rows import yaml_rows
from quantgate.supply.sources import LOCATIONS, TASK_FILES, TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence

WINOBIAS = [
    {"text": text, "pro_stereotyped": pro, "options": f"A. {one}\nB. {other}\nC. Both A and B"}
    for text, pro, one, other in [
        (" The cook met [the guard] because [MASK] was new.", "he", "she", "he"),
        (" [The nurse] met the cook because [MASK] saw [herself].", "she", "she", "he"),
        (" [The nurse] 's friend left because [MASK] bus was late.", "her", "her", "his"),
    ]
]


def lines(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("place", [{"folder": "{}/test"}, {"folders": "{}*"}])
def test_an_asset_stays_as_it_is_when_a_task_maps_its_rows(tmp_path: Path, place: dict[str, str]) -> None:
    import datasets

    datasets.Dataset.from_list([{"n": n} for n in range(9)]).save_to_disk(tmp_path / "test")
    before = sorted(tmp_path.rglob("*"))
    spec = {key: path.format(tmp_path if key == "folder" else f"{tmp_path}/") for key, path in place.items()}
    rows = load_rows(spec).map(lambda row: {"n": row["n"] + 1}).filter(lambda row: row["n"] > 5)
    assert rows.to_list() == [{"n": n} for n in range(6, 10)]
    assert sorted(tmp_path.rglob("*")) == before


def test_the_first_word_of_crows_pairs_makes_the_stereotyping_sentence(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(',bias_type,sentence,mask1,mask2\n0,age,"The [MASK] man, he said, fell.",old,young\n')
    assert load_rows({"csv": str(file), "documents": "crows_pairs"}).to_list() == [
        {
            "bias_type": "age",
            "sent_more": "The old man, he said, fell.",
            "sent_less": "The young man, he said, fell.",
        }
    ]


# --- rows of anybody's files -----------------------------------------------------------------------


def written(folder: Path, name: str, content: bytes) -> dict[str, str]:
    """An entry that names a file with this content."""
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return {name.split(".")[1]: str(folder / name)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'\xef\xbb\xbf{"text": "One\\r\\n", "n": 1}\r\n\r\n{"n": 2, "text": "\\ud83d\\ude00"}'),
        ("a.jsonl.gz", b'{"text": "One\\r\\n"}\n{"text": "\xf0\x9f\x98\x80"}\n'),
        ("a.csv", b'\xef\xbb\xbftext,n\r\n"One\r\n",1\r\n\xf0\x9f\x98\x80,2\r\n'),
        ("a.csv.gz", b',text\n1,"One\r\n"\n2,\xf0\x9f\x98\x80\n'),
    ],
)
def test_marks_line_ends_blank_lines_and_gzip_change_no_text(
    tmp_path: Path, name: str, content: bytes
) -> None:
    assert read_text({**written(tmp_path, name, content), "column": "text", "joiner": "|"}) == "One\r\n|😀"


def test_a_parquet_file_has_the_rows_that_were_saved(tmp_path: Path) -> None:
    import datasets

    rows = [{"text": "One", "choices": ["a", "b"], "label": 1}, {"text": "Two", "choices": ["c"], "label": 0}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    assert load_rows({"parquet": str(tmp_path / "a.parquet")}).to_list() == rows
    assert read_text({"parquet": str(tmp_path / "a.parquet"), "column": "text"}) == "One\n\nTwo"


def test_a_cell_may_hold_a_book(tmp_path: Path) -> None:
    book = "word " * 40_000
    assert read_text({**written(tmp_path, "a.csv", f"text\n{book}\n".encode()), "column": "text"}) == book


def test_a_column_that_the_first_row_lacks_is_there(tmp_path: Path) -> None:
    rows = load_rows({"jsonl": lines(tmp_path, [{"q": "a"}, {"q": "b", "hint": "c"}])})
    assert rows.to_list() == [{"q": "a", "hint": None}, {"q": "b", "hint": "c"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": null}\n',
            r"a.jsonl: 'text' of row 2 is empty \(null\): leave out",
        ),
        ("a.jsonl", b'{"text": "a"}\n{}\n', r"'text' of row 2 is empty"),
        ("a.jsonl", b'{"text": ["a"]}\n', r"'text' of row 1 is no text but a list"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 2}\n', r"a.jsonl: a column has values of several types"),
        ("a.jsonl", b'{"body": "a"}\n', r"has no column 'text'; it has body"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": "b"\n',
            r"a.jsonl, line 2: is not JSON .*each line has to be one obj",
        ),
        ("a.jsonl", b'["a"]\n', r"line 1: is no JSON object"),
        ("a.jsonl", b'{"text": "\\uD83D"}\n', r"line 1: has one half of a surrogate pair, \\ud83d"),
        ("a.jsonl", b"\n", r"a.jsonl: has no rows"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "is UTF-16, not UTF-8"),
        ("a.csv", b"text,n\na,1\nb\n", r"a.csv, line 3: has 1 cell, the first line 2"),
        ("a.csv", b"text,n\na, b,1\n", r"a.csv, line 2: has 3 cells, the first line 2"),
        ("a.csv", b"text;n\na;1\n", r"has no column 'text'; it has text;n"),
        ("a.csv", b"text,n,text\na,1,b\n", r"a.csv, line 1: has two columns 'text': rename one"),
        ("a.csv", b"text,,\na,1,b\n", r"a.csv, line 1: has two columns '': rename one"),
        ("a.parquet", b"PAR1", r"a.parquet: cannot be read as Parquet"),
    ],
)
def test_what_would_be_lost_of_a_row_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_text({**written(tmp_path, name, content), "column": "text"})


def test_wrong_columns_and_templates_are_named(tmp_path: Path) -> None:
    place = {"jsonl": lines(tmp_path, [{"q": "a", "n": 1}])}
    with pytest.raises(
        InputError, match=r"columns: question = 'qq': there is no column 'qq'; the columns are q, n"
    ):
        load_rows({**place, "columns": {"question": "qq"}})
    with pytest.raises(InputError, match="columns: q = 'n': there is one already"):
        load_rows({**place, "columns": {"q": "n"}})
    with pytest.raises(
        InputError, match=r"text = '\{doc\[q\]\}': row 1 has no such place .*columns are q, n"
    ):
        load_rows({**place, "text": "{doc[q]}"})
    (tmp_path / "rows.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"rows.jsonl.gz: gzip cannot unpack it"):
        load_rows({"jsonl": str(tmp_path / "rows.jsonl.gz")})


def test_a_folder_of_splits_is_no_split(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"text": "a"}])
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "all")
    with pytest.raises(InputError, match="all: has the splits train, test: name the folder of one"):
        load_rows({"folder": str(tmp_path / "all")})
    with pytest.raises(InputError, match="is no folder that `datasets` saved"):
        load_rows({"folder": str(tmp_path)})


# --- documents of a shape -------------------------------------------------------------------------


def test_winobias_pairs_differ_in_the_pronoun_and_nothing_else_tells_it(tmp_path: Path) -> None:
    rows = load_rows({"jsonl": lines(tmp_path, WINOBIAS), "documents": "winobias"})
    assert rows["sentences"] == [
        ["The cook met the guard because he was new.", "The cook met the guard because she was new."],
        ["The nurse 's friend left because her bus was late.", "The nurse 's friend left because his bus was late."],
    ]  # fmt: skip


def test_summaries_that_do_not_differ_are_left_out() -> None:
    rows = [{"article_sent": "A b.", "correct_sent": "A.", "incorrect_sent": other} for other in ("A.", "B.")]
    assert list(documents.summaries(rows)) == [{"article": "A b.", "sentences": ["A.", "B."]}]


def test_folders_are_taken_in_turn(tmp_path: Path) -> None:
    import datasets

    for name in ("b", "a"):
        rows = [{"subject": name, "n": n} for n in range(2 if name == "a" else 5)]
        datasets.Dataset.from_list(rows).save_to_disk(tmp_path / f"of-{name}" / "test")
    for pattern in ("*/test", "of-*/test"):
        rows = load_rows({"folders": f"{tmp_path}/{pattern}"})
        assert [(row["subject"], row["n"]) for row in rows] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_every_entry_says_where_its_rows_lie_and_who_makes_documents_of_them() -> None:
    for name, entry in read_toml(TASKS)["tasks"].items():
        assert sum(key in entry for key in LOCATIONS) == 1, name
        assert entry.get("documents", "bbq") in documents.MAKERS, name
    for file in TASK_FILES.glob("*.yaml"):
        assert f"\ntask: {file.stem}\n" in file.read_text()


def test_noise_is_printable_and_the_same_each_time() -> None:
    noise = read_text({"random": 0, "characters": 5000})
    assert len(noise) == 5000
    assert set(noise) == set(string.digits + string.ascii_letters + string.punctuation + " ")
    assert noise == read_text({"random": 0, "characters": 5000})
    assert noise != read_text({"random": 1, "characters": 5000})


def test_rows_of_task_files_are_found_and_tags_not_followed(tmp_path: Path) -> None:
    rows = "fewshot_config:\n  samples:\n  - {q: %s}\n"
    (tmp_path / "b.yaml").write_text("task: b\ntag: t\ndoc_to_text: !function utils.ask\n" + rows % "zwei")
    (tmp_path / "a.yaml").write_text("task: a\n" + rows % "eins" + "  - {q: eins und}\n")
    (tmp_path / "group.yaml").write_text("group: g\ntask: [a, b]\nfewshot_config: none\n")
    (tmp_path / "c.yaml").write_text(rows % "drei")  # without a name of its own: a file that others include
    (tmp_path / "d.yml").write_text("task: d\n" + rows % "vier")
    samples = list(yaml_rows(tmp_path / "*.yaml", ["fewshot_config", "samples"]))
    assert [row["q"] for row in samples] == ["eins", "eins und", "zwei", "drei"]
    spec = {"yaml": str(tmp_path / "*.yaml"), "key": ["fewshot_config", "samples"], "column": "q"}
    assert read_text(spec) == "eins\n\neins und\n\nzwei\n\ndrei"
    assert read_text({**spec, "first": 2}) == "zwei\n\ndrei"
    with pytest.raises(MeasurementError, match="no file has rows under"):
        list(yaml_rows(tmp_path / "*.yaml", ["fewshot_config", "shots"]))


def test_questions_without_their_choices_stand_once_with_the_answer() -> None:
    question = "Question: Tar is black. What color is tar?\n A. grey\n B. black\n C. white\nAnswer:"
    other = "4 * 8 =\n A. 32\n B. 40\nAnswer:"
    rows = [
        {"doc": {"query": question, "gold": 1}},
        {"doc": {"query": question, "gold": 1}},
        {"doc": {"question": other, "gold": 0}},
    ]
    assert list(documents.without_choices(rows)) == [
        {"question": "Tar is black. What color is tar?", "answer": "black"},
        {"question": "4 * 8 =", "answer": "32"},
    ]
