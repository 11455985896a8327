"""Items with choices, asked through a chat template: the tokens that lm-evaluation-harness's model class scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from quantgate.errors import InputError
from quantgate.supply.encoder import Encoder
from quantgate.supply.tasks import load_task, make_task

from selftest.measure.test_lm_eval import TASKS
from selftest.supply.test_questions import CHAT

if TYPE_CHECKING:
    from pathlib import Path

    from selftest.tiny import TinyModel

REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT


def spec(name: str, folder: Path, **further: Any) -> dict[str, Any]:
    import datasets

    split, document_of = TASKS[name]
    datasets.disable_progress_bars()
    place = folder / "documents"
    if not place.exists():
        datasets.Dataset.from_list([document_of(n) for n in range(6)]).save_to_disk(place)
    posed = {"items": 4, "fewshot": None, "chat": True, "system": None, "turns": True}
    return {"folder": str(place), "split": split, **posed, **further}


def encoder_of(tiny: TinyModel, template: str | None, add_bos: bool | None = None) -> Encoder:
    encoder = Encoder(tiny.safetensors, add_bos)
    encoder.tokenizer.chat_template = template
    return encoder


@pytest.mark.parametrize(
    ("name", "asked", "bos"),
    [
        ("arc_easy", {}, True),
        ("arc_easy", {"fewshot": 2, "turns": False}, False),
        ("winogrande", {"fewshot": 2}, True),
        ("lambada_openai", {"system": "Be brief."}, False),
    ],
)
def test_tokens_are_those_of_the_harness(
    name: str, asked: dict[str, Any], bos: bool, tiny: TinyModel, tmp_path: Path
) -> None:
    from lm_eval.models.huggingface import HFLM

    posed = spec(name, tmp_path, **asked)
    encoder = encoder_of(tiny, ("{{ bos_token }}" if bos else "") + CHAT, bos)
    ours = make_task(name, posed, encoder)
    theirs, model = load_task(name, posed), HFLM.__new__(HFLM)
    model.tokenizer, model.backend, model.add_bos_token = encoder.tokenizer, "causal", None
    model.custom_prefix_token_id, model.chat_template_args = None, {}
    theirs.build_all_requests(
        limit=4, rank=0, world_size=1, system_instruction=posed["system"], apply_chat_template=True,
        fewshot_as_multiturn=posed["turns"], chat_template=model.apply_chat_template,
    )  # fmt: skip
    pairs = [model._encode_pair(*request.args) for request in theirs.instances]
    assert [(c.context, c.continuation) for item in ours.items for c in item.choices] == pairs
    text = encoder.tokenizer.decode(pairs[0][0])
    assert text.count("user:") == (1 + posed["fewshot"] if posed["turns"] and posed["fewshot"] else 1)
    assert ours.template != make_task(name, {**posed, "chat": False}, encoder).template == ""


def test_a_template_that_is_missing_or_refuses_is_named(tiny: TinyModel, tmp_path: Path) -> None:
    posed = spec("arc_easy", tmp_path, system="Be brief.")
    with pytest.raises(InputError, match="task 'arc_easy': the model has no chat template: set chat = false"):
        make_task("arc_easy", posed, encoder_of(tiny, None))
    with pytest.raises(InputError, match=r"task 'arc_easy': .*no system.*leave `system` out"):
        make_task("arc_easy", posed, encoder_of(tiny, REFUSES))
    twice = encoder_of(tiny, "{{ bos_token }}{{ bos_token }}" + CHAT, add_bos=True)
    with pytest.raises(InputError, match=r"task 'arc_easy': .*two beginning-of-sequence tokens"):
        make_task("arc_easy", {**posed, "system": None}, twice)
