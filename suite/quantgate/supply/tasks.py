"""Tasks of lm-evaluation-harness: their items, as the harness makes and tokenizes them."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast, get_args

from quantgate.checkpoint.template import Message, render, template_of
from quantgate.config.data import ROWS
from quantgate.errors import AssetError, InputError, QuantgateError, in_one_line
from quantgate.files import hash_of
from quantgate.items import Item, Results, Task
from quantgate.supply.choices import check_lengths, choice_of, gold_of
from quantgate.supply.documents import load_rows, task_manager
from quantgate.supply.encoder import Encoder
from quantgate.supply.sources import task_file

METRICS: dict[Results, tuple[str, ...]] = {
    "choice": ("acc", "acc_norm"),
    "mass": ("acc",),
    "pair": ("pct_stereotype", "likelihood_diff"),
    "stereoset": ("lms", "ss"),
    "gold": (),
}
RESULTS_OF_FUNCTIONS: dict[str, Results] = {"truthfulqa_mc2": "mass", "crows_pairs_*": "pair"}
"""Tasks of the harness, by pattern, whose `process_results` is a function that has a counterpart here."""

EXTRAS = {"immutabledict": "ifeval", "langdetect": "ifeval", "nltk": "ifeval"}
"""The extra that has a package which the rules of tasks import."""
SPLIT = "test"
"""The harness gets rows under this name where their entry has none."""
RULES = ("doc_to_target", "doc_to_choice", "process_results", "metric_list", "filter_list")
"""Keys of a task that say how answers are marked."""
SEED = 1234
"""Of the harness's choice of examples: its default."""


def make_task(name: str, spec: dict[str, Any], encoder: Encoder) -> Task:
    """Return the first items of an lm-eval task: its documents, prompts and choices, tokenized as lm-eval does.

    spec: the place of the documents, and fields of `quantgate.jobs.Posed`. Raises AssetError and InputError.
    """
    task = load_task(name, spec)
    if task.OUTPUT_TYPE not in ("multiple_choice", "loglikelihood"):
        remedy = "name it in `answers`" if task.OUTPUT_TYPE == "generate_until" else "leave it out"
        raise InputError(
            f"task {name!r} has output type {task.OUTPUT_TYPE!r}; "
            f"accuracy is that of multiple_choice and loglikelihood tasks: {remedy}"
        )
    build_requests(name, task, spec, encoder)
    results = results_of(name, task.config.process_results)
    encode = _recorder(name, encoder)
    items, documents, prompts = [], [], []
    for number, (_, group) in enumerate(itertools.groupby(task.instances, key=lambda one: one.doc_id), 1):
        requests = sorted(group, key=lambda request: request.idx)
        document = requests[0].doc
        where = f"task {name!r}: item {number}"
        if task.OUTPUT_TYPE == "multiple_choice":
            choices = task.doc_to_choice(document)
            gold = gold_of(where, task, document, choices, results)
            # For acc_mutual_info the harness asks for each without context, too.
            requests = requests[: len(choices)]
        else:
            choices, gold = [requests[0].args[1]], [0]
        documents.append(document)
        prompts.append([request.args for request in requests])
        tokens = zip(encode(requests), choices, strict=True)
        items.append(Item(choices=[choice_of(where, *one) for one in enumerate(tokens, 1)], gold=gold))
    check_count(name, len(items), spec["items"])
    metrics = [metric for metric in METRICS[results] if metric in task.aggregation()]
    if "acc_norm" in metrics:
        check_lengths(name, items)
    if not metrics and results != "gold":
        raise InputError(
            f"task {name!r} has none of {', '.join(METRICS[results])} among its metrics "
            f"({', '.join(task.aggregation())})"
        )
    return Task(
        name=name,
        version=version_of(task, spec),
        output_type=task.OUTPUT_TYPE,
        results=results,
        metrics=metrics,
        fewshot=task.config.num_fewshot or 0,
        template=hash_of(template_of(encoder.tokenizer)) if spec.get("chat") else "",
        items=items,
        data_hash=hash_of(documents),
        prompt_hash=hash_of(prompts),
        token_hash=hash_of([[c.model_dump() for c in i.choices] for i in items]),
    )


