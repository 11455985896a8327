"""A model behind a server that this process starts, or that runs elsewhere."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantgate.backends.base import Sizes, Stops
from quantgate.backends.tree import TokenSequence
from quantgate.errors import MeasurementError
from quantgate.machine.environment import Facts, instruction_sets
from quantgate.serving.client import Client
from quantgate.serving.dialects import DIALECTS
from quantgate.serving.handshake import handshake
from quantgate.serving.level import Level
from quantgate.serving.process import ModelServer
from quantgate.serving.replies import Answer, checked
from quantgate.serving.traffic import Job, run_traffic
from quantgate.serving.vocabulary import vocabulary_of

USUAL = 64
"""The commonest tokens of the texts, of which the handshake makes its own."""

PADDING = 0.01
"""Share of a vocabulary by which files of one model may differ: some count tokens that only fill it up."""

ENDS = 2.0
"""Seconds in which a server whose connection was lost has ended."""


class Served:
    """A model that a server runs; every answer is checked."""

    def __init__(self, checkpoint: Path, options: dict[str, Any], threads: int) -> None:
        self._options = options
        self._top = options.get("top", 20)
        command = options.get("command")
        key = os.environ.get(options.get("key_variable") or "", "")
        vocabulary = vocabulary_of(checkpoint)  # before a server runs that would have to be ended
        self._server = (
            ModelServer(command, {"checkpoint": checkpoint, "threads": threads}, key) if command else None
        )
        self._client = Client(
            self._server.url if self._server else options["url"],
            key=key,
            timeout=options.get("answer_limit", 120.0),
            model=options.get("model", ""),
        )
        self._dialect = DIALECTS[options["dialect"]](self._client, vocabulary)
        try:
            self._get_ready(options.get("start_limit", 300.0))
            self._check_size()
            self._facts = {**self._dialect.facts(), "kernels": self._kernels()}
            self._context = self._dialect.context()
        except BaseException:
            self.close()
            raise

    def _get_ready(self, seconds: float) -> None:
        """Wait for a started server; of another one, see that it is there. Raises MeasurementError."""
        path = self._dialect.ready
        if self._server is None:
            if what := self._client.why_not_ready(path):
                raise MeasurementError(f"{self._client.url}: no server that is ready: {what}")
            return
        self._server.wait(lambda: not self._client.why_not_ready(path), seconds)
        self._server.check_local()
        self._client.why_ended = self._server.why_ended

    def _check_size(self) -> None:
        """Raise MeasurementError where the server's vocabulary is plainly another one than the cell's."""
        size, mine = self._dialect.size(), self._dialect.vocabulary.size
        if size is not None and abs(size - mine) > PADDING * mine:
            raise MeasurementError(
                f"the server's model has {size:,} tokens, and the cell's {mine:,}: the server runs another model"
            )

    def close(self) -> None:
        """End a server that was started here."""
        if self._server:
            self._server.close()

    @property
    def retries(self) -> int:
        """How many requests had to be sent again so far."""
        return self._client.retries

    def sizes(self) -> Sizes:
        return Sizes(vocabulary=self._dialect.vocabulary.size, positions=self._context)

    def facts(self) -> Facts:
        return dict(self._facts)

    def _kernels(self) -> str:
        """Return what llama.cpp prints of its build when it starts, where it does; else the processor's instruction
        sets."""
        if self._server is None:
            return f"those of the server at {self._client.url}"
        for line in list(self._server.lines):
            if "system_info" in line and (features := re.findall(r"(\w+) = 1\b", line.partition("|")[2])):
                return " ".join(features)
        return instruction_sets()

    def handshake(self, tokens: Sequence[int]) -> str:
        usual = Counter(token for token in tokens if token not in self._dialect.vocabulary.special)
        spread = handshake(
            lambda ids, start: self.answer(TokenSequence(tuple(ids), start)),
            [token for token, _ in usual.most_common(USUAL)],
            self._dialect.vocabulary.size,
            self._dialect.write if self._dialect.writes else None,
            self._context,
        )
        if spread == 0:
            return ""
        return (
            f"the server does not repeat its answers: a token's log-probability varies by {spread:.2g} nats"
        )

    def scores(
        self, sequences: Sequence[TokenSequence]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
        answers = (self.answer(sequence) for sequence in sequences)
        return [(answer.logprobs, answer.likeliest) for answer in answers]

    def answer(self, sequence: TokenSequence) -> Answer:
        """Return what the server says of one sequence, checked. Raises MeasurementError."""
        length = len(sequence.ids)
        if self._context is not None and length > self._context:
            raise MeasurementError(
                f"a text has {length:,} tokens, and the server takes {self._context:,}: give it a longer context, or "
                "lower what the tier asks for"
            )
        top = min(self._top, self._dialect.tops)
        return checked(self._dialect.score(sequence.ids, sequence.start, top), sequence.ids, sequence.start)

    def generate(self, ids: Sequence[int], limit: int, stops: Stops) -> list[int]:
        written: list[int] = []
        while True:  # a server ends at tokens of its own choice, too: then it is asked to go on
            more = self._dialect.write([*ids, *written], limit - len(written))
            if not more or len(written) + len(more) > limit:
                raise MeasurementError(
                    f"the server was to write at most {limit - len(written)} tokens, and wrote {len(more)}"
                )
            for token in more:
                written.append(token)
                if len(written) == limit or stops.reached(written):
                    return written

    def generate_at_once(
        self, prompts: Sequence[Sequence[int]], limit: int, concurrency: int, done: Callable[[int], None]
    ) -> list[list[int]]:
        texts: list[list[int]] = []
        with ThreadPoolExecutor(concurrency) as pool:
            for text in pool.map(lambda prompt: self.generate(prompt, limit, Stops()), prompts):
                texts.append(text)
                done(len(texts))
        return texts

    def traffic(
        self, levels: Sequence[tuple[int, list[list[int]]]], tokens: int, done: Callable[[int], None]
    ) -> list[Level]:
        job = Job(
            url=self._client.url,
            dialect=self._options["dialect"],
            model=self._client.model,
            key_variable=self._options.get("key_variable") or "",
            timeout=self._client.timeout,
            levels=list(levels),
            tokens=tokens,
        )
        try:
            return run_traffic(job, done)
        except MeasurementError as error:  # the client of the traffic knows no process
            if self._server and (ended := self._server.why_ended(ENDS)):
                raise MeasurementError(f"{error}; {ended}") from error
            raise

    def peak_memory(self) -> int | None:
        return self._server.peak_memory if self._server else None

    def processor_seconds(self) -> float:
        return self._server.processor_seconds() if self._server else 0.0

    def tokenize(self, text: str) -> list[int]:
        ids = self._dialect.tokenize(text)
        if ids is None:
            raise MeasurementError("the server has no tokenizer that can be asked")
        return ids


load = Served
