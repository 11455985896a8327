"""Read what a starter matrix needs to know of a checkpoint from its configuration and headers: no weights, no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantgate.checkpoint.checks import (
    check_no_adapter,
    config_of,
    positions_of,
    puts_bos,
    quantization_of,
    read_json,
    tensors_of,
)
from quantgate.checkpoint.contents import gguf_parts
from quantgate.checkpoint.gguf_header import gguf_puts_bos, read_header
from quantgate.checkpoint.kinds import check_folder
from quantgate.checkpoint.nominal import FULL, commonest_type, file_type
from quantgate.errors import AssetError


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A checkpoint in words that a matrix has.

    source: keys of the source (`path`, or `hub` with `revision`). gguf: it is a GGUF file. bos: its tokenizer puts a
    beginning-of-sequence token before each text; None: it does not say. positions: tokens of the longest text that it
    was made for. template: it has a chat template. parameters: logical count; 0: it does not say. ftype: type of a GGUF
    file. width: what divides the length of its linear layers' rows; 0: it does not say.
    quantization: `quantization_config` of a folder.
    """

    name: str
    source: Mapping[str, str]
    gguf: bool = False
    license: str = ""
    bos: bool | None = None
    positions: int | None = None
    template: bool = False
    parameters: int = 0
    ftype: str = ""
    width: int = 0
    quantization: Mapping[str, Any] = field(default_factory=dict)

    @property
    def quantized(self) -> bool:
        return bool(self.quantization) or (self.gguf and self.ftype not in FULL)


def facts_of(path: Path, name: str, source: Mapping[str, str]) -> Facts:
    """Read a folder of safetensors or a GGUF file. Raises AssetError and InputError that say what is wrong with it."""
    if not path.exists():
        raise AssetError(f"{path}: no such file or folder")
    if path.is_dir():
        return _of_folder(path, name, source)
    if path.suffix == ".gguf":
        return _of_gguf(path, name, source)
    raise AssetError(f"{path}: is neither a folder with safetensors nor a GGUF file (NAME.gguf)")


def _of_folder(folder: Path, name: str, source: Mapping[str, str]) -> Facts:
    shapes = [tensor.shape for tensor in tensors_of(folder).values()]
    check_no_adapter(folder)
    read_json(folder / "config.json")
    quantization = quantization_of(folder)
    return Facts(
        name=name,
        source=source,
        # Packed weights are fewer numbers than the model has.
        parameters=0 if quantization else sum(map(math.prod, shapes)),
        quantization=quantization,
        **configured(folder),
    )


def configured(folder: Path) -> dict[str, Any]:
    """Return what the JSON files of a folder say: licence, BOS, positions, template. Raises AssetError for what
    continues no text."""
    check_folder(folder)
    config = config_of(folder)
    rows = [config[key] for key in ("hidden_size", "intermediate_size") if isinstance(config.get(key), int)]
    return {
        "width": math.gcd(*rows),
        "license": _license_of_card(folder / "README.md"),
        "bos": puts_bos(folder),
        "positions": positions_of(config),
        "template": "chat_template" in read_json(folder / "tokenizer_config.json")
        or (folder / "chat_template.jinja").is_file(),
    }


def _license_of_card(card: Path) -> str:
    """Return the licence in a model card's front matter; empty: it names none."""
    try:
        text = card.read_text(errors="replace")
    except OSError:
        return ""
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    line = re.search(r"^license:\s*[\"']?([^\s\"'#]+)", front[1], re.MULTILINE) if front else None
    return line[1] if line else ""


def _of_gguf(file: Path, name: str, source: Mapping[str, str]) -> Facts:
    parts = gguf_parts(file)
    values = read_header(file).values
    positions = values.get(f"{values.get('general.architecture')}.context_length")
    return Facts(
        name=name,
        source=source,
        gguf=True,
        license=str(values.get("general.license", "")),
        bos=gguf_puts_bos(values),
        positions=positions if isinstance(positions, int) and positions > 0 else None,
        template=bool(values.get("tokenizer.chat_template")),
        parameters=sum(math.prod(shape) for p in parts for shape, _, _ in read_header(p).tensors.values()),
        ftype=file_type(file) or commonest_type(file),
    )
