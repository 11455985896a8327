"""Make a workload: the texts and tasks of a tier as token ids of one model, in a folder of JSON files."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantgate.errors import AssetError, QuantgateError
from quantgate.items import MISSING, TOKENIZER
from quantgate.records import Record
from quantgate.supply.checkpoints import Report, whole
from quantgate.supply.encoder import Encoder, read_text
from quantgate.supply.lines import make_lines
from quantgate.supply.programs import make_programs
from quantgate.supply.tasks import make_task


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

    tokenizer: a folder, or a GGUF file. key: the place of `add_bos` in the matrix, for messages. texts: by name, the
    place of the text, and `tokens`, how many are needed. tasks: by name, the place of the documents (empty: lm-eval
    fetches them), `items` and `fewshot`. Any of them may have `missing` instead: why it could not be fetched. partial:
    leave out texts and tasks that cannot be made; `missing.json` gives the reasons.
    """
    encoder = Encoder(Path(tokenizer), add_bos, key)
    steps = len(texts) + len(tasks) + 1
    missing: dict[str, str] = {}
    with whole(output, folder=True) as work:

        def write(kind: str, name: str, spec: dict[str, Any], make: Callable[[], Record]) -> None:
            with _noting(missing, name, partial):
                _check_fetched(spec)
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
            with _noting(missing, name, partial):
                _check_fetched(spec)
                samples += [s for s in read_text(spec)[: spec["characters"]].splitlines() if s.strip()]
        compared = make_lines(encoder.tokenizer, samples) if lines else []
        (work / "lines.json").write_text(json.dumps([(s, encoder.encode(s)) for s in compared]))
        (work / "meta.json").write_text(json.dumps({"vocabulary": encoder.vocabulary}))
        (work / MISSING).write_text(json.dumps(missing))


@contextmanager
def _noting(missing: dict[str, str], name: str, partial: bool) -> Iterator[None]:
    """With `partial`, note an error of the block as the reason why `name` is missing, and go on."""
    try:
        yield
    except OSError:
        raise  # the workload itself cannot be written
    except Exception as error:
        if not partial:
            raise
        ours = isinstance(error, QuantgateError)
        missing[name] = str(error) if ours else f"{name}: {type(error).__name__}: {error}"


def _check_fetched(spec: dict[str, Any]) -> None:
    if "missing" in spec:
        raise AssetError(spec["missing"])
