"""Read a checkpoint's configuration by transformers, with a one-sentence error where it cannot."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from quantgate.errors import AssetError


def import_without_torch() -> None:
    """Import transformers as where there is no torch. Where there is, it imports that for its configurations, which
    takes two seconds; it reads tokenizers of folders without."""
    if "torch" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # that it finds none
    importlib.import_module("transformers")
    del sys.modules["torch"]


def load_config(folder: Path) -> Any:
    """transformers' configuration object. Raises AssetError: a model type that it does not know, code, damage."""
    import transformers

    file = folder / "config.json"
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        try:
            if not isinstance(table := json.loads(file.read_bytes()), dict):
                raise ValueError("it is not a JSON object")  # noqa: TRY004
            kind, code = table.get("model_type"), "auto_map" in table
        except (OSError, ValueError) as damage:
            raise AssetError(f"{file}: is not a configuration: {damage}; fetch it again") from None
        if code:
            cause = f"its model type {kind!r} needs code that comes with it (auto_map), which is not run"
        elif kind not in transformers.CONFIG_MAPPING:
            cause = f"transformers {transformers.__version__} does not know its model type {kind!r}"
        else:
            cause = " ".join(str(error).split())
        raise AssetError(
            f"{file}: {cause}; use a checkpoint that this transformers reads by itself"
        ) from error
