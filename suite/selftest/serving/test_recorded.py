"""Dialects of servers that are not run here, on exchanges written from their documented formats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from quantgate.backends.served import BACKEND
from quantgate.errors import MeasurementError
from quantgate.serving.client import Client
from quantgate.serving.dialect import Dialect, Vocabulary
from quantgate.serving.dialects import DIALECTS
from quantgate.serving.replies import checked

IDS = [785, 6722, 315, 9625]
LOGPROBS = [-4.1, -0.3, -6.5]
TOPS = [[(198, -1.2), (6722, -4.1)], [(315, -0.3), (374, -2.0)], [(9822, -0.9), (279, -1.1)]]


def vllm(**further: Any) -> dict[str, Any]:
    """Of places the two likeliest tokens, and the token itself where it is none of them."""
    places = [
        {
            str(token): {"logprob": value, "rank": rank, "decoded_token": "x"}
            for rank, (token, value) in enumerate(top, 1)
        }
        for top in TOPS
    ]
    places[2]["9625"] = {"logprob": -6.5, "rank": 212, "decoded_token": " France"}
    choice = {
        "index": 0, "text": "x", "finish_reason": "length", "logprobs": None, "prompt_token_ids": IDS,
        "token_ids": [374], "prompt_logprobs": [None, *places],
    }  # fmt: skip
    usage = {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": "m",
        "choices": [{**choice, **further}],
        "usage": usage,
    }


def sglang(**further: Any) -> dict[str, Any]:
    values = [
        [None, 785, None],
        *([value, token, None] for value, token in zip(LOGPROBS, IDS[1:], strict=True)),
    ]
    tops = [None, *([[value, token, None] for token, value in top] for top in TOPS)]
    about = {
        "id": "1", "finish_reason": {"type": "length", "length": 1}, "prompt_tokens": 4, "completion_tokens": 1,
        "cached_tokens": 0, "input_token_logprobs": values, "input_top_logprobs": tops,
    }  # fmt: skip
    return {"text": "x", "output_ids": [374], "meta_info": {**about, **further}}


PIECES = {785: "The", 6722: " capital", 315: " of", 9625: " France"}


def openai(**further: Any) -> dict[str, Any]:
    """What was written, one token, comes after the prompt."""
    lists = {
        "text_offset": [0, 3, 11, 14, 21],
        "tokens": [*PIECES.values(), " is"],
        "token_logprobs": [None, *LOGPROBS, -0.2],
        "top_logprobs": [
            None, {"\n": -1.2, " capital": -4.1}, {" of": -0.3}, {" Germany": -0.9, " France": -6.5}, {" is": -0.2},
        ],
    }  # fmt: skip
    choice = {"index": 0, "text": "The capital of France is", "logprobs": {**lists, **further}}
    usage = {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}
    return {"id": "cmpl-1", "object": "text_completion", "choices": [choice], "usage": usage}


MODELS = {
    "object": "list",
    "data": [{"id": "m", "object": "model", "owned_by": "acme", "max_model_len": 2048}],
}
REST: dict[str, Any] = {
    "/v1/models": MODELS,
    "/version": {"version": "0.26.0"},
    "/get_server_info": {"version": "0.5.9", "context_length": 2048},
    "/tokenize": {"count": 2, "max_model_len": 2048, "tokens": [785, 6722]},
}
SCORED = {
    "vllm": ("/v1/completions", vllm),
    "sglang": ("/generate", sglang),
    "openai": ("/v1/completions", openai),
}
STREAMED = {
    "vllm": [{"choices": [{"index": 0, "text": "a", "token_ids": ids}]} for ids in ([1], [2, 3])]
    + [{"choices": []}],
    "sglang": [{"text": "a", "meta_info": {"completion_tokens": n}} for n in (1, 3)],
    "openai": [{"choices": [{"text": "a", "logprobs": {"tokens": texts}}]} for texts in (["a"], ["b", "c"])]
    + [{"choices": [], "usage": {}}],
}


@contextmanager
def recorded(
    name: str, answers: dict[str, Any], asked: list[tuple[str, Any]] | None = None
) -> Iterator[Dialect]:
    """A dialect that talks to a server which gives these answers by path; a list is streamed."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, body: Any) -> None:
            if asked is not None:
                asked.append((self.path, body))
            answer = {**REST, **answers}[self.path]
            self.send_response(200)
            self.end_headers()
            if isinstance(answer, list):
                events = [*map(json.dumps, answer), "[DONE]"]
                self.wfile.write("".join(f"data: {one}\n\n" for one in events).encode())
            else:
                self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            client = Client(f"http://127.0.0.1:{server.server_port}", timeout=20)
            texts = [PIECES.get(number, "") for number in range(10_000)]
            yield DIALECTS[name](client, Vocabulary(151936, texts=texts))
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("start", [1, 2, 3])
def test_every_token_gets_its_log_probability(name: str, start: int) -> None:
    path, answer = SCORED[name]
    asked: list[tuple[str, Any]] = []
    with recorded(name, {path: answer()}, asked) as dialect:
        reply = checked(dialect.score(IDS, start, 2), IDS, start)
    assert reply.logprobs.tolist() == LOGPROBS[start - 1 :]
    if dialect.tops > 1:
        pairs = [
            list(zip(a, b, strict=True))
            for a, b in zip(reply.tokens.tolist(), reply.likely.tolist(), strict=True)
        ]
        assert pairs == TOPS[start - 1 :]
    else:
        assert reply.likely[:, 0].tolist() == [top[0][1] for top in TOPS[start - 1 :]]
    assert reply.likeliest.tolist() == [False, True, False][start - 1 :]
    ((_, body),) = asked
    assert IDS in (body.get("prompt"), body.get("input_ids")), "ids, and no text"


