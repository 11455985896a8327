"""Documents of texts and tasks: the rows of a data set, in the columns that prompts use."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from quantgate.config.data import ROWS
from quantgate.errors import InputError
from quantgate.files import matching
from quantgate.supply.rows import Row, dataset_of, rows_of_file, saved_rows


def load_rows(spec: dict[str, Any]) -> Any:
    """Return the `datasets.Dataset` that an entry of tasks.toml describes: where it lies, what its columns are called,
    and which function makes documents of its rows. Raises InputError."""
    import datasets

    datasets.disable_progress_bars()
    if "folder" in spec:
        rows = saved_rows(spec["folder"])
    elif "folders" in spec:
        parts = [saved_rows(str(folder)) for folder in matching(Path(spec["folders"]))]
        rows = datasets.interleave_datasets(parts)  # one row of each in turn, until one of them ends
    elif "hub" in spec:
        rows = datasets.load_dataset(
            spec["hub"], spec.get("config"), split=spec["split"], revision=spec["revision"]
        )
    else:
        rows = dataset_of(rows_of_file(spec), place_of(spec))
    for new, old in spec.get("columns", {}).items():
        if old not in rows.column_names or new in rows.column_names:
            problem = (
                f"there is no column {old!r}" if old not in rows.column_names else "there is one already"
            )
            raise InputError(
                f"{place_of(spec)}: columns: {new} = {old!r}: {problem}; the columns are {', '.join(rows.column_names)}"
            )
        rows = rows.rename_column(old, new)
    if "documents" in spec:
        rows = dataset_of(MAKERS[spec["documents"]](rows), place_of(spec))
    return rows


def place_of(spec: Mapping[str, Any]) -> str:
    """Return where the rows of an entry lie, for messages."""
    return str(next((spec[key] for key in ROWS if key in spec), "the data"))


def task_manager(folder: Path) -> Any:
    """Return lm-eval's manager of the tasks in a folder. An index of all tasks would take ten seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder, include_defaults=False)


# --- makers of documents


def crows_pairs(rows: Iterable[Row]) -> Iterator[Row]:
    """Put two words into the gap of a sentence: `sent_more`, with `mask1`, is the more stereotyping one, as in the file
    of nyu-mll/crows-pairs."""
    for row in rows:
        more, less = (row["sentence"].replace("[MASK]", row[word]) for word in ("mask1", "mask2"))
        yield {"bias_type": row["bias_type"], "sent_more": more, "sent_less": less}


def stereoset(rows: Iterable[Row]) -> Iterator[Row]:
    """Make `sentences`: stereotype, anti-stereotype, unrelated. An intrasentence item is the whole sentence without
    context, an intersentence one the sentence after its context."""
    for row in rows:
        between = row["type"] == "intersentence"
        space = " " if between else ""
        yield {
            "bias_type": row["bias_type"],
            "context": row["context"] if between else "",
            "sentences": [space + row[kind] for kind in ("stereotype", "anti-stereotype", "unrelated")],
        }


def winobias(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the sentence with the pronoun that fits the stereotype of the occupation, and with the other one. Leave out
    two items whose reflexive pronoun tells the gender."""
    for row in rows:
        one, other, _ = (option[3:] for option in row["options"].split("\n"))
        pro = row["pro_stereotyped"]
        anti = other if pro == one else one
        sentence = re.sub(r"\[(?!MASK\])([^\]]+)\]", r"\1", row["text"].strip())
        if re.search(r"\b(himself|herself)\b", sentence) is None:
            yield {"sentences": [sentence.replace("[MASK]", p) for p in (pro, anti)]}


def bbq(rows: Iterable[Row]) -> Iterator[Row]:
    """Make `choices` and `gold` as lm-evaluation-harness does of its copy of the data: the two people, then all
    the ways to say that nobody can know, any of which is right where one is."""
    from lm_eval.tasks.bbq.utils import UNKNOWN_RESPONSES

    for row in rows:
        options = [option[3:].strip() for option in row["options"].split("\n")]
        people = [option for option in options if option not in UNKNOWN_RESPONSES]
        answer = row["answer"][0].strip()
        choices = [*people, *UNKNOWN_RESPONSES]
        if len(people) == 2 and answer in choices:
            yield {
                "context": row["passage"],
                "question": row["question"].split("\n")[0],
                "choices": choices,
                "gold": list(range(2, len(choices)))
                if answer in UNKNOWN_RESPONSES
                else [people.index(answer)],
            }


def summaries(rows: Iterable[Row]) -> Iterator[Row]:
    """Make `sentences`: the consistent summary, the inconsistent one. Leave out pairs of equal sentences."""
    for row in rows:
        if row["correct_sent"] != row["incorrect_sent"]:
            yield {"article": row["article_sent"], "sentences": [row["correct_sent"], row["incorrect_sent"]]}


def requests(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the documents inside the requests of an evaluation that was saved."""
    for row in rows:
        yield row["doc"]


def without_choices(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the question of each saved request once, without the choices that stand below it, and the right one as
    `answer`: for a model that writes its answer."""
    seen = set()
    for row in rows:
        document = row["doc"]
        question, *choices = re.split(r"\n [A-Z]\. ", (document.get("question") or document["query"]).strip())
        if question not in seen:
            seen.add(question)
            choices[-1] = choices[-1].removesuffix("\nAnswer:")
            yield {
                "question": question.removeprefix("Question:").strip(),
                "answer": choices[document["gold"]].strip(),
            }


CONTEXT = 2
"""Sentences of a passage that `continuation` gives."""
CHOICES = 4
LENGTHS = range(40, 240)
"""Characters of a sentence that is to be chosen."""
NEAR = 64
"""Sentences of other passages that wrong ones are taken from: those nearest in length, so that length tells nothing."""


def continuation(rows: Iterable[Row]) -> Iterator[Row]:
    """Which of four sentences follows two: for models too small to know anything. One item for each `passage` that is
    long enough, in order: `context`, the `sentences` to choose from, and `label`, the place of the right one. The wrong
    ones stand at the same place in other passages; the same ones are drawn each time."""
    source = random.Random(0)  # noqa: S311
    cut = [
        parts for p in dict.fromkeys(row["passage"] for row in rows) if len(parts := sentences(p)) > CONTEXT
    ]
    cut = [parts[: CONTEXT + 1] for parts in cut if len(parts[CONTEXT]) in LENGTHS]
    by_length = sorted((len(parts[CONTEXT]), number) for number, parts in enumerate(cut))
    rank = {number: place for place, (_, number) in enumerate(by_length)}
    for number, (*context, true) in enumerate(cut):
        begin = max(0, rank[number] - NEAR // 2)
        near = [n for _, n in by_length[begin : begin + NEAR + 1] if cut[n][CONTEXT] != true]
        wrong = [cut[n][CONTEXT] for n in source.sample(near, CHOICES - 1)]
        label = source.randrange(CHOICES)
        yield {
            "context": " ".join(context),
            "sentences": [*wrong[:label], true, *wrong[label:]],
            "label": label,
        }


def sentences(text: str) -> list[str]:
    """Cut a text after full stops, question and exclamation marks that a capital letter follows."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(text.split()))


MAKERS: dict[str, Callable[[Iterable[Row]], Iterator[Row]]] = {
    maker.__name__: maker
    for maker in (crows_pairs, stereoset, winobias, bbq, summaries, requests, without_choices, continuation)
}
"""By the name that `documents` of an entry in tasks.toml has."""
