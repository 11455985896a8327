"""The tokens of a workload."""

from __future__ import annotations

from pathlib import Path

from quantgate.items import Choice, Item, Program, Programs, Prompts, Task, Text, tokens_in


def test_tokens_of_all_kinds_of_records(tmp_path: Path) -> None:
    item = Item(choices=[Choice(context=[1, 2], continuation=[3], characters=1)], gold=[0])
    hashes = {"data_hash": "d", "token_hash": "t"}
    records = {
        "text-a": Text(ids=[4, 5], starts=[0, 1, 2], bos=None, hash="h"),
        "task-b": Task(
            name="b", version="1", output_type="x", metrics=[], items=[item], prompt_hash="p", **hashes
        ),
        "prompts-c": Prompts(name="c", chat=False, template="", ends=[9], items=[[6], [7]], token_hash="t"),
        "programs-d": Programs(
            name="d",
            version="1",
            stops=[],
            ends=[9],
            items=[Program(prompt=[8], begin="", test="")],
            **hashes,
        ),
    }
    for name, record in records.items():
        (tmp_path / f"{name}.json").write_text(record.model_dump_json())
    (tmp_path / "meta.json").write_text('{"ids": [99]}')
    assert sorted(tokens_in(tmp_path)) == [1, 2, 3, 4, 5, 6, 7, 8]
