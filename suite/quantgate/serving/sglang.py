"""SGLang: its own `/generate`, which scores a prompt of token ids from a place on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from quantgate.errors import MeasurementError
from quantgate.machine.environment import Facts
from quantgate.serving.client import Event
from quantgate.serving.dialect import Dialect, part
from quantgate.serving.replies import Reply

GREEDY: dict[str, Any] = {"temperature": 0.0}


class SGLang(Dialect):
    """SGLang. The prompt is scored from its first token on, since what is taken from the prefix cache has no numbers;
    start it with `--disable-radix-cache` and `--sampling-defaults openai`."""

    tops: ClassVar[int] = 64

    def facts(self) -> Facts:
        return {"server": f"sglang {part(self._about(), 'version')}"}

    def context(self) -> int | None:
        longest = self._about().get("context_length")
        return None if longest is None else int(longest) - 1  # one token is written

    def _about(self) -> Any:
        return self.client.get("/get_server_info")

    def score(self, ids: Sequence[int], start: int, top: int) -> Reply:
        options = {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": top}
        about = part(self._generate(ids, 1, options), "meta_info")
        cached = int(about.get("cached_tokens") or 0)
        if cached:
            raise MeasurementError(
                f"{cached} of {len(ids)} tokens were taken from the prefix cache: switch it off (--disable-radix-cache)"
            )
        values = part(about, "input_token_logprobs")[start:]
        places = (about.get("input_top_logprobs") or [])[start:]
        return Reply(
            [part(one, 0) for one in values],
            [[(part(one, 1), part(one, 0)) for one in place or ()] for place in places],
            prompt_tokens=part(about, "prompt_tokens"),
            ids=[part(one, 1) for one in values],
        )

    def write(self, ids: Sequence[int], limit: int) -> list[int]:
        return list(part(self._generate(ids, limit, {}), "output_ids"))

    def stream(self, ids: Sequence[int], count: int) -> Iterator[tuple[Event, int]]:
        seen = 0
        sampling = {**GREEDY, "max_new_tokens": count, "ignore_eos": True}
        body = {"input_ids": list(ids), "sampling_params": sampling, "stream": True}
        for event in self.client.stream("/generate", body):
            # Each event has the number of all tokens so far.
            written = int(part(event.value, "meta_info", "completion_tokens"))
            yield event, written - seen
            seen = written

    def _generate(self, prompt: Sequence[int], limit: int, options: dict[str, Any]) -> Any:
        body = {"input_ids": list(prompt), "sampling_params": {**GREEDY, "max_new_tokens": limit}, **options}
        return self.client.post("/generate", body)
