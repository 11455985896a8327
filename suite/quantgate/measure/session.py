"""One cell measured in this process: the model is loaded, and the metric groups of its job run one after another."""

from __future__ import annotations

import functools
import importlib
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from quantgate.backends.base import DeviceMemory, ShakesHands
from quantgate.backends.spec import backends
from quantgate.errors import MeasurementError, UnmeasurableError
from quantgate.files import write_atomic
from quantgate.items import (
    CHATS,
    TOKENIZER,
    Conversation,
    Opening,
    Programs,
    Prompts,
    Questions,
    Task,
    Text,
    opening_name,
    part,
    tokens_in,
)
from quantgate.jobs import Job
from quantgate.machine.environment import describe
from quantgate.measure.added import check_metrics, checked, facts_of, read_part, sizes_of
from quantgate.measure.groups import group_name, group_of, in_order, unused_template
from quantgate.measure.positions import refuse_longer
from quantgate.measure.watch import Peak, memory_peak, watched
from quantgate.processes.progress import OnProgress, report
from quantgate.processes.turns import Turns, inherited
from quantgate.records import Measurement, Metric, Record, Scalar

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from quantgate.backends.base import Backend
    from quantgate.measure.scoring import Scored
    from quantgate.measure.way import Handshake

R = TypeVar("R", bound=Record)
FORWARD = ("scores", "answer", "logits", "prefill", "decode")
"""The methods of a backend that run the model."""


def measure_cell(job: Job) -> None:
    """Measure one cell and write its record; it is complete only when every requested metric is in it."""
    # A server has imported them, but for what must not be forked after its import: that counts to no loading either.
    for module in backends()[job.backend].imports:
        importlib.import_module(module)
    turns = inherited(job.first)
    session = Session(job, report, turns)

    def clock() -> float:
        """Monotonic, which is the same in all processes of a machine; it stands still in another process's turn."""
        return time.monotonic() - turns.waited

    turns.meet()
    begin = clock()
    phases = {"start": begin - job.requested}
    session.progress(0, 1)
    turns.take(lambda: session.load(checked(job.backend, backends()[job.backend])))
    phases["load"] = clock() - begin
    metrics: dict[str, Metric] = {}
    for group in in_order(map(group_name, job.requests)):
        begin = clock()
        session.phase, session.phase_note = group, ""
        session.progress(0, 1)
        parts = [r.split("/", 1)[1] for r in job.requests if r.startswith(f"{group}/")]
        try:
            metrics |= check_metrics(group, group_of(group), group_of(group).measure(session, parts))
        except UnmeasurableError as error:
            session.unmeasured[group] = str(error)
        phases[group] = clock() - begin
    if session.has_template:
        session.notes |= unused_template(job.group_options, job.requests)
    record = Measurement(
        cell=job.cell,
        tier=job.tier,
        fingerprint=job.fingerprint,
        run=job.run,
        requests=job.requests,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=clock() - job.requested,
        environment={**describe(), "threads": job.threads, **facts_of(session.backend), **job.under_test},
        notes=session.notes,
        metrics=metrics,
        phases=phases,
        forward=session.forward,
        scoring=session.scoring,
        unmeasured=session.unmeasured,
        complete=True,
    )
    write_atomic(job.output, record.model_dump_json(indent=1).encode())


