"""Put the cases and the default TOML files into the wheel; an editable installation has them in place."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# About this repository alone: findings of papers, whose figures are in its baselines, and models trained here.
LEFT_OUT = ("suite/test_papers.py", "fixtures/models")


class Hook(BuildHookInterface[Any]):
    """hatchling's `force-include` would put copies into an editable installation too, which would hide the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files; version: `standard`, or `editable`."""
        root = Path(self.root)
        folders = {"suite/test_*.py": "quantgate/cases", "fixtures/*": "quantgate/fixtures"}
        for pattern, folder in folders.items() if version == "standard" else ():
            for path in sorted(root.glob(pattern)):
                if path.relative_to(root).as_posix() not in LEFT_OUT:
                    build_data["force_include"][str(path)] = f"{folder}/{path.name}"