def build_requests(name: str, task: Any, spec: Mapping[str, Any], encoder: Encoder) -> None:
    """Have the harness make a task's prompts of its first documents: `task.instances`. In a chat the model's template
    renders them. Raises InputError where the template or the harness refuses."""

    def rendered(messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        return render(encoder.tokenizer, messages, answer=add_generation_prompt)

    task.set_fewshot_seed(SEED)
    try:
        task.build_all_requests(
            limit=spec["items"],
            rank=0,
            world_size=1,
            system_instruction=spec.get("system"),
            apply_chat_template=spec.get("chat", False),
            fewshot_as_multiturn=spec.get("turns", True),
            chat_template=rendered if spec.get("chat") else None,
        )
    except QuantgateError as error:
        raise InputError(f"task {name!r}: {error}") from error
    except Exception as error:
        examples = f" with {spec['fewshot']} examples" if spec.get("fewshot") else ""
        raise InputError(
            f"task {name!r}: lm-eval makes no prompts of it{examples}: {in_one_line(error)}"
        ) from error


def check_count(name: str, count: int, needed: int) -> None:
    """Raise InputError for a task with too few items."""
    if count < needed:
        raise InputError(f"task {name!r} has {count} items, the tier needs {needed}: lower `items`")


def results_of(name: str, process: Callable[..., Any] | str | None) -> Results:
    """Return the rules by which a task's metrics are computed.

    process: the task's `process_results`: None (the harness's default rules), a name of `Results` (tasks of
    fixtures/tasks), or a function (some tasks of the harness). Raises InputError for a function without a counterpart.
    """
    if process is None:
        return "choice"
    if isinstance(process, str) and process in get_args(Results):
        return cast(Results, process)
    for pattern, results in RESULTS_OF_FUNCTIONS.items():
        if callable(process) and fnmatchcase(name, pattern):
            return results
    raise InputError(
        f"task {name!r} computes its results by a function (process_results) that quantgate does not have; "
        "choose a task with acc or acc_norm"
    )


def load_task(name: str, spec: dict[str, Any]) -> Any:
    """Return lm-eval's task object. Its documents come from the place that `spec` names, or from lm-eval itself. The
    `fewshot` examples before each item are the first of the task's few-shot split (lm-eval's sampler `first_n`); None:
    there are as many as the task says, chosen as it says. Raises AssetError and InputError."""
    split = spec.get("split") or (SPLIT if any(key in spec for key in ROWS) else None)

    def configure(config: dict[str, Any]) -> dict[str, Any]:
        if split:
            import datasets

            data = datasets.DatasetDict({split: load_rows(spec)})
            config.update(
                dict.fromkeys(("training_split", "validation_split", "test_split", "fewshot_split"))
            )
            config.update({f"{split}_split": split, "custom_dataset": lambda **_: data})
        elif "data_files" in (config.get("dataset_kwargs") or {}):
            raise InputError(
                f"{file}: names its data by `data_files`, a change of which nobody would notice: say where its rows "
                f"lie in [tasks.{name}] (jsonl, csv, parquet ...), and remove dataset_path and dataset_kwargs"
            )
        examples = spec.get("fewshot")
        if examples is not None:
            config["num_fewshot"] = examples
        if config.get("num_fewshot"):
            fewshot = dict(config.get("fewshot_config") or {})
            if split and "samples" not in fewshot:
                # The examples come from the same documents; lm-eval skips the item itself if the two splits are equal.
                config["fewshot_split"] = fewshot["split"] = config["test_split"]
            config["fewshot_config"] = fewshot | ({"sampler": "first_n"} if examples else {})
        return config

    file = Path(spec["file"]) if "file" in spec else task_file(name)
    _check_kind(name, file, users="file" in spec)
    try:
        if "nltk_data" in spec:
            read_nltk_data(Path(spec["nltk_data"]))
        return build_task(name, file.parent, configure)
    except QuantgateError as error:
        raise InputError(f"task {name!r}: {error}") from error
    except ImportError as error:
        extra = f": pip install 'quantgate[{EXTRAS[error.name]}]'" if error.name in EXTRAS else ""
        raise AssetError(
            f"task {name!r}: its rules need a package that is not installed: {error}{extra}"
        ) from error
    except Exception as error:
        remedy = "mend them" if split else f"where there is no hub, say in [tasks.{name}] where its rows lie"
        raise AssetError(
            f"task {name!r}: it cannot be loaded from {file} and its data ({in_one_line(error)}); {remedy}"
        ) from error


def _check_kind(name: str, file: Path, users: bool) -> None:
    """Raise InputError for a task that is a Python class of the harness: its YAML says too little; and for one of
    programs, whose metric runs them wherever it is loaded. users: it is a file of the user's."""
    index = task_manager(file.parent).task_index
    if name not in index:
        raise InputError(
            f"{file}: has no task {name!r}: its key `task` must be the name that the tier gives it"
        )
    taken = index[name].yaml_path  # the first in the folder and those below
    if users and (taken is None or taken.resolve() != file.resolve()):
        raise InputError(f"{taken}: defines task {name!r}, as {file} does: rename or move one of them")
    config = index[name].cfg  # functions as text
    if "class" in config:
        raise InputError(
            f"task {name!r} is a class of lm-evaluation-harness ({file.name}), which quantgate does not run: choose a "
            "task that a YAML file describes, or write one and name it as `file` in [tasks.NAME]"
        )
    if config.get("unsafe_code"):
        raise InputError(f"task {name!r} asks for programs, which only a sandbox may run: name it in `code`")


def version_of(task: Any, spec: Mapping[str, Any]) -> str:
    """Return the version that a task states; for one of the user's own, with a hash of how its answers are marked,
    which data, prompts and tokens do not show. Values under other rules are not compared."""
    if "file" not in spec:
        return str(task.VERSION)
    config = task.dump_config()
    rules = json.dumps({key: config.get(key) for key in RULES}, sort_keys=True, default=_source_of)
    return f"{task.VERSION}-{hash_of(rules)[:8]}"


def _source_of(value: Any) -> str:
    return inspect.getsource(value) if callable(value) else type(value).__name__


def read_nltk_data(folder: Path) -> None:
    """Have NLTK look there first, so that it downloads nothing."""
    import nltk

    if str(folder) not in nltk.data.path:
        nltk.data.path.insert(0, str(folder))


def build_task(name: str, folder: Path, configure: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Return lm-eval's object of the task `name`, whose file is in `folder`. configure: takes and returns the
    configuration, whose functions are imported."""
    from lm_eval.api.task import ConfigurableTask

    class Configured(ConfigurableTask):  # type: ignore[misc]
        def __init__(self, config: dict[str, Any]) -> None:
            del config["class"]
            super().__init__(config=configure(config))

    # A group may override keys of its tasks. `class` is the one that sees the others.
    group = {"group": "quantgate", "task": [{"task": name, "class": Configured}]}
    return next(iter(task_manager(folder).load(group)["tasks"].values()))


def _recorder(name: str, encoder: Encoder) -> Callable[[Iterable[Any]], list[tuple[list[int], list[int]]]]:
    """Return a function that tokenizes (context, continuation) as lm-eval does before scoring."""
    from lm_eval.api.model import TemplateLM

    class Recorder(TemplateLM):  # type: ignore[misc]
        backend = "causal"

        @property
        def eot_token_id(self) -> int:
            return int(encoder.tokenizer.eos_token_id)

        @property
        def prefix_token_id(self) -> int:
            bos, eos = encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id
            if bos is None and eos is None:
                raise InputError(
                    f"task {name!r}: a prompt is empty, and the tokenizer has no beginning- or end-of-sequence token "
                    "to put there: leave out the task"
                )
            return int(eos if bos is None else bos)

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            ids = encoder.encode(string)
            if add_special_tokens is False:
                return ids
            try:
                return encoder.with_one_bos(ids)
            except InputError as error:
                raise InputError(f"task {name!r}: {error}") from error

        def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[Any]:
            return [(context, continuation) for _, context, continuation in requests]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            raise NotImplementedError

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            raise NotImplementedError

    recorder = Recorder()
    return lambda requests: recorder.loglikelihood(list(requests), disable_tqdm=True)
