"""What a metric is given while its cell's process runs: the loaded model, the workload, phases, progress."""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from quantgate.backends.base import DeviceMemory
from quantgate.items import TOKENIZER, Programs, Task, Text
from quantgate.measure.fitting import fit
from quantgate.measure.noise import Watch, watched
from quantgate.processes.turns import Turns
from quantgate.records import Record, Scalar

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from quantgate.backends.base import Backend
    from quantgate.jobs import Job
    from quantgate.measure.scoring import Scored
    from quantgate.measure.way import Handshake

R = TypeVar("R", bound=Record)
FORWARD = ("scores", "logits", "prefill", "decode")
"""The methods of a backend that run the model."""


@dataclass
class Peak:
    """Highest memory of a phase, in bytes. resident: the kernel's high-water mark; anonymous and file:
    sampled every few milliseconds; device: by kind, on an accelerator."""

    resident: int = 0
    anonymous: int = 0
    file: int = 0
    device: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, int]:
        flat = asdict(self)
        return {**{k: v for k, v in flat.items() if k != "device"}, **flat["device"]}


class Session:
    """One loaded model with the work it is given. Built by the worker, handed to each metric in turn."""

    def __init__(
        self, job: Job, report: Callable[[str, float, float], None], turns: Turns | None = None
    ) -> None:
        self._job = job
        self._report = report
        self.turns = turns or Turns()
        self.phase = "load"
        self.backend: Backend
        self.load_peak = Peak()
        self.load_seconds = 0.0
        self.load_watch = Watch()
        self.source_hash = job.source_hash
        self.threads = job.threads
        self.cell = job.cell
        self.reference = job.reference
        self.logprobs = job.logprobs
        self.no_peaks = ""
        """Why the peak of a phase cannot be told from that of an earlier one; empty: it can."""
        self.is_reference = job.cell == job.reference
        self.scored: dict[tuple[int, ...], Scored] = {}
        """Windows of text that were scored already, by their token ids: metric groups share them."""
        self.handshake: Handshake | None = None
        """How tasks are scored, once that was needed."""
        self.notes: dict[str, str] = {}
        """What the record says of how it was measured, by subject."""
        self.phase_note = ""
        """What the progress says after the name of the phase."""
        self.forward: dict[str, float] = {}
        """By phase, the seconds spent in forward passes."""
        self.scoring: dict[str, float] = {}
        """By task, the seconds spent on scoring its items."""

    def load(self, loader: Callable[[Path, dict[str, Any], int], Backend]) -> None:
        """Load the checkpoint, taking time and peak memory."""
        with watched(self.load_watch), self.memory_phase() as self.load_peak:
            begin = time.perf_counter()
            self.backend = loader(self._job.weights, self._job.scheme_options, self._job.threads)
            self.load_seconds = time.perf_counter() - begin
        fit(self.backend, self.vocabulary, self._job.weights, lambda: f"tiers.{self._job.tier}.{self.phase}")
        for name in FORWARD:
            if hasattr(self.backend, name):
                setattr(self.backend, name, self._counted(getattr(self.backend, name)))

    def _counted(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Adds its time to that of the present phase."""

        @functools.wraps(forward)
        def counted(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return forward(*arguments)
            finally:
                self.forward[self.phase] = self.forward.get(self.phase, 0.0) + time.perf_counter() - begin

        return counted

    @property
    def kernels(self) -> str:
        """Which kernels the backend chose for this processor: a condition of memory peaks and timings."""
        return str(self.backend.facts()["kernels"])

    @property
    def attention(self) -> dict[str, Scalar]:
        """A condition of what is computed, where the library has several attention implementations."""
        facts = self.backend.facts()
        return {"attention": facts["attention"]} if "attention" in facts else {}

    def options(self, group: str, model: type[R]) -> R:
        return model.model_validate(self._job.group_options.get(group, {}))

    def requested(self, group: str) -> bool:
        """Whether the job asks for this metric group too."""
        return any(r.split("/")[0] == group for r in self._job.requests)

    def progress(self, done: float, total: float) -> None:
        """Tell the parent how far the present phase is."""
        self._report(f"{self.phase}{self.phase_note}", done, total)

    def text(self, name: str) -> Text:
        return Text.model_validate_json((self._job.workload / f"text-{name}.json").read_bytes())

    def task(self, name: str) -> Task:
        return Task.model_validate_json((self._job.workload / f"task-{name}.json").read_bytes())

    def programs(self, name: str) -> Programs:
        return Programs.model_validate_json((self._job.workload / f"programs-{name}.json").read_bytes())

    @functools.cached_property
    def detokenizer(self) -> Tokenizer:
        """The model's own tokenizer, where the workload has programs."""
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self._job.workload / TOKENIZER))

    def tokenizer_lines(self) -> list[tuple[str, list[int]]]:
        """Texts and their ids by the model's own tokenizer."""
        return [(text, ids) for text, ids in json.loads((self._job.workload / "lines.json").read_bytes())]

    def prompt(self, length: int) -> list[int]:
        """Random token ids, the same on every run, as llama-bench feeds them; timing does not depend on text."""
        return random.Random(0).choices(range(self.vocabulary), k=length)  # noqa: S311

    @functools.cached_property
    def vocabulary(self) -> int:
        """Tokens of the model's own tokenizer."""
        return int(json.loads((self._job.workload / "meta.json").read_bytes())["vocabulary"])

    @contextmanager
    def memory_phase(self) -> Iterator[Peak]:
        """Measure the process's memory while the block runs; the yielded Peak is filled when it ends."""
        peak = Peak()
        backend = getattr(self, "backend", None)
        if isinstance(backend, DeviceMemory):
            backend.reset_device_peak()
        give_back_memory()
        # "5" resets the high-water mark of resident memory, see proc(5), /proc/pid/clear_refs.
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError as error:
            self.no_peaks = f"{error.filename}: {error.strerror}"
        stop = threading.Event()
        sampler = threading.Thread(target=_sample, args=(peak, stop), daemon=True)
        sampler.start()
        try:
            yield peak
        finally:
            stop.set()
            sampler.join()
            peak.resident = _status()["VmHWM"]
            backend = getattr(self, "backend", None)
            if isinstance(backend, DeviceMemory):
                peak.device = backend.device_peak_bytes()


def _sample(peak: Peak, stop: threading.Event) -> None:
    while True:
        status = _status()
        peak.anonymous = max(peak.anonymous, status["RssAnon"])
        peak.file = max(peak.file, status["RssFile"] + status["RssShmem"])
        if stop.wait(0.005):
            return


def give_back_memory() -> None:
    """What was freed before and the allocator kept is no memory of what comes next, nor room for it to grow in."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def anonymous_bytes() -> int:
    """Anonymous resident memory of this process."""
    return _status()["RssAnon"]


def _status() -> dict[str, int]:
    """The memory lines of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {key: int(value.removesuffix(" kB")) * 1024 for key, value in pairs}
