"""A configuration that transformers cannot read is one sentence with the cause."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.errors import AssetError
from quantgate.supply.model_config import load_config


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("[1]", "is not a configuration: it is not a JSON object; fetch it again"),
        ("{", "is not a configuration: Expecting property name"),
        (None, r"is not a configuration: .*No such file"),
        ('{"model_type": "lama"}', r"transformers [\d.]+ does not know its model type 'lama'"),
        (
            '{"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine"}}',
            "its model type 'mine' needs code that comes with it",
        ),
    ],
)
def test_a_configuration_that_cannot_be_read(tmp_path: Path, content: str | None, cause: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(AssetError, match=rf"config\.json: {cause}") as caught:
        load_config(tmp_path)
    assert "\n" not in str(caught.value)