@pytest.mark.parametrize(
    ("name", "further", "says"),
    [
        ("vllm", {"prompt_logprobs": None}, "the server sent 0 log-probabilities: it ignores"),
        ("vllm", {"prompt_logprobs": vllm()["choices"][0]["prompt_logprobs"][1:]}, "of token 1 is None"),
        ("vllm", {"prompt_token_ids": [1, *IDS[1:]][::-1]}, "scored other tokens than were sent"),
        ("vllm", {"prompt_logprobs": [None, {"1": {"logprob": -1.0}}, *vllm()["choices"][0]["prompt_logprobs"][2:]],
                  "prompt_token_ids": None}, "token 6722 is not among 1"),
        ("openai", {"tokens": [*PIECES.values()][::-1]}, "other tokens than were sent: ' France' at place 0"),
        ("openai", {"tokens": [" is"]}, "ignores echo: this server does not score prompts by .* dialect"),
        ("openai", {"tokens": None}, "this server does not score prompts"),
        ("openai", {"tokens": ["<s>", *PIECES.values(), " is"]}, "and the server names 6: it adds tokens"),
        ("openai", {"token_logprobs": [None, *LOGPROBS[1:], -0.2, -1.0]}, "the server contradicts itself"),
        ("sglang", {"cached_tokens": 3}, "3 of 4 tokens were taken from the prefix cache"),
        ("sglang", {"prompt_tokens": 5}, "a beginning-of-sequence token is added"),
        ("sglang", {"input_token_logprobs": [[None, 9625, None]]}, "the server sent 0 log-probabilities: it ignores"),
    ],
)  # fmt: skip
def test_what_is_not_of_the_prompt_is_an_error(name: str, further: dict[str, Any], says: str) -> None:
    path, answer = SCORED[name]
    with recorded(name, {path: answer(**further)}) as dialect, pytest.raises(MeasurementError, match=says):
        checked(dialect.score(IDS, 1, 2), IDS, 1)


@pytest.mark.parametrize(
    ("name", "server"), [("vllm", "vllm 0.26.0"), ("sglang", "sglang 0.5.9"), ("openai", "openai m")]
)
def test_a_server_says_what_it_is(name: str, server: str) -> None:
    with recorded(name, {}) as dialect:
        assert dialect.facts() == {"server": server}
        assert dialect.context() == (None if name == "openai" else 2047)
        if name != "sglang":
            assert dialect.client.model == "m", "the first that the server names"


@pytest.mark.parametrize("name", STREAMED)
def test_events_have_one_token_or_several(name: str) -> None:
    path, answer = SCORED[name]
    with recorded(name, {path: answer()}) as dialect:
        assert not dialect.writes or dialect.write(IDS, 1) == [374]
    with recorded(name, {path: STREAMED[name]}) as dialect:
        assert [new for _, new in dialect.stream(IDS, 3)] == [1, 2]


def test_vllm_tokenizes() -> None:
    with recorded("vllm", {}) as dialect:
        assert dialect.tokenize("The capital") == [785, 6722]


def test_a_cell_has_no_cases_of_what_its_server_does_not_say() -> None:
    def can(dialect: str) -> frozenset[str]:
        return BACKEND.can({"bits": 16, "url": "http://127.0.0.1:8000", "dialect": dialect})

    assert can("sglang") == can("vllm") - {"tokenizes"}
    assert can("openai") == {"scores", "serves"}
