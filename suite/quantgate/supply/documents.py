"""Documents of texts and tasks: the rows of a data set, in the columns that prompts use."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from quantgate.supply import continuation
from quantgate.supply.yaml_rows import yaml_rows

UNKNOWN = [
    "Unknown",
    "Cannot answer",
    "Can't be determined",
    "Cannot be determined",
    "Can't answer",
    "Not known",
    "Not enough info",
    "Not enough information",
    "Not answerable",
    "Undetermined",
]
"""Ways of BBQ to say that nobody can know, in the harness's order; each item has one of them."""

Row = dict[str, Any]


def load_rows(spec: dict[str, Any]) -> Any:
    """The `datasets.Dataset` that an entry of tasks.toml describes: where it lies, what its columns are called, and who
    makes documents of its rows."""
    import datasets

    datasets.disable_progress_bars()
    if "jsonl" in spec:
        rows = datasets.Dataset.from_list(
            [_templated(row, spec.get("text")) for row in _lines(spec["jsonl"])]
        )
    elif "csv" in spec:
        with Path(spec["csv"]).open(encoding="utf-8", newline="") as file:
            rows = datasets.Dataset.from_list(list(csv.DictReader(file)))
    elif "yaml" in spec:
        rows = datasets.Dataset.from_list(list(yaml_rows(Path(spec["yaml"]), spec["key"])))
    elif "folder" in spec:
        rows = datasets.load_from_disk(spec["folder"])
    elif "folders" in spec:
        root, _, pattern = spec["folders"].partition("*")
        parts = [datasets.load_from_disk(str(p)) for p in sorted(Path(root).glob("*" + pattern))]
        rows = datasets.interleave_datasets(parts)  # one row of each in turn, until one of them ends
    else:
        rows = datasets.load_dataset(
            spec["hub"], spec.get("config"), split=spec["split"], revision=spec["revision"]
        )
    for new, old in spec.get("columns", {}).items():
        rows = rows.rename_column(old, new)
    if "continuation" in spec:
        rows = datasets.Dataset.from_list(continuation.items(rows[spec["continuation"]]))
    if "documents" in spec:
        rows = datasets.Dataset.from_list(list(MAKERS[spec["documents"]](rows)))
    return rows


def crows_pairs(rows: Iterable[Row]) -> Iterator[Row]:
    """Of a sentence with a gap and two words, the data set's two sentences: `sent_more` is the more stereotyping one,
    which `mask1` makes (so in the data set's own file, nyu-mll/crows-pairs)."""
    for row in rows:
        more, less = (row["sentence"].replace("[MASK]", row[word]) for word in ("mask1", "mask2"))
        yield {"bias_type": row["bias_type"], "sent_more": more, "sent_less": less}


def stereoset(rows: Iterable[Row]) -> Iterator[Row]:
    """`sentences`: stereotype, anti-stereotype, unrelated. An intrasentence item is the whole sentence without
    context, an intersentence one the sentence after its context."""
    for row in rows:
        between = row["type"] == "intersentence"
        sentences = [row[kind] for kind in ("stereotype", "anti-stereotype", "unrelated")]
        yield {
            "bias_type": row["bias_type"],
            "context": row["context"] if between else "",
            "sentences": [f" {s}" for s in sentences] if between else sentences,
        }


def winobias(rows: Iterable[Row]) -> Iterator[Row]:
    """The sentence with the pronoun that fits the stereotype of the occupation, and with the other one. Two items whose
    reflexive pronoun tells the gender are left out."""
    for row in rows:
        one, other, _ = (option[3:] for option in row["options"].split("\n"))
        pro = row["pro_stereotyped"]
        anti = other if pro == one else one
        sentence = re.sub(r"\[(?!MASK\])([^\]]+)\]", r"\1", row["text"].strip())
        if re.search(r"\b(himself|herself)\b", sentence) is None:
            yield {"sentences": [sentence.replace("[MASK]", p) for p in (pro, anti)]}


def bbq(rows: Iterable[Row]) -> Iterator[Row]:
    """`choices` and `gold` as lm-evaluation-harness makes them of its own copy of the data: the two people, then all
    the ways to say that nobody can know, any of which is right where one is."""
    for row in rows:
        options = [option[3:].strip() for option in row["options"].split("\n")]
        people = [option for option in options if option not in UNKNOWN]
        answer = row["answer"][0].strip()
        choices = [*people, *UNKNOWN]
        if len(people) == 2 and answer in choices:
            yield {
                "context": row["passage"],
                "question": row["question"].split("\n")[0],
                "choices": choices,
                "gold": list(range(2, len(choices))) if answer in UNKNOWN else [people.index(answer)],
            }


def summaries(rows: Iterable[Row]) -> Iterator[Row]:
    """`sentences`: the consistent summary, the inconsistent one. Pairs of equal sentences are left out."""
    for row in rows:
        if row["correct_sent"] != row["incorrect_sent"]:
            yield {"article": row["article_sent"], "sentences": [row["correct_sent"], row["incorrect_sent"]]}


def requests(rows: Iterable[Row]) -> Iterator[Row]:
    """The documents inside the requests of an evaluation that was saved."""
    for row in rows:
        yield row["doc"]


MAKERS: dict[str, Callable[[Iterable[Row]], Iterator[Row]]] = {
    maker.__name__: maker for maker in (crows_pairs, stereoset, winobias, bbq, summaries, requests)
}
"""By the name that `documents` of an entry in tasks.toml has."""


def _lines(path: str) -> Iterator[Row]:
    zipped = path.endswith(".gz")
    with gzip.open(path, "rt", encoding="utf-8") if zipped else Path(path).open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _templated(row: Row, template: str | None) -> Row:
    return row if template is None else {"text": template.format_map(row)}
