"""Read what a starter matrix needs to know of a hub repository: its commit, its JSON files and the sizes it lists."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from quantgate.checkpoint.checks import quantization_of
from quantgate.errors import AssetError, in_one_line
from quantgate.init.facts import Facts, configured

SMALL = ["config.json", "tokenizer*.json", "special_tokens_map.json", "chat_template.jinja", "README.md"]
"""Files that say what a model is; its weights are fetched when they are measured."""


def facts_of_hub(hub: str, name: str) -> Facts:
    """Ask the hub. Raises AssetError where it cannot be reached, or has nothing to load there."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        info = HfApi().model_info(hub, timeout=20)
        revision = str(info.sha)
        files = [str(sibling.rfilename) for sibling in info.siblings or ()]
        _check(hub, files)
        with TemporaryDirectory(prefix="quantgate-") as folder:
            snapshot_download(hub, revision=revision, allow_patterns=SMALL, local_dir=folder)
            return _facts(Path(folder), name, hub, revision, info)
    except AssetError:
        raise
    except Exception as error:
        raise AssetError(
            f"{hub}: no such file or folder here, and the hub did not give it "
            f"({_cause(error)}): check the name, the network and HF_TOKEN, or name a local path"
        ) from None


def _check(hub: str, files: list[str]) -> None:
    """Raise AssetError where a repository has no safetensors."""
    if any(file.endswith(".safetensors") for file in files):
        return
    if ggufs := [file for file in files if file.endswith(".gguf")]:
        raise AssetError(
            f"{hub}: holds GGUF files ({', '.join(ggufs[:3])}{' ...' if len(ggufs) > 3 else ''}) and no safetensors: "
            "fetch the one that you ship, and name that file"
        )
    raise AssetError(
        f"{hub}: holds no safetensors, the one format of weights that is loaded from a repository"
    )


def _facts(folder: Path, name: str, hub: str, revision: str, info: Any) -> Facts:
    quantization = quantization_of(folder)
    total = getattr(getattr(info, "safetensors", None), "total", None)
    return Facts(
        name=name,
        source={"hub": hub, "revision": revision},
        parameters=0 if quantization else int(total or 0),
        quantization=quantization,
        **configured(folder),
    )


def _cause(error: Exception) -> str:
    text = in_one_line(error)
    return re.split(r"(?<=[a-z]{2})\. |\(Caused by", text)[0][:200].strip().rstrip(".")
