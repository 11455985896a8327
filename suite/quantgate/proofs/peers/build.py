"""llama.cpp's tools that the suite is held against, and what they are compiled from (20 s)."""

from __future__ import annotations

from pathlib import Path

from quantgate.processes.progress import OnProgress
from quantgate.supply.compiled import Program, compiled

ASSET = "llama.cpp"
TOOLS = [
    Program(
        name="llama-perplexity",
        sources=("tools/perplexity/perplexity.cpp", str(Path(__file__).with_name("llama_perplexity.cpp"))),
    ),
    Program(name="llama-bench", sources=("tools/llama-bench/llama-bench.cpp", "tools/llama-bench/main.cpp")),
]


def tools(logs: Path, say: OnProgress) -> Path:
    """Return the folder of the tools; build them unless they are cached. Raises QuantgateError."""
    return compiled(ASSET, TOOLS, logs, say)
