"""Questions answered in writing: prompts and ends are those of lm-evaluation-harness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from quantgate.errors import AssetError, InputError
from quantgate.supply import questions as made
from quantgate.supply.encoder import Encoder
from quantgate.supply.questions import make_questions

from selftest.supply.copies import edit
from selftest.supply.harness import harness, lines

if TYPE_CHECKING:
    from pathlib import Path

    from selftest.tiny import TinyModel

CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
DOCUMENTS = [
    {"question": f"Ann has {n} eggs and buys {n}. How many?", "answer": f"{n} and {n}.\n#### {2 * n}"}
    for n in range(2, 10)
]
ITEMS = 4
PLAIN = {"chat": False, "system": None, "fewshot": None, "turns": True}


def spec(folder: Path, **further: Any) -> dict[str, Any]:
    rows = [{"doc": document} for document in DOCUMENTS]
    place = {"jsonl": lines(folder, rows), "documents": "requests", "split": "test"}
    return {**place, "items": ITEMS, **PLAIN, **further}


def encoder_of(folder: Path, template: str | None = CHAT) -> Encoder:
    encoder = Encoder(folder, None)
    encoder.tokenizer.chat_template = template
    return encoder


@pytest.mark.parametrize("fewshot", [None, 0, 2])
@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("turns", [False, True])
def test_prompts_are_those_of_the_harness(
    fewshot: int | None, chat: bool, turns: bool, tiny: TinyModel, tmp_path: Path
) -> None:
    encoder = encoder_of(tiny.safetensors)
    ours = make_questions("gsm8k", spec(tmp_path, chat=chat, turns=turns, fewshot=fewshot), encoder)
    theirs = harness("gsm8k", DOCUMENTS, "gsm8k/gsm8k.yaml")
    if fewshot is not None:
        theirs.set_config("num_fewshot", fewshot)
    theirs.fewshot_cfg.split = "test"
    if fewshot:
        theirs.sampler = first_n(DOCUMENTS)
    theirs.set_fewshot_seed(1234)

    def rendered(messages: Any, add_generation_prompt: bool) -> str:
        text = encoder.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return str(text)

    theirs.build_all_requests(
        limit=ITEMS, rank=0, world_size=1, apply_chat_template=chat, fewshot_as_multiturn=turns,
        chat_template=rendered if chat else None,
    )  # fmt: skip
    expected = [request.args[0] for request in theirs.instances]
    assert [encoder.tokenizer.decode(ids) for ids in ours.items] == expected
    assert ours.fewshot == (5 if fewshot is None else fewshot)
    assert all(text.count("Question:") == ours.fewshot + 1 for text in expected)
    assert ("assistant:" in expected[0]) is chat
    assert (ours.until, ours.limit) == (["Question:", "</s>", "<|im_end|>"], 256)
    assert ours.ends == [0]
    assert ours.documents == DOCUMENTS[:ITEMS]


def first_n(documents: list[dict[str, Any]]) -> Any:
    from lm_eval.api.samplers import get_sampler

    return get_sampler("first_n")(documents, rnd=None)


def test_a_beginning_of_sequence_token_stands_once(folder: Path, tmp_path: Path) -> None:
    edit(folder / "tokenizer_config.json", add_bos_token=True)
    encoder = Encoder(folder, True)
    encoder.tokenizer.chat_template = "{{ bos_token }}" + CHAT
    for chat in (False, True):
        ours = make_questions("gsm8k", spec(tmp_path, chat=chat, fewshot=0), encoder)
        assert all((ids[0], ids.count(0)) == (0, 1) for ids in ours.items)


def test_the_system_message_is_in_the_prompt(tiny: TinyModel, tmp_path: Path) -> None:
    encoder = encoder_of(tiny.safetensors)
    ours = make_questions("gsm8k", spec(tmp_path, chat=True, fewshot=0, system="Be brief."), encoder)
    assert encoder.tokenizer.decode(ours.items[0]).startswith("system: Be brief.\nuser: Question: Ann has 2")


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("arc_easy", "has output type 'multiple_choice': .* name it in `accuracy`"),
        ("gsm8k_cot_self_consistency", r"takes 64 answers .* `repeats: 1`"),
        ("squadv2", r"is a class of lm-evaluation-harness \(squadv2.yaml\), .* name it as `file` in"),
        ("humaneval", "asks for programs, .* name it in `code`"),
        ("mbpp", "asks for programs, .* name it in `code`"),
    ],
)
def test_a_task_that_cannot_be_asked_says_why(
    task: str, message: str, tiny: TinyModel, tmp_path: Path
) -> None:
    documents: list[dict[str, Any]] = [*DOCUMENTS]
    if task == "arc_easy":
        documents = [
            {"question": "Q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}
        ]
    place = {"jsonl": lines(tmp_path, [{"doc": one} for one in documents]), "documents": "requests"}
    with pytest.raises(InputError, match=f"task '{task}' {message}"):
        make_questions(task, {**place, "split": "test", "items": 1, **PLAIN}, Encoder(tiny.safetensors, None))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"until": ["\n", ""]}, "`until` of its generation_kwargs has an empty text"),
        ({"until": "\n", "do_sample": True, "temperature": 0.7}, r"at random \(do_sample\)"),
        ({"until": ["\n"], "temperature": 0.7}, r"at random \(do_sample\)"),
        (
            {"until": ["\n"], "max_gen_toks": 0},
            "max_gen_toks of its generation_kwargs is 0: must be 1 or more",
        ),
    ],
)
def test_settings_of_a_task_that_do_not_go_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made._ending(settings)


def test_the_tokens_of_an_answer_are_the_tasks_or_the_harnesss() -> None:
    assert made._ending({"until": "\n", "max_gen_toks": 9}) == (["\n"], 9)
    assert made._ending({"until": ["a", "b"]}) == (["a", "b"], 256)


def test_a_model_without_a_template_or_one_that_refuses_says_so(tiny: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task 'gsm8k': the model has no chat template: set chat = false"):
        make_questions("gsm8k", spec(tmp_path, chat=True), encoder_of(tiny.safetensors, None))
    with pytest.raises(InputError, match="'gsm8k': the prompt of item 1 is empty: ask with chat = false"):
        make_questions("gsm8k", spec(tmp_path, chat=True), encoder_of(tiny.safetensors, "{# nothing #}"))
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    with pytest.raises(InputError, match=r"task 'gsm8k': .*no system.*leave `system` out"):
        make_questions(
            "gsm8k", spec(tmp_path, chat=True, system="Be brief."), encoder_of(tiny.safetensors, refuses)
        )


def test_a_task_with_too_few_documents_and_one_without_data(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(tiny.safetensors, None)
    with pytest.raises(InputError, match="task 'gsm8k' has 8 items, the tier needs 9: lower `items`"):
        make_questions("gsm8k", spec(tmp_path, items=9), encoder)
    for module in ("huggingface_hub.constants", "datasets.config"):  # they read the variable once
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)
    with pytest.raises(
        AssetError, match=r"task 'triviaqa': .*where there is no hub, say in .tasks.triviaqa. where its rows"
    ):
        make_questions("triviaqa", {"items": 1, **PLAIN}, encoder)