class Session:
    """One loaded model and the work that its job gives it; each metric group gets it in turn."""

    def __init__(self, job: Job, report: OnProgress, turns: Turns | None = None) -> None:
        self._job = job
        self._report = report
        self.turns = turns or Turns()
        self.backend: Backend
        self.phase = "load"
        self.phase_note = ""
        """What the progress says after the name of the phase."""
        self.source_hash = job.source_hash
        self.threads = job.threads
        self.cell = job.cell
        self.reference = job.reference
        self.is_reference = job.cell == job.reference
        self.load_peak = Peak()
        self.load_seconds = 0.0
        self.load_raw: dict[str, Any] = {}
        """What disturbed the loading."""
        self.no_peaks = ""
        """Why the peak of a phase cannot be separated from that of an earlier one; empty: it can."""
        self.scored: dict[tuple[int, ...], Scored] = {}
        """Scores of windows of text by their token ids: metric groups share them."""
        self.handshake: Handshake | None = None
        """How tasks are scored, once that was needed."""
        self.causal = False
        """Whether the model has shown that no token's score depends on those that follow it."""
        self.notes: dict[str, str] = {}
        """Deviations from the usual way of measuring, by subject."""
        self.unmeasured: dict[str, str] = {}
        """Why a metric group, or a part of one (`answers/gsm8k`), could not be measured."""
        self.forward: defaultdict[str, float] = defaultdict(float)
        """By phase, the seconds spent in forward passes."""
        self._in_pass = False
        self.scoring: dict[str, float] = {}
        """By task, the seconds spent on scoring its items."""

    def load(self, loader: Callable[[Path, dict[str, Any], int], Backend]) -> float:
        """Load the checkpoint, taking peak memory and time, which is returned in seconds. Raises MeasurementError: the
        model's tokenizer has more ids than its embedding has rows. The backend then refuses texts longer than its
        positions, where a library would crash or score nonsense."""
        job = self._job
        with watched() as self.load_raw, self.memory_phase() as self.load_peak:
            begin = time.perf_counter()
            self.backend = loader(job.weights, job.scheme_options, job.threads)
            self.load_seconds = time.perf_counter() - begin
        sizes = sizes_of(self.backend)
        if self.vocabulary > sizes.vocabulary:
            raise MeasurementError(
                f"{job.weights}: its tokenizer has {self.vocabulary:,} tokens, its embedding {sizes.vocabulary:,} "
                "rows: name the tokenizer that the model was trained with, or resize the embedding"
            )
        if isinstance(self.backend, ShakesHands) and (
            note := self.backend.handshake(tokens_in(job.workload))
        ):
            self.notes["server"] = note
        for name in FORWARD:
            if hasattr(self.backend, name):
                setattr(self.backend, name, self._forward_pass()(getattr(self.backend, name)))
        if sizes.positions is not None and hasattr(self.backend, "logits"):
            check = functools.partial(self._check_length, sizes.positions)
            refuse_longer(self.backend, check, learned=sizes.learned)
        return self.load_seconds

    @contextmanager
    def _forward_pass(self) -> Iterator[None]:
        """Add the time of the block to that of the present phase, unless it is part of another one."""
        inside, self._in_pass = self._in_pass, True
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._in_pass = inside
            if not inside:
                self.forward[self.phase] += time.perf_counter() - begin

    def _check_length(self, positions: int, tokens: int) -> None:
        if tokens > positions:
            raise MeasurementError(
                f"{self._job.weights}: has {positions:,} positions, and a text has {tokens:,} tokens: lower what "
                f"[tiers.{self._job.tier}.{self.phase}] asks for"
            )

    @property
    def kernels(self) -> str:
        """Which kernels the backend chose for this processor: a condition of memory peaks and timings."""
        return str(facts_of(self.backend)["kernels"])

    @property
    def attention(self) -> dict[str, Scalar]:
        """A condition of what is computed, where the library has several attention implementations."""
        return {"attention": self.backend.facts().get("attention")}

    def options(self, group: str, model: type[R]) -> R:
        return model.model_validate(self._job.group_options.get(group, {}))

    def left_for(self, group: str) -> Path:
        """Return the file that the reference's process leaves for a metric group."""
        return self._job.left[group]

    def requested(self, group: str) -> bool:
        """Whether the job asks for this metric group too."""
        return group in map(group_name, self._job.requests)

    def progress(self, done: float, total: float) -> None:
        """Tell the parent how far the present phase is."""
        self._report(f"{self.phase}{self.phase_note}", done, total)

    def each(
        self, names: Iterable[str], parts: Sequence[str] = ()
    ) -> Iterator[tuple[str, Callable[[float, float], None]]]:
        """Yield those of the names that are among `parts` (none: all), each with what takes its progress."""
        chosen = [name for name in names if name in parts or not parts]
        for number, name in enumerate(chosen):

            def progress(done: float, total: float, number: int = number) -> None:
                self.progress(number + done / total, len(chosen))

            yield name, progress

    def text(self, name: str) -> Text:
        return self._read(Text, part("text", name))

    def opening(self, system: str | None) -> Opening:
        return self._read(Opening, opening_name(system))

    def task(self, name: str) -> Task:
        return self._read(Task, part("task", name))

    def programs(self, name: str) -> Programs:
        return self._read(Programs, part("programs", name))

    def prompts(self, name: str) -> Prompts:
        return self._read(Prompts, part("prompts", name))

    def questions(self, name: str) -> Questions:
        return self._read(Questions, part("questions", name))

    def _read(self, model: type[R], name: str) -> R:
        return read_part(self._job.workload, model, name)

    @functools.cached_property
    def detokenizer(self) -> Tokenizer:
        """The model's own tokenizer, where the workload has programs or questions."""
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self._job.workload / TOKENIZER))

    def folder(self, name: str) -> Path | None:
        """Return a folder of the workload; None: it has none of this name."""
        folder = self._job.workload / name
        return folder if folder.exists() else None

    def tokenizer_lines(self) -> list[tuple[str, list[int]]]:
        """Return texts and their ids by the model's own tokenizer."""
        return [(text, ids) for text, ids in json.loads((self._job.workload / "lines.json").read_bytes())]

    def conversations(self) -> list[Conversation]:
        """Return conversations and their ids by the model's own template and tokenizer."""
        return list(map(Conversation.model_validate, json.loads((self._job.workload / CHATS).read_bytes())))

    def prompt(self, length: int) -> list[int]:
        """Return random token ids, the same on every run, as llama-bench feeds them; timing does not depend on text."""
        return random.Random(0).choices(range(self.vocabulary), k=length)  # noqa: S311

    @functools.cached_property
    def _meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self._job.workload / "meta.json").read_bytes())
        return meta

    @property
    def vocabulary(self) -> int:
        """Tokens of the model's own tokenizer."""
        return int(self._meta["vocabulary"])

    @property
    def has_template(self) -> bool:
        """Whether the model's own tokenizer has a chat template."""
        return bool(self._meta.get("template"))

    @contextmanager
    def memory_phase(self) -> Iterator[Peak]:
        """Measure the memory of process and device while the block runs; the yielded Peak is filled when it ends."""
        before = getattr(self, "backend", None)  # the block may load it
        if isinstance(before, DeviceMemory):
            before.reset_device_peak()
        with memory_peak() as peak:
            yield peak
        self.no_peaks = peak.inherited or self.no_peaks
        if isinstance(self.backend, DeviceMemory):
            peak.device = self.backend.device_peak_bytes()
