"""The dialects by name."""

from __future__ import annotations

from quantgate.serving.dialect import Dialect
from quantgate.serving.llama_server import LlamaServer

DIALECTS: dict[str, type[Dialect]] = {"llama-server": LlamaServer}
