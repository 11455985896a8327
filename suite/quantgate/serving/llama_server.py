"""llama-server of llama.cpp: its own `/completion`, since its OpenAI routes give nothing of a prompt.

The server scores what it writes, not what it is given. So it is made to write the text: a grammar of token ids allows
one token at each place, and `n_probs` has it say how likely each was before the grammar was applied. A window is one
request, decoded token by token, and no cached prompt is reused: the same request gives the same numbers.

Two kinds of tokens cannot be had so, and are asked for alone, by a bias that lifts them above all others: special
tokens (ends), and those whose bytes are no whole characters: some of these end in status 500 under a grammar. What
leaves a character incomplete the server leaves out of its answer: it is looked up in the list of all tokens there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, ClassVar

from quantgate.errors import MeasurementError
from quantgate.items import common_length
from quantgate.machine.environment import Facts
from quantgate.serving.client import Event
from quantgate.serving.dialect import Dialect, part
from quantgate.serving.replies import Reply

PLAIN: dict[str, Any] = {"samplers": ["temperature"], "temperature": 0.0, "cache_prompt": False, "seed": 0}
"""Greedy, without penalties; every prompt is computed as if it were the first."""
ONE_LETTER = "root ::= [ -~]"
"""Allows the tokens that are one character of ASCII: a text that no token leaves incomplete."""
LIFT = 1e4
"""A bias that no logit reaches."""


class LlamaServer(Dialect):
    """llama-server. Of its slots one is used at a time; more of them do not change the numbers."""

    tops: ClassVar[int] = 64

    def facts(self) -> Facts:
        properties = self.client.get("/props")
        return {"server": f"llama-server {part(properties, 'build_info')}"}

    def context(self) -> int | None:
        # It stops one token before its context is full, and does not say why.
        return int(part(self.client.get("/props"), "default_generation_settings", "n_ctx")) - 2

    def size(self) -> int | None:
        models = self.client.get("/v1/models")
        with suppress(KeyError, IndexError, TypeError):
            return int(models["data"][0]["meta"]["n_vocab"])
        return None

    def score(self, ids: Sequence[int], start: int, top: int) -> Reply:
        logprobs: list[float | None] = []
        tops: list[Sequence[tuple[int, float]]] = []
        single = self.vocabulary.special | self.vocabulary.incomplete
        for alone, places in groupby(range(start, len(ids)), lambda n: ids[n] in single):
            run = list(places)
            parts = [[n] for n in run] if alone else [run]
            for one in parts:
                for value, likely in self._forced(ids, one[0], one[-1] + 1, top, alone):
                    logprobs.append(value)
                    tops.append(likely)
        return Reply(logprobs, tops, prompt_tokens=len(ids), ids=list(ids[start:]))

    def _forced(
        self, ids: Sequence[int], begin: int, end: int, top: int, alone: bool
    ) -> list[tuple[float, list[tuple[int, float]]]]:
        """Have the server write the tokens begin..end-1; return of each its log-probability, and the likeliest."""
        wanted = list(ids[begin:end])
        force: dict[str, Any] = (
            {"logit_bias": [[wanted[0], LIFT]]}
            if alone
            else {"grammar": "root ::= " + " ".join(f"<[{token}]>" for token in wanted)}
        )
        answer = self._complete(ids[:begin], {**force, "n_predict": len(wanted), "n_probs": top})
        entries = list(answer.get("completion_probabilities") or [])
        written = part(answer, "tokens")
        if written != wanted:
            place = common_length(written, wanted)
            raise MeasurementError(
                f"the server was to write the tokens {wanted[place : place + 3]} from place {begin + place} on, and "
                f"wrote {written[place : place + 3] or 'nothing'}"
                + (" (its context is full)" if answer.get("truncated") else "")
                + ": it has no grammars of token ids, and is older than llama.cpp of 2026, or ignores them"
            )
        backwards: list[tuple[float, list[tuple[int, float]]]] = []
        # From the end: of a character's tokens the server names the last.
        for place in reversed(range(begin, end)):
            if entries and part(entries[-1], "id") == ids[place]:
                entry = entries.pop()
                backwards.append((part(entry, "logprob"), _likeliest(entry)))
            else:
                backwards.append(self._unnamed(ids[:place], ids[place], top))
        if entries:
            raise MeasurementError(
                f"the server sent log-probabilities of tokens that it did not write: {part(entries[-1], 'id')}"
            )
        return backwards[::-1]

    def _unnamed(self, before: Sequence[int], token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        """Return the log-probability of a token that the server leaves out, from those of all tokens."""
        answer = self._complete(
            before, {"n_predict": 1, "n_probs": self.vocabulary.size, "grammar": ONE_LETTER}
        )
        every = _likeliest(part(answer, "completion_probabilities", 0))
        for one, value in every:
            if one == token:
                return value, every[:top]
        raise MeasurementError(
            f"the server names {len(every)} likely tokens, and token {token} is not among them"
        )

    def _complete(self, prompt: Sequence[int], options: dict[str, Any]) -> Any:
        answer = self.client.post(
            "/completion", {**PLAIN, **options, "prompt": list(prompt), "return_tokens": True}
        )
        seen = part(answer, "tokens_evaluated")
        if seen != len(prompt):
            raise MeasurementError(
                f"a prompt of {len(prompt)} tokens was sent, and the server evaluated {seen}: it adds tokens, or cuts "
                "the context without an error"
            )
        return answer

    def write(self, ids: Sequence[int], limit: int) -> list[int]:
        return list(part(self._complete(ids, {"n_predict": limit}), "tokens"))

    def stream(self, ids: Sequence[int], count: int) -> Iterator[tuple[Event, int]]:
        body = {**PLAIN, "prompt": list(ids), "n_predict": count, "ignore_eos": True, "stream": True}
        seen = 0
        for event in self.client.stream("/completion", {**body, "return_tokens": True}):
            # A token that leaves a character incomplete has no event of its own; the last event has the number of all.
            last = event.value.get("stop")
            new = part(event.value, "tokens_predicted") - seen if last else len(event.value["tokens"])
            seen += new
            yield event, new

    def tokenize(self, text: str) -> list[int] | None:
        body = {"content": text, "add_special": False, "parse_special": True}
        return list(part(self.client.post("/tokenize", body), "tokens"))


def _likeliest(entry: Any) -> list[tuple[int, float]]:
    return [(part(one, "id"), part(one, "logprob")) for one in part(entry, "top_logprobs")]
