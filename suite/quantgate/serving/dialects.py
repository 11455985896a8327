"""The dialects by name."""

from __future__ import annotations

from quantgate.serving.dialect import Dialect
from quantgate.serving.llama_server import LlamaServer
from quantgate.serving.openai import OpenAI
from quantgate.serving.sglang import SGLang
from quantgate.serving.vllm import Vllm

DIALECTS: dict[str, type[Dialect]] = {
    "llama-server": LlamaServer,
    "vllm": Vllm,
    "sglang": SGLang,
    "openai": OpenAI,
}
