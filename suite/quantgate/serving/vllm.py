"""vLLM: `/v1/completions` with its own `prompt_logprobs` and `return_token_ids`, which name tokens by their ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from quantgate.errors import MeasurementError
from quantgate.machine.environment import Facts
from quantgate.serving.client import Event
from quantgate.serving.dialect import Dialect, part
from quantgate.serving.replies import Reply

PLAIN: dict[str, Any] = {"temperature": 0, "seed": 0, "n": 1}


class Vllm(Dialect):
    """vLLM. It names at most `--max-logprobs` (20) of the likeliest tokens, and the token itself beyond them. Start it
    with `--no-enable-prefix-caching` and `--generation-config vllm`."""

    tops: ClassVar[int] = 20

    def facts(self) -> Facts:
        if not self.client.model:
            self.client.model = part(self.client.get("/v1/models"), "data", 0, "id")
        return {"server": f"vllm {part(self.client.get('/version'), 'version')}"}

    def context(self) -> int | None:
        models = part(self.client.get("/v1/models"), "data")
        mine: dict[str, Any] = next((one for one in models if one.get("id") == self.client.model), {})
        longest = mine.get("max_model_len")
        return None if longest is None else int(longest) - 1  # one token is written

    def score(self, ids: Sequence[int], start: int, top: int) -> Reply:
        answer = self._complete(ids, {"max_tokens": 1, "prompt_logprobs": top})
        choice = part(answer, "choices", 0)
        places = list(choice.get("prompt_logprobs") or answer.get("prompt_logprobs") or [])
        scored = places[start:]
        seen = choice.get("prompt_token_ids")
        return Reply(
            [_of_token(place, token) for place, token in zip(scored, ids[start:], strict=False)]
            if len(places) == len(ids)
            else [None] * len(places),
            [_likeliest(place, top) for place in scored],
            prompt_tokens=part(answer, "usage", "prompt_tokens"),
            ids=None if seen is None else seen[start:],
        )

    def write(self, ids: Sequence[int], limit: int) -> list[int]:
        answer = self._complete(ids, {"max_tokens": limit})
        return list(part(answer, "choices", 0, "token_ids"))

    def stream(self, ids: Sequence[int], count: int) -> Iterator[tuple[Event, int]]:
        body = _body(ids, {"max_tokens": count, "ignore_eos": True, "stream": True})
        for event in self.client.stream("/v1/completions", body):
            for choice in event.value.get("choices") or ():
                yield event, len(part(choice, "token_ids") or ())

    def tokenize(self, text: str) -> list[int] | None:
        body = {"prompt": text, "add_special_tokens": False}
        return list(part(self.client.post("/tokenize", body), "tokens"))

    def _complete(self, prompt: Sequence[int], options: dict[str, Any]) -> Any:
        return self.client.post("/v1/completions", _body(prompt, options))


def _body(prompt: Sequence[int], options: dict[str, Any]) -> dict[str, Any]:
    return {**PLAIN, **options, "prompt": list(prompt), "return_token_ids": True}


def _of_token(place: Any, token: int) -> float | None:
    """Return the log-probability of a token at its place. Raises MeasurementError where others are named."""
    named = place or {}
    if named and str(token) not in named:
        raise MeasurementError(
            f"the server scored other tokens than were sent: token {token} is not among {', '.join(named)}"
        )
    return part(named, str(token), "logprob") if named else None


def _likeliest(place: Any, top: int) -> list[tuple[int, float]]:
    pairs = [(int(token), part(entry, "logprob")) for token, entry in (place or {}).items()]
    return sorted(pairs, key=lambda pair: -pair[1])[:top]
