"""Servers with OpenAI's `/v1/completions` of old: a prompt of token ids, `echo` and `logprobs`.

They name tokens by their texts. Each is held against the text of the id that was sent; of the likeliest only
whether that is the token itself, and how likely it is: all that the handshake needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from tokenizers import decoders

from quantgate.errors import MeasurementError
from quantgate.machine.environment import Facts
from quantgate.serving.client import Event
from quantgate.serving.dialect import Dialect, part
from quantgate.serving.replies import Reply

PATH = "/v1/completions"
GREEDY: dict[str, Any] = {"temperature": 0, "seed": 0, "n": 1}
OTHER = -1
"""In place of the id of a token that the server names by a text alone."""
ELSEWHERE = (
    "this server does not score prompts by /v1/completions (echo with logprobs): use its own dialect (llama-server, "
    "vllm, sglang), or measure these weights in process"
)


class OpenAI(Dialect):
    """Another server with that interface. It names no ids, so nothing that it writes is read."""

    ready: ClassVar[str] = "/v1/models"
    tops: ClassVar[int] = 1
    writes: ClassVar[bool] = False

    def facts(self) -> Facts:
        if not self.client.model:
            self.client.model = part(self.client.get("/v1/models"), "data", 0, "id")
        return {"server": f"openai {self.client.model}"}

    def score(self, ids: Sequence[int], start: int, top: int) -> Reply:
        body = {**GREEDY, "prompt": list(ids), "max_tokens": 1, "echo": True, "logprobs": 1}
        answer = self._posted(body)
        lists = part(answer, "choices", 0, "logprobs") or {}
        if not isinstance(lists, dict) or not {"tokens", "token_logprobs", "top_logprobs"} <= lists.keys():
            raise MeasurementError(ELSEWHERE)
        texts = list(lists["tokens"] or [])
        if len(texts) <= 1 < len(ids):  # what was written, at most
            raise MeasurementError(f"the server ignores echo: {ELSEWHERE}")
        end = len(ids)
        if len(texts) not in (end, end + 1):
            raise MeasurementError(
                f"{end} tokens were sent and one was to be written, and the server names {len(texts)}: it adds tokens, "
                "or cuts the context without an error"
            )
        for place in range(end):
            self._check_text(place, ids[place], texts[place])
        values = list(lists["token_logprobs"])[start:end]
        places = list(lists["top_logprobs"] or [])[start:end]
        return Reply(
            values,
            [
                _likeliest(place, token, text)
                for place, token, text in zip(places, ids[start:], texts[start:end], strict=False)
            ],
            prompt_tokens=part(answer, "usage", "prompt_tokens"),
        )

    def _posted(self, body: dict[str, Any]) -> Any:
        try:
            return self.client.post(PATH, body)
        except MeasurementError as error:
            if "valid string" in str(error):  # what pydantic says of ids
                raise MeasurementError(f"the server takes texts and no token ids: {ELSEWHERE}") from error
            raise

    def _check_text(self, place: int, token: int, text: str) -> None:
        """Raise MeasurementError where a token is named by another text than it has. Spaces at its ends do not count:
        some servers leave the first one out."""
        words = self.vocabulary
        if not words.texts or token in words.special or token in words.incomplete:
            return
        mine = words.texts[token].strip()
        if mine not in (
            text.strip(),
            decoders.ByteLevel().decode([text]).strip(),
            text.replace("▁", " ").strip(),
        ):
            raise MeasurementError(
                f"the server scored other tokens than were sent: {text!r} at place {place}, where token {token} "
                f"({words.texts[token]!r}) was sent"
            )

    def stream(self, ids: Sequence[int], count: int) -> Iterator[tuple[Event, int]]:
        body = {**GREEDY, "prompt": list(ids), "max_tokens": count, "ignore_eos": True, "logprobs": 1}
        for event in self.client.stream(PATH, {**body, "stream": True}):
            for choice in event.value.get("choices") or ():
                yield event, len((choice.get("logprobs") or {}).get("tokens") or ())


def _likeliest(place: Any, token: int, text: str) -> list[tuple[int, float]]:
    """Return the likeliest token of a place: `token` where its text is the likeliest, else `OTHER`."""
    if not place:
        return []
    value = max(place.values())
    return [(token if place.get(text) == value else OTHER, value)]
