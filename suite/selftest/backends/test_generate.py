"""Continuing a text: token for token what transformers, lm-evaluation-harness and llama-cpp-python write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.backends.base import Generates, Stops
from quantgate.backends.runtime.greedy import continue_greedily
from quantgate.errors import MeasurementError

from selftest.tiny import TEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selftest.tiny import TinyModel

LIMIT = 24
WORDS = TEXT.split()
PROMPTS = [" ".join(WORDS[5 * n : 5 * n + 3 + n % 7]) for n in range(16)]
STOPS = [".", "\n\n"]
CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny: TinyModel) -> Any:
    import transformers

    made = transformers.AutoTokenizer.from_pretrained(tiny.safetensors)
    made.chat_template = CHAT
    return made


@pytest.fixture(scope="module")
def backend(tiny: TinyModel) -> Any:
    from quantgate.backends.runtime.transformers import Transformers

    return Transformers(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1)


def stops(tokenizer: Any, *strings: str) -> Stops:
    return Stops(frozenset([tokenizer.eos_token_id]), strings, lambda ids: str(tokenizer.decode(list(ids))))


def rendered(tokenizer: Any, prompt: str) -> str:
    message = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))


def by_library(model: Any, ids: Sequence[int], tokenizer: Any) -> list[int]:
    import torch
    import transformers

    end = tokenizer.eos_token_id
    clean = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=LIMIT, eos_token_id=end, pad_token_id=end
    )
    prompt = torch.tensor([list(ids)])
    written = model.generate(prompt, generation_config=clean, attention_mask=torch.ones_like(prompt))
    return list(written[0, len(ids) :].tolist())


@pytest.mark.parametrize("chat", [False, True])
def test_each_token_is_what_the_library_generates(chat: bool, tokenizer: Any, backend: Any) -> None:
    for prompt in PROMPTS:
        ids = tokenizer(rendered(tokenizer, prompt) if chat else prompt)["input_ids"]
        written = backend.generate(ids, LIMIT, stops(tokenizer))
        assert written == by_library(backend._model, ids, tokenizer), prompt


@pytest.mark.parametrize("chat", [False, True])
def test_each_text_is_that_of_the_harness(chat: bool, tokenizer: Any, backend: Any) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=backend._model, tokenizer=tokenizer, batch_size=1)
    contexts = [rendered(tokenizer, p) if chat else p for p in PROMPTS]
    keywords = {"until": [*STOPS], "max_gen_toks": LIMIT, "do_sample": False}
    requests = [Instance("generate_until", {}, (c, dict(keywords)), n) for n, c in enumerate(contexts)]
    theirs = harness.generate_until(requests, disable_tqdm=True)
    assert len(set(theirs)) > 8
    for context, their in zip(contexts, theirs, strict=True):
        ids = tokenizer(context)["input_ids"]
        text = tokenizer.decode(
            backend.generate(ids, LIMIT, stops(tokenizer, *STOPS)), skip_special_tokens=True
        )
        ends = [text.index(stop) for stop in STOPS if stop in text]
        assert text[: min(ends, default=None)] == their, context


def test_the_checkpoints_sampling_defaults_are_not_applied(tokenizer: Any, backend: Any) -> None:
    ids = tokenizer(PROMPTS[0])["input_ids"]
    written = backend.generate(ids, LIMIT, stops(tokenizer))
    defaults = backend._model.generation_config
    before = defaults.repetition_penalty, defaults.suppress_tokens
    try:
        defaults.repetition_penalty, defaults.suppress_tokens = 5.0, [written[0]]
        assert backend.generate(ids, LIMIT, stops(tokenizer)) == written
    finally:
        defaults.repetition_penalty, defaults.suppress_tokens = before


def test_what_is_timed_of_the_librarys_loop_is_greedy_whatever_the_checkpoint_asks_for(
    tiny: TinyModel, tmp_path: Path
) -> None:
    from quantgate.backends.runtime.transformers import Transformers

    folder = shutil.copytree(tiny.safetensors, tmp_path / "beams")
    settings = {
        "num_beams": 3,
        "repetition_penalty": 2.0,
        "cache_implementation": "static",
        "eos_token_id": 0,
    }
    (folder / "generation_config.json").write_text(json.dumps(settings))
    model = Transformers(folder, {"device": "cpu", "dtype": "float32"}, 1)
    shapes = []
    hook = model._model.model.embed_tokens.register_forward_hook(lambda m, i, o: shapes.append(o.shape[:2]))
    model.loop([1, 2, 3], 4)
    hook.remove()
    assert shapes == [(1, 3), (1, 1), (1, 1), (1, 1)]


def test_positions_that_do_not_begin_with_0_are_left_to_the_model(tmp_path: Path) -> None:
    """RoBERTa's begin after the number of its token for padding."""
    import torch
    import transformers
    from quantgate.backends.runtime.transformers import Transformers

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.RobertaConfig(
        vocab_size=64, max_position_embeddings=64, is_decoder=True, initializer_range=0.5, **size
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    backend, ids = Transformers(tmp_path, {"device": "cpu", "dtype": "float32"}, 1), [5, 6, 7, 8, 9]
    backend.reserve(len(ids), 1)
    backend.prefill(ids[:3])
    backend.decode(ids[3:])
    whole = backend._model(torch.tensor([ids])).logits[0, -1].numpy()
    assert np.abs(backend.next_logits() - whole).max() < 1e-4


def test_llamacpp_writes_what_its_binding_generates(tiny: TinyModel, tokenizer: Any) -> None:
    import llama_cpp
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    end, ours = tokenizer.eos_token_id, LlamaCpp(tiny.gguf, {"device": "cpu"}, 1)
    theirs = llama_cpp.Llama(str(tiny.gguf), n_ctx=512, n_threads=1, verbose=False)
    for prompt in PROMPTS:
        ids = tokenizer(prompt)["input_ids"]
        expected: list[int] = []
        for token in theirs.generate(ids, temp=0.0, repeat_penalty=1.0, reset=True):
            expected.append(token)
            if token == end or len(expected) == LIMIT:
                break
        assert ours.generate(ids, LIMIT, stops(tokenizer)) == expected, prompt


def test_a_text_ends_with_the_token_or_the_string_that_stops_it(tokenizer: Any, backend: Any) -> None:
    ids = tokenizer(PROMPTS[0])["input_ids"]
    free = backend.generate(ids, LIMIT, Stops())
    assert len(free) == LIMIT
    third = free[2]
    assert free.index(third) == 2
    assert backend.generate(ids, LIMIT, Stops(frozenset([third]))) == free[:3]
    text = tokenizer.decode(free)
    string = text[4:7]
    cut = backend.generate(ids, LIMIT, stops(tokenizer, string))
    assert string in tokenizer.decode(cut)
    assert string not in tokenizer.decode(cut[:-1])
    assert backend.generate(ids, 1, stops(tokenizer)) == free[:1]


class Fixed:
    """Logits as given."""

    def __init__(self, logits: Sequence[float]) -> None:
        self.logits = np.array(logits, np.float32)
        self.calls: list[Any] = []

    def reserve(self, tokens: int, sequences: int) -> None:
        self.calls.append((tokens, sequences))

    def prefill(self, ids: Sequence[int]) -> None:
        self.calls.append(list(ids))

    def decode(self, ids: Sequence[int]) -> None:
        self.calls.append(list(ids))

    def next_logits(self) -> Any:
        return self.logits


def test_of_equally_likely_tokens_the_first_is_taken_and_the_last_is_not_fed() -> None:
    model = Fixed([0.0, 2.0, 2.0])
    assert continue_greedily(model, [0, 0], 3, Stops()) == [1, 1, 1]
    assert model.calls == [(5, 1), [0, 0], [1], [1]]


def test_a_logit_that_is_no_number_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="a logit after 2 tokens is not a number"):
        continue_greedily(Fixed([0.0, float("nan")]), [0, 0], 3, Stops())


def test_the_backends_that_say_so_generate(tiny: TinyModel, backend: Any) -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp
    from quantgate.backends.runtime.served import Served
    from quantgate.backends.spec import backends

    able = {name for name, spec in backends().items() if "generates" in spec.capabilities}
    assert able == {"transformers", "bitsandbytes", "kbit", "llmcompressor", "llamacpp", "served"}
    assert isinstance(backend, Generates)
    assert isinstance(LlamaCpp(Path(tiny.gguf), {"device": "cpu"}, 1), Generates)
    assert issubclass(Served, Generates)
