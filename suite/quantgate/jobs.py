"""The jobs of child processes, and the time that they took."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from quantgate.records import Record


class Job(Record):
    """The work of one measuring process. All paths are absolute and exist."""

    kind: Literal["measure"] = "measure"
    cell: str
    tier: str
    fingerprint: str
    run: str = ""
    backend: str
    scheme_options: dict[str, Any]
    weights: Path
    """The checkpoint in the form that this backend loads: a folder with safetensors, or a GGUF file."""
    source_hash: str
    """Identity of the checkpoint before quantization; a condition of every comparison."""
    under_test: dict[str, str] = Field(default_factory=dict)
    """By key of the environment (`quantgate.judge.environment`), the identity of a checkpoint that is itself under
    test, and so no condition; empty: it was made from the source."""
    conditions: dict[str, str] = Field(default_factory=dict)
    """Of each metric, beside those that its group states."""
    workload: Path
    """Folder with the tokenized texts and tasks (`quantgate.supply.workload`)."""
    requests: list[str]
    """`perplexity`, `accuracy/arc_easy`, `memory`, `throughput/decode` ..."""
    group_options: dict[str, dict[str, Any]]
    """The tier's settings of each metric group (n_ctx, rounds, budget ...)."""
    threads: int
    first: bool = True
    """Whether this process begins each round when two processes take turns (`quantgate.processes.turns`)."""
    requested: float = Field(default_factory=time.monotonic)
    """When the process was requested, in seconds of the monotonic clock, which all processes of a machine share."""
    reference: str = ""
    """Id of the reference cell; equal to `cell` where the cell is a reference itself."""
    left: dict[str, Path] = Field(default_factory=dict)
    """By metric group, what the reference's process leaves: it writes the file, other cells read it. Of divergence its
    log-probabilities (`quantgate.measure.logprobs`)."""
    output: Path


class PromptRequest(Record):
    """How many prompts are asked, the first ones, and how: chat: through the model's chat template, after the `system`
    message if there is one."""

    items: int
    chat: bool
    system: str | None = None


class Posed(PromptRequest):
    """How the items of a task are asked. fewshot: examples before each, the first of the task's; None: as many as
    the task says, chosen as it says. turns: in a chat the examples are turns of the conversation, not one message with
    the question."""

    fewshot: int | None = None
    turns: bool = True


class Needs(Record):
    """What a metric group needs of the workload, by name: tokens of texts, items of tasks, characters of lines,
    programs to write, prompts, questions; whether it takes the conversations that chat templates are compared on; and
    the system messages (None: without one) of texts that go through the chat template."""

    texts: dict[str, int] = Field(default_factory=dict)
    tasks: dict[str, Posed] = Field(default_factory=dict)
    lines: dict[str, int] = Field(default_factory=dict)
    programs: dict[str, int] = Field(default_factory=dict)
    prompts: dict[str, PromptRequest] = Field(default_factory=dict)
    questions: dict[str, Posed] = Field(default_factory=dict)
    chats: bool = False
    openings: list[str | None] = Field(default_factory=list)

    @property
    def asks_plainly(self) -> bool:
        """Whether tasks or prompts are asked without the chat template."""
        return any(
            not one.chat for kind in (self.tasks, self.prompts, self.questions) for one in kind.values()
        )


class Preparation(Record):
    """The work of one preparing process: make one entry of the cache (a checkpoint in some scheme, a workload)."""

    kind: Literal["prepare"] = "prepare"
    title: str
    maker: str
    """`module:function`, called as function(output, report=..., **arguments)."""
    arguments: dict[str, Any]
    output: Path


class Spent(Record):
    """Wall time in seconds of one measuring process, as its parent saw it."""

    cell: str
    seconds: float
    phases: dict[str, float]
    """As in a measurement, and `prepare`, the work before it; empty where the process failed."""
    forward: dict[str, float]
    """In forward passes, by phase."""
