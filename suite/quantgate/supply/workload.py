"""Maker of a workload: the texts and tasks of a tier as token ids of one model, in a folder of JSON files."""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import string
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast, get_args

from quantgate.checkpoint.checks import puts_bos
from quantgate.checkpoint.gguf_header import read_header
from quantgate.errors import AssetError, InputError, MeasurementError, QuantgateError
from quantgate.files import hash_of, read_plain_text
from quantgate.items import MISSING, TOKENIZER, Choice, Item, Results, Task, Text
from quantgate.records import Record
from quantgate.supply.checkpoints import Report, whole
from quantgate.supply.documents import load_rows
from quantgate.supply.fitness import check_bos
from quantgate.supply.lines import make_lines
from quantgate.supply.model_config import load_config
from quantgate.supply.programs import make_programs
from quantgate.supply.sources import task_file
from quantgate.supply.splitting import restore_splitting

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

METRICS: dict[Results, tuple[str, ...]] = {
    "choice": ("acc", "acc_norm"),
    "mass": ("acc",),
    "pair": ("pct_stereotype", "likelihood_diff"),
    "stereoset": ("lms", "ss"),
    "gold": (),
}
KNOWN_RESULTS: dict[str, Results] = {"truthfulqa_mc2": "mass", "crows_pairs_*": "pair"}
"""Tasks of the harness whose own code for results has a counterpart here."""


def make_workload(
    output: Path,
    *,
    report: Report,
    tokenizer: str,
    add_bos: bool | None,
    key: str,
    texts: dict[str, dict[str, Any]],
    tasks: dict[str, dict[str, Any]],
    lines: dict[str, dict[str, Any]],
    programs: dict[str, dict[str, Any]],
    partial: bool = False,
) -> None:
    """Write `meta.json`, `text-<name>.json`, `task-<name>.json`, `programs-<name>.json`, `lines.json` and
    `missing.json` below `output`.

    texts: by name, where it lies and `tokens`, how many are needed. tasks: by name, where its documents lie
    (empty: lm-eval finds them), `items` and `fewshot`. Of any of them, `missing`: why it could not be had. tokenizer: a
    folder, or a GGUF file. partial: go on without a text or task that cannot be made, `missing.json` says why. key:
    where in the matrix `add_bos` stands.
    """
    encoder = Encoder(Path(tokenizer), add_bos, key)
    steps = len(texts) + len(tasks) + 1
    missing: dict[str, str] = {}
    with whole(output, folder=True) as work:

        def write(kind: str, name: str, spec: dict[str, Any], make: Callable[[], Record]) -> None:
            with _going_on(missing, name, partial):
                _had(spec)
                (work / f"{kind}-{name}.json").write_text(make().model_dump_json())

        for number, (name, spec) in enumerate(texts.items()):
            report(f"tokenize {name}", number, steps)
            write("text", name, spec, functools.partial(encoder.text, name, spec))
        for number, (name, spec) in enumerate(tasks.items(), start=len(texts)):
            report(f"prepare task {name}", number, steps)
            write("task", name, spec, functools.partial(make_task, name, spec, encoder))
        for name, spec in programs.items():
            write("programs", name, spec, functools.partial(make_programs, name, spec, encoder))
            encoder.tokenizer.backend_tokenizer.save(str(work / TOKENIZER))
        samples: list[str] = []
        for name, spec in lines.items():
            with _going_on(missing, name, partial):
                _had(spec)
                samples += [s for s in read_text(spec)[: spec["characters"]].splitlines() if s.strip()]
        compared = make_lines(encoder.tokenizer, samples) if lines else []
        (work / "lines.json").write_text(json.dumps([(s, encoder.encode(s)) for s in compared]))
        (work / "meta.json").write_text(json.dumps({"vocabulary": encoder.vocabulary}))
        (work / MISSING).write_text(json.dumps(missing))


@contextmanager
def _going_on(missing: dict[str, str], name: str, partial: bool) -> Iterator[None]:
    """With `partial`, what is raised in the block is why `name` is missing."""
    try:
        yield
    except OSError:
        raise  # the folder cannot be written
    except Exception as error:
        if not partial:
            raise
        ours = isinstance(error, QuantgateError)
        missing[name] = str(error) if ours else f"{name}: {type(error).__name__}: {error}"


def _had(spec: dict[str, Any]) -> None:
    if "missing" in spec:
        raise AssetError(spec["missing"])


