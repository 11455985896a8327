"""A model server that speaks the dialects, right or with one defect.

`python -m selftest.serving.fake MODEL PORT [DEFECT]`; MODEL: a GGUF, or `bigrams`."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from selftest.serving import routes
from selftest.serving.models import Bigrams, Gguf, Model, ends_within

CONTEXT = 512
CUT = 12
"""Tokens that a server keeps which cuts the context."""
BEFORE_MODEL = ("dies", "hangs", "503")
"""Defects of servers that never come to look at their model."""


class Fake:
    """Answers requests; `defect` says what is wrong with it, empty: nothing."""

    def __init__(self, model: Model, defect: str = "") -> None:
        self.model = model
        self.defect = defect
        self.asked: list[tuple[str, Any]] = []
        self.refused = 0
        self.before: list[int] = []
        self.noise = np.random.default_rng(1)
        self.lock = threading.Lock()
        self.counting = threading.Lock()
        self.busy = self.most = 0
        """Requests that are being answered, and the most that were."""
        self.started = time.monotonic()

    def seen(self, ids: list[int]) -> list[int]:
        """The tokens that the server computes with."""
        if self.defect == "begin added":
            return [0, *ids]
        if self.defect == "context cut":
            return ids[-CUT:]
        if self.defect == "other tokens":
            return [*ids[:2], (ids[2] + 1) % len(self.model.pieces), *ids[3:]] if len(ids) > 2 else ids
        if self.defect == "token lost" and len(ids) > 4:
            return [*ids[:3], *ids[4:]]
        return ids

    def rows(self, ids: list[int]) -> NDArray[np.float64]:
        """Log-probabilities of what follows each token, as this server states them."""
        rows = self.model.rows(ids)
        if self.defect == "off by one":
            rows = np.roll(rows, -1, axis=0)
        if self.defect == "off by one, early":
            rows = np.vstack([rows[:1], rows[:-1]])
        if self.defect == "not repeatable":
            rows = _normal(rows + self.noise.normal(0, 1e-3, rows.shape))
        common = next((n for n, (a, b) in enumerate(zip(ids, self.before, strict=False)) if a != b), 0)
        if self.defect == "cache" and common >= 3:
            rows = _normal(rows * 1.05)
        if self.defect == "tempered":  # and greedy all the same
            rows = _normal(rows / 0.7)
        self.before = list(ids)
        if self.defect == "nan":
            rows = np.full_like(rows, np.nan)
        if self.defect == "positive":
            rows = -rows
        if self.defect == "all equal":
            rows = np.full_like(rows, -np.log(rows.shape[1]))
        return rows

    def top(self, row: NDArray[np.float64], count: int) -> list[tuple[int, float]]:
        """The likeliest tokens of a row."""
        order = np.argsort(-row, kind="stable")[:count]
        values = row[order]
        if self.defect == "after sampling":
            values = values - np.log(np.exp(values).sum())
        return [(int(token), float(value)) for token, value in zip(order, values, strict=True)]

    def greedy(self, ids: list[int], count: int, stop: bool = True) -> list[int]:
        """What it writes."""
        written: list[int] = []
        for _ in range(count):
            row = self.model.rows([*self.seen(ids), *written])[-1].copy()
            if self.defect == "penalty":
                row[list({*ids, *written})] -= 2.0
            written.append(int(row.argmax()))
            if stop and written[-1] == self.model.end:
                break
        return written

    def health(self) -> int:
        if self.defect == "slow start" and time.monotonic() - self.started < 0.4:
            return 503
        return 503 if self.defect == "never ready" else 200

    def refusal(self) -> int:
        """The status in place of an answer; 0: none."""
        if self.defect.isdigit():
            return int(self.defect)
        status, times = {"503 three times": (503, 3), "429 once": (429, 1)}.get(self.defect, (0, 0))
        if self.refused >= times:
            return 0
        self.refused += 1
        return status

    # --- llama-server ---

    def is_stuck(self, body: Any) -> bool:
        """Whether a grammar names a token whose bytes are no whole characters, as some of llama-server's do."""
        grammar = str(body.get("grammar", "")) if isinstance(body, dict) else ""
        return any(
            int(token) in incomplete(self.model.pieces) for token in re.findall(r"<\[(\d+)\]>", grammar)
        )

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = self.seen(list(body["prompt"]))
        grammar, bias = str(body.get("grammar", "")), body.get("logit_bias")
        count, top = body["n_predict"], body.get("n_probs", 0)
        forced = [int(token) for token in re.findall(r"<\[(\d+)\]>", grammar)]
        if bias:
            forced = [token for token, value in bias if value > 100]
        elif grammar and not forced:
            forced = [
                next(n for n, piece in enumerate(self.model.pieces) if len(piece) == 1 and piece.isascii())
            ]
        if self.defect == "no grammar":
            forced = []
        written = forced[:count] or self.greedy(prompt, count, stop=not body.get("ignore_eos"))
        if self.defect == "mixes requests up" and self.busy > 1 and not grammar and not bias:
            written = [(token + 1) % len(self.model.pieces) for token in written]
        rows = self.rows([*prompt, *written])[len(prompt) - 1 : -1]
        entries, text = [], b""
        for token, row in zip(written, rows, strict=True):
            text += self.model.pieces[token]
            if not ends_within(text):
                likely = [{"id": one, "logprob": value} for one, value in self.top(row, top)]
                entries.append({"id": token, "logprob": float(row[token]), "top_logprobs": likely})
        answer = {"tokens": written, "tokens_evaluated": len(prompt), "truncated": False, "stop": True}
        if self.defect != "echo ignored" and top:
            answer["completion_probabilities"] = entries
        return answer

    def answer(self, path: str, body: Any) -> Any:
        self.asked.append((path, body))
        if path == "/props":
            return {"build_info": "fake", "default_generation_settings": {"n_ctx": CONTEXT}}
        if path == "/tokenize":
            ids = self.model.tokenize(body["content"]) if isinstance(self.model, Gguf) else [1, 2, 3]
            return {"tokens": ids[::-1] if self.defect == "other tokenizer" else ids}
        if path == "/completion":
            return self.completion(body)
        if path == "/v1/completions":
            return routes.vllm(self, body) if "return_token_ids" in body else routes.openai(self, body)
        if path == "/v1/models":
            size = 999 if self.defect == "other model" else len(self.model.pieces)
            says = isinstance(self.model, Gguf) or self.defect == "other model"
            return {"data": [{"id": "bigrams", "meta": {"n_vocab": size} if says else None}]}
        if path == "/generate":
            return routes.sglang(self, body)
        raise KeyError(path)


