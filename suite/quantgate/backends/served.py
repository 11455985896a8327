"""Models behind a server (`quantgate.serving`)."""

from __future__ import annotations

import os
import re
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from quantgate.backends import llamacpp
from quantgate.backends.spec import BackendSpec, Capability, loader
from quantgate.files import sha256_of
from quantgate.machine.environment import variables
from quantgate.serving.programs import program, why_missing

RUNTIME = "quantgate.backends.runtime.served"
PLACEHOLDERS = ("checkpoint", "port", "threads")
LACKS: dict[str, frozenset[Capability]] = {
    "sglang": frozenset({"tokenizes"}),
    "openai": frozenset({"tops", "generates", "tokenizes"}),
}
"""What a dialect cannot tell."""
BY_TOKEN = frozenset({"llama-server"})
"""The dialects whose server computes a text token by token."""
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_KEY = re.compile(r"--?api[-_]key\b|\bsk-\w{8}")


class Options(llamacpp.OfGguf):
    """command: starts the server, word by word; `{checkpoint}`, `{port}` and `{threads}` are filled in. It has to
    listen on 127.0.0.1. url: of a server that runs already, in place of a command; its memory and its weights are not
    measured. dialect: how it is asked. model: its name in requests; without one, the first that the server names, where
    the dialect has names.

    key_variable: the environment variable that holds the key of the server. start_limit, answer_limit: seconds until it
    has to be ready, and until it has to send the next byte of an answer. top: how many of the likeliest tokens it is
    asked for at each place. ftype, imatrix: of a GGUF that is quantized for it.
    """

    command: list[str] | None = Field(default=None, min_length=1)
    url: str | None = None
    dialect: Literal["llama-server", "vllm", "sglang", "openai"]
    model: str = ""
    key_variable: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    start_limit: float = Field(default=300.0, gt=0)
    answer_limit: float = Field(default=120.0, gt=0)
    top: int = Field(default=20, ge=1, le=1000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("give command, which starts the server, or url, where one runs")
        if self.url is not None:
            self._check_url(self.url)
        if self.command is not None:
            self._check_command(self.command)
        if self.key_variable and variables({self.key_variable: ""}):
            raise ValueError(
                f"key_variable {self.key_variable} is recorded, as libraries compute by such variables: give it a name "
                "that ends in _KEY or _TOKEN"
            )
        if self.dialect == "llama-server" and self.command:
            self.check_ftype()
        return self

    def _check_url(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url {url!r} is no address: http://127.0.0.1:8080")
        if parts.username or parts.password or parts.query:
            raise ValueError("url holds a key: name the variable that holds it in key_variable")

    def _check_command(self, command: list[str]) -> None:
        names = [name for word in command for name in _PLACEHOLDER.findall(word)]
        if "port" not in names:
            raise ValueError("command has no {port}: the server is started on a free one")
        if unknown := [name for name in names if name not in PLACEHOLDERS]:
            raise ValueError(
                f"command has {{{unknown[0]}}}, and {', '.join(f'{{{n}}}' for n in PLACEHOLDERS)} are filled in"
            )
        if (self.ftype or self.as_is) and "checkpoint" not in names:
            raise ValueError(
                "command has no {checkpoint}: the server would load another file than the cell's"
            )
        if any(map(_KEY.search, command)):
            raise ValueError(
                "command holds a key: give it to the server by its environment (LLAMA_API_KEY, VLLM_API_KEY), and name "
                "the variable in key_variable"
            )

    def why_not(self) -> str:
        if self.command and (missing := why_missing(self.command[0])):
            return missing
        if self.key_variable and not os.environ.get(self.key_variable):
            return f"the environment variable {self.key_variable} is not set"
        return ""

    def lacks(self) -> frozenset[Capability]:
        return LACKS.get(self.dialect, frozenset())

    def by_token(self) -> bool:
        return self.dialect in BY_TOKEN

    def further_libraries(self) -> dict[str, str]:
        path = program(self.command[0]) if self.command else None
        if path is None:
            return {}
        return {f"server {path.name}": sha256_of(path)[:12]}


BACKEND = BackendSpec(
    options=Options,
    capabilities=frozenset({"scores", "tops", "generates", "tokenizes", "serves"}),
    load=loader(RUNTIME),
    imports=(RUNTIME,),
    unused=llamacpp.BACKEND.unused,
)