class Encoder:
    """The model's own tokenizer."""

    def __init__(self, source: Path, add_bos: bool | None, key: str = "add_bos") -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        where, gguf = (source.parent, source.name) if source.is_file() else (source, None)
        if gguf is None:
            load_config(source)
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(
                where, gguf_file=gguf, local_files_only=True, trust_remote_code=False
            )
            if gguf is not None:
                restore_splitting(self.tokenizer, source)
        except Exception as error:
            raise AssetError(
                f"{source}: its tokenizer cannot be read ({type(error).__name__}: {error})"
            ) from error
        self.vocabulary = len(self.tokenizer)
        bos = self.tokenizer.bos_token_id
        puts = bos is not None and list(self.tokenizer("a")["input_ids"])[:1] == [bos]
        if gguf is None:
            puts = puts or bool(puts_bos(source))
        else:  # what llama.cpp goes by
            puts = bos is not None and bool(
                read_header(source).values.get("tokenizer.ggml.add_bos_token", puts)
            )
        check_bos(key, add_bos, puts, self.tokenizer.bos_token, source)
        self.bos: int | None = bos if add_bos else None

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, name: str, spec: dict[str, Any]) -> Text:
        """The first `spec["tokens"]` tokens of a text. Raises InputError where it is too short."""
        needed = spec["tokens"]
        content = read_text(spec)[: 16 * needed]  # tokens of natural text have 3 to 5 characters
        encoded = self.tokenizer(content, add_special_tokens=False, return_offsets_mapping=True)
        ids = list(encoded["input_ids"])[:needed]
        if len(ids) < needed:
            raise InputError(
                f"text {name!r} has {len(ids)} tokens, the tier needs {needed}: lower windows or n_ctx"
            )
        ends = [0]
        for character in content:
            ends.append(ends[-1] + len(character.encode()))
        offsets = encoded["offset_mapping"]
        last = offsets[needed][0] if needed < len(offsets) else offsets[needed - 1][1]
        starts = [ends[begin] for begin, _ in offsets[:needed]] + [ends[last]]
        if self.bos is not None:  # stands before the text, in the first window, as in llama.cpp's tools
            ids, starts = [self.bos, *ids[:-1]], [0, *starts[:-1]]
        return Text(ids=ids, starts=starts, bos=self.bos, hash=hash_of([self.bos, ids]))


def read_text(spec: dict[str, Any]) -> str:
    """Content of a text: a plain file (`path`), noise, or a column of a data set, joined."""
    if "path" in spec:
        return read_plain_text(Path(spec["path"]))
    if "random" in spec:
        printable = string.digits + string.ascii_letters + string.punctuation + " "
        return "".join(random.Random(spec["random"]).choices(printable, k=spec["characters"]))  # noqa: S311
    values = [str(row[spec["column"]]) for row in load_rows(spec)]
    if spec.get("distinct"):
        values = list(dict.fromkeys(values))
    return str(spec.get("joiner", "\n\n")).join(values[spec.get("first", 0) :])


def make_task(name: str, spec: dict[str, Any], encoder: Encoder) -> Task:
    """The first items of an lm-eval task: its documents, prompts and choices, tokenized as lm-eval does."""
    task = load_task(name, spec)
    if task.OUTPUT_TYPE not in ("multiple_choice", "loglikelihood"):
        raise InputError(
            f"task {name!r} has output type {task.OUTPUT_TYPE!r}; "
            "quantgate scores multiple_choice and loglikelihood tasks"
        )
    try:
        task.build_all_requests(limit=spec["items"], rank=0, world_size=1)
    except AssertionError as error:
        raise InputError(
            f"task {name!r}: no prompts with {spec.get('fewshot', 0)} examples: {error}"
        ) from error
    results = results_of(name, task.config.process_results)
    encode = _recorder(encoder)
    items, documents, prompts = [], [], []
    for _, group in itertools.groupby(task.instances, key=lambda request: request.doc_id):
        requests = sorted(group, key=lambda request: request.idx)
        document = requests[0].doc
        documents.append(document)
        prompts.append([r.args for r in requests])
        if task.OUTPUT_TYPE == "multiple_choice":
            choices = task.doc_to_choice(document)
            gold = _gold(task, document, choices) if results != "mass" else _true_answers(document)
        else:
            choices, gold = [requests[0].args[1]], [0]
        items.append(
            Item(
                choices=[
                    Choice(context=context, continuation=continuation, characters=len(text))
                    for (context, continuation), text in zip(encode(requests), choices, strict=True)
                ],
                gold=gold,
            )
        )
    if len(items) < spec["items"]:
        raise InputError(
            f"task {name!r} has {len(items)} items, the tier asks for {spec['items']}: lower `items`"
        )
    own = [m for m in METRICS[results] if m in task._metric_fn_list]
    if not own and results != "gold":
        raise InputError(
            f"task {name!r} has none of {', '.join(METRICS[results])} among its metrics "
            f"({', '.join(task._metric_fn_list)})"
        )
    return Task(
        name=name,
        version=str(task.VERSION),
        output_type=task.OUTPUT_TYPE,
        results=results,
        metrics=own,
        fewshot=spec.get("fewshot", 0),
        items=items,
        data_hash=hash_of(documents),
        prompt_hash=hash_of(prompts),
        token_hash=hash_of([[c.model_dump() for c in i.choices] for i in items]),
    )