def _normal(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    normal: NDArray[np.float64] = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return normal


def incomplete(pieces: Sequence[bytes]) -> frozenset[int]:
    """The numbers of the pieces that are no UTF-8."""
    return frozenset(n for n, piece in enumerate(pieces) if "\ufffd" in piece.decode(errors="replace"))


class Handler(BaseHTTPRequestHandler):
    """HTTP around a `Fake`."""

    fake: ClassVar[Fake]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            self.send(self.fake.health(), {"status": "ok"})
        else:
            self.reply(None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.fake.counting:
            self.fake.busy += 1
            self.fake.most = max(self.fake.most, self.fake.busy)
        try:
            self.reply(body)
        finally:
            with self.fake.counting:
                self.fake.busy -= 1

    def reply(self, body: Any) -> None:
        fake = self.fake
        if self.path not in ("/props", "/v1/models"):
            if fake.defect == "hangs":
                time.sleep(60)
            if fake.defect == "dies":
                os._exit(3)
            if fake.defect == "connection lost" and not fake.refused:
                fake.refused = 1
                self.close_connection = True
                return
            if fake.is_stuck(body):
                self.send(500, {"error": "Unexpected empty grammar stack"})
                return
            if fake.defect == "texts alone":
                self.send(422, {"detail": [{"msg": "Input should be a valid string", "input": [1, 2]}]})
                return
            if status := fake.refusal():
                self.send(status, {"error": f"no: {self.headers.get('Authorization', '')}"})
                return
            if fake.defect == "no json":
                self.send(200, "<html>a page</html>")
                return
        with fake.lock:
            try:
                answer = fake.answer(self.path, body)
            except KeyError:
                self.send(404, {"error": f"no {self.path}"})
                return
        if isinstance(body, dict) and body.get("stream"):
            self.stream(answer)
        else:
            self.send(200, answer)

    def stream(self, answer: dict[str, Any]) -> None:
        """A server that writes one token after the other."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        last = {"tokens": [], "stop": True}
        tokens = answer["tokens"][: 3 if self.fake.defect == "stops early" else None]
        last["tokens_predicted"] = len(tokens)
        for token in tokens[:: 2 if self.fake.defect == "half characters" else 1]:
            time.sleep(0.002)
            self.wfile.write(f"data: {json.dumps({'tokens': [token], 'stop': False})}\n\n".encode())
            if self.fake.defect in ("data", "error"):  # how servers end an answer by an error
                self.wfile.write(f'{self.fake.defect}: {{"error": {{"message": "no slot"}}}}\n\n'.encode())
                return
        self.wfile.write(f"data: {json.dumps(last)}\n\n".encode())

    def send(self, status: int, answer: Any) -> None:
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


def listener(fake: Fake, port: int = 0, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server that is not yet running."""
    return ThreadingHTTPServer((host, port), type("Handler", (Handler,), {"fake": fake}))


@contextmanager
def serving(fake: Fake) -> Iterator[str]:
    """Run it in a thread; yields its address."""
    with listener(fake) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def main(model: str, port: str, defect: str = "") -> None:
    """Serve until the process is ended."""
    if defect == "refuses to start":
        sys.exit("error: cannot load the model")
    served = Bigrams() if model == "bigrams" or defect in BEFORE_MODEL else Gguf(Path(model))
    server = listener(Fake(served, defect), int(port), "0.0.0.0" if defect == "open" else "127.0.0.1")
    print("system_info: n_threads = 1 | CPU : AVX2 = 1 | FMA = 0 |", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
