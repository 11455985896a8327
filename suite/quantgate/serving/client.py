"""HTTP with a model server: JSON goes out, JSON comes in, and what may be tried again is tried again and counted."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from quantgate.errors import MeasurementError, in_one_line

RETRIES = 3
"""How often a request is tried again, at most."""
SHOWN = 200
"""Characters of a server's answer that a message shows."""


@dataclass(frozen=True)
class Event:
    """One event of a streamed answer. seconds: since the request was sent."""

    seconds: float
    value: Any


def without_key(text: str, key: str) -> str:
    """Return a text without the key of a server; an empty key is in none."""
    return text.replace(key, "***") if key else text


class _AgainError(Exception):
    """A request that may be tried again; the text says what happened."""


@dataclass
class Client:
    """Asks the server at `url`. Each request has a connection of its own: no idle one that the server closes can be
    taken for an error. Threads may share it.

    key: goes into the header `Authorization`, and into no message. timeout: seconds in which a server has to send the
    next byte. pause: seconds before the first new try, twice as long before each further one. why_ended: says why the
    server has ended, empty while it runs. model: its name in requests.

    Methods raise MeasurementError that names the request and what the server did.
    """

    url: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    pause: float = 0.25
    why_ended: Callable[[], str] = lambda: ""
    model: str = ""
    retries: int = field(default=0, init=False)
    """Requests that were sent again so far."""
    _counting: Lock = field(default_factory=Lock, init=False, repr=False)

    def get(self, path: str) -> Any:
        """Return the answer to a GET request."""
        return self._repeated("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """Return the answer to a POST request."""
        return self._repeated("POST", path, body)

    def why_not_ready(self, path: str) -> str:
        """Say why a GET request, which is not tried again, does not give status 200; empty: it does."""
        try:
            with self._answer("GET", path, None) as answer:
                answer.read()
                return "" if answer.status == 200 else f"GET {path} gives status {answer.status}"
        except (OSError, http.client.HTTPException) as error:
            return f"nobody answers ({in_one_line(error)})"

    def stream(self, path: str, body: Any) -> Iterator[Event]:
        """Yield the events (`data:` lines) of a streamed answer, up to `[DONE]`. Nothing is tried again: what is timed
        must not wait for that."""
        what = f"POST {path}"
        begin = time.perf_counter()
        try:
            with self._answer("POST", path, body) as answer:
                self._check(what, answer)
                for line in answer:
                    seconds = time.perf_counter() - begin
                    kind, _, text = map(bytes.strip, line.partition(b":"))
                    if kind not in (b"data", b"error"):
                        continue
                    if text == b"[DONE]":
                        return
                    value = self._parsed(what, text)
                    if kind == b"error" or (isinstance(value, dict) and value.get("error")):
                        raise self._error(
                            f"{what}: the server ends its answer with an error{self._shown(text)}"
                        )
                    yield Event(seconds, value)
        except _AgainError as error:
            raise self._error(f"{what}: {error}") from None
        except TimeoutError:
            raise self._error(f"{what}: the server sent nothing for {self.timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise self._error(f"{what}: the connection was lost ({type(error).__name__})") from None

    def _repeated(self, method: str, path: str, body: Any) -> Any:
        """Ask, and ask again after an error of the connection, a 429 or a 5xx; never after an answer of any other kind,
        nor where the server has ended or does not answer in time."""
        what = f"{method} {path}"
        for number in range(RETRIES + 1):
            try:
                with self._answer(method, path, body) as answer:
                    self._check(what, answer)
                    return self._parsed(what, answer.read())
            except TimeoutError:
                raise self._error(f"{what}: no answer within {self.timeout:g} s") from None
            except (OSError, http.client.HTTPException) as error:
                reason = f"the connection was lost ({type(error).__name__})"
            except _AgainError as error:
                reason = str(error)
            if number == RETRIES or self.why_ended():
                break
            time.sleep(self.pause * 2**number)
            with self._counting:
                self.retries += 1
        times = f", {number + 1} times" if number else ""
        raise self._error(f"{what}: {reason}{times}")

    @contextmanager
    def _answer(self, method: str, path: str, body: Any) -> Iterator[http.client.HTTPResponse]:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        connection = (
            http.client.HTTPSConnection(
                host, parts.port, timeout=self.timeout, context=ssl.create_default_context()
            )
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=self.timeout)
        )
        headers = {"Connection": "close", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps({"model": self.model, **body} if self.model else body).encode()
        try:
            connection.request(method, parts.path.rstrip("/") + path, data, headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def _check(self, what: str, answer: http.client.HTTPResponse) -> None:
        """Raise for a status that is no success: `_AgainError` where trying again may help."""
        if answer.status == 200:
            return
        says = f"the server answers {answer.status} {answer.reason}{self._shown(answer.read())}"
        if answer.status in (401, 403):
            says += (
                "; the key in the variable that key_variable names is not this server's"
                if self.key
                else "; key_variable of the scheme has to name the variable with its key"
            )
        if answer.status == 429 or answer.status >= 500:
            raise _AgainError(says)
        raise self._error(f"{what}: {says}")

    def _parsed(self, what: str, text: bytes) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise self._error(f"{what}: the server's answer is not JSON{self._shown(text)}") from None

    def _shown(self, text: bytes) -> str:
        """Return the beginning of an answer, in one line, as the end of a message."""
        line = " ".join(text.decode(errors="replace").split())
        return f": {line[:SHOWN]}{'...' if len(line) > SHOWN else ''}" if line else ""

    def _error(self, text: str) -> MeasurementError:
        """Return the error, with why the server has ended; without the key, which a server may repeat."""
        whole = f"{text}; {ended}" if (ended := self.why_ended()) else text
        return MeasurementError(without_key(whole, self.key))