def results_of(name: str, process: Callable[..., Any] | str | None) -> Results:
    """How a task's metrics are made: `process`, its `process_results`, is None for the harness's own rules, one of
    ours by name in a task of ours, a function in some tasks of the harness. Raises InputError for a function that is
    not known."""
    if process is None:
        return "choice"
    if isinstance(process, str) and process in get_args(Results):
        return cast(Results, process)
    for pattern, results in KNOWN_RESULTS.items():
        if callable(process) and fnmatchcase(name, pattern):
            return results
    raise InputError(
        f"task {name!r} makes its results with code of its own (process_results), which quantgate does not have"
    )


def load_task(name: str, spec: dict[str, Any]) -> Any:
    """lm-eval's task object, its documents taken from `spec` where that says where they lie; with `fewshot` examples
    before each item, the first of the task's few-shot split (lm-eval's sampler `first_n`)."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import _yaml_loader

    config = dict(_yaml_loader.load_yaml(task_file(name), resolve_func=True))
    if spec.get("split"):
        import datasets

        split = spec["split"]
        rows = load_rows(spec)
        data = datasets.DatasetDict({split: rows})
        config.update(dict.fromkeys(("training_split", "validation_split", "test_split", "fewshot_split")))
        config.update({f"{split}_split": split, "custom_dataset": lambda **_: data})
    if spec.get("fewshot"):
        config["num_fewshot"] = spec["fewshot"]
        given = dict(config.get("fewshot_config") or {})
        if spec.get("split"):
            # Examples come from the same documents: where these two are equal, lm-eval does not take the item itself.
            config["fewshot_split"] = given["split"] = config["test_split"]
        config["fewshot_config"] = {**given, "sampler": "first_n"}
    try:
        return ConfigurableTask(config=config)
    except Exception as error:
        raise AssetError(
            f"task {name!r}: its data cannot be loaded ({type(error).__name__}: {error}); "
            "without a hub, add an entry to fixtures/tasks.toml"
        ) from error


def _gold(task: Any, document: Any, choices: list[str]) -> list[int]:
    """Numbers of the right choices, by the rules of lm-eval's process_results."""
    gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    numbers = (
        gold if isinstance(gold, list) else [choices.index(gold) if isinstance(gold, str) else int(gold)]
    )
    if not all(0 <= n < len(choices) for n in numbers):
        raise MeasurementError(
            f"a document's gold answer {gold!r} is not among its {len(choices)} choices: {document}"
        )
    return [int(n) for n in numbers]


def _true_answers(document: dict[str, Any]) -> list[int]:
    """Of TruthfulQA's second multiple-choice form, which has several right answers."""
    return [number for number, label in enumerate(document["mc2_targets"]["labels"]) if label]


def _recorder(encoder: Encoder) -> Callable[[Iterable[Any]], list[tuple[list[int], list[int]]]]:
    """lm-eval's own tokenization of (context, continuation), recorded instead of scored."""
    from lm_eval.api.model import TemplateLM

    class Recorder(TemplateLM):  # type: ignore[misc]
        backend = "causal"

        @property
        def eot_token_id(self) -> int:
            return int(encoder.tokenizer.eos_token_id)

        @property
        def prefix_token_id(self) -> int:
            bos = encoder.tokenizer.bos_token_id
            return int(bos if bos is not None else encoder.tokenizer.eos_token_id)

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            bos = [encoder.bos] if encoder.bos is not None and add_special_tokens is not False else []
            return [*bos, *encoder.encode(string)]

        def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[Any]:
            return [(context, continuation) for _, context, continuation in requests]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            raise NotImplementedError

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            raise NotImplementedError

    recorder = Recorder()
    return lambda requests: recorder.loglikelihood(list(requests), disable_tqdm=True)
