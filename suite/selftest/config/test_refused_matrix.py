"""What a matrix file may not say: refused with file, key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.errors import InputError
from quantgate.measure.groups import metric_groups
from quantgate.run.inputs import load_matrix

from selftest.config.user_file import USER_FILE, load_text, refusal


def test_an_unknown_tier_names_those_of_the_file(tmp_path: Path) -> None:
    matrix = load_text(tmp_path, f'{USER_FILE}[tiers.nightly]\nextends = "smoke"\n')
    with pytest.raises(InputError) as caught:
        matrix.tier("nigthly")
    assert str(caught.value) == (
        f"{tmp_path / 'matrix.toml'}: no tier 'nigthly'. Did you mean 'nightly'? Allowed: nightly, smoke"
    )


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "mien/llamacpp/F16",
            "names a model that this file does not have: 'mien'. Did you mean 'mine'? Allowed: mine",
        ),
        (
            "mine/lama.cpp/F16",
            "names an unknown backend: 'lama.cpp'. Did you mean 'llamacpp'? "
            "Allowed: bitsandbytes, kbit, llamacpp, llmcompressor, served, transformers",
        ),
        (
            "mine/bitsandbytes/nf3",
            "names a scheme that bitsandbytes does not have: 'nf3'. Did you mean 'nf4'? "
            "Allowed: cuda-fp4, cuda-int8, cuda-nf4, fp4, int8, nf4, nf4-dq",
        ),
        (
            "mine/bitsandbytes/Q4_K_M",
            "names a scheme that bitsandbytes does not have: 'Q4_K_M'. Allowed: cuda-fp4, cuda-int8, cuda-nf4, "
            "fp4, int8, nf4, nf4-dq",
        ),
        ("mine/llamacpp", "is not of the form model/backend/scheme."),
        ("other/*/*", "names a model that this file does not have: 'other'. Allowed: mine"),
    ],
)
def test_an_unknown_part_of_a_cell_is_named_with_what_is_allowed(
    tmp_path: Path, pattern: str, message: str
) -> None:
    text = USER_FILE.replace("mine/llamacpp/Q4_K_M", pattern)
    assert refusal(tmp_path, text) == f"tiers.smoke.cells: {pattern!r} {message}"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "[tiers.smoke.perplexty]\ntext = 'x'",
            "tiers.smoke.perplexty: unknown key. Did you mean 'perplexity'? Allowed: {allowed}",
        ),
        (
            "[tiers.smoke.accuracy]\ntasks = ['piqa']\nitem = 4",
            "tiers.smoke.accuracy.item: unknown key. Did you mean 'items'? "
            "Allowed: budget, chat, fewshot, items, items_of, system, tasks, turns",
        ),
        (
            "[tiers.smoke.accuracy]\ntasks = []",
            "tiers.smoke.accuracy.tasks: must not be empty",
        ),
        (
            "[tiers.smoke.answers]\ntasks = ['gsm8k', 'ifeval', 'gsm8k']",
            "tiers.smoke.answers.tasks: names 'gsm8k' twice: remove one",
        ),
        ("[tiers.smoke.accuracy]\nitems = 4", "tiers.smoke.accuracy.tasks: is missing; add it"),
        (
            "[tiers.smoke.accuracy]\ntasks = ['piqa', 'sciq']\nitems_of = { piqua = 500 }",
            "tiers.smoke.accuracy.items_of: 'piqua' is none of its tasks. Did you mean 'piqa'? Allowed: piqa, sciq",
        ),
        (
            "[tiers.smoke.generation]\nwritten = 1",
            "tiers.smoke.generation.written: must be 0, or 2 or more: one text alone has no standard error",
        ),
        (
            "[tiers.smoke.traffic]\nconcurrency = [8, 1]",
            "tiers.smoke.traffic.concurrency: must be in ascending order, each number once",
        ),
        (
            "[tiers.smoke.tokenizer]\ntext = 'x'\ncharacters = 0",
            "tiers.smoke.tokenizer.characters: must be 1 or more, not 0",
        ),
        (
            "[tiers.other]\ntime_limit = 0\ncells = []",
            "tiers.other.time_limit: must be more than 0, not 0",
        ),
        (
            "[tiers.other]\ntime_limt = 3\ncells = []",
            "tiers.other.time_limt: unknown key. Did you mean 'time_limit'? Allowed: cells, extends, time_limit",
        ),
    ],
)
def test_a_wrong_key_of_a_tier_is_named_with_what_is_allowed(tmp_path: Path, more: str, message: str) -> None:
    allowed = ", ".join(sorted([*metric_groups(), "cells", "extends", "time_limit"]))
    assert refusal(tmp_path, f"{USER_FILE}\n{more}\n") == message.format(allowed=allowed)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "[model.other]",
            "model: unknown key. Did you mean 'models'? Allowed: backends, models, tasks, texts, tiers",
        ),
        ("[path]", "path: unknown key. Allowed: backends, models, tasks, texts, tiers"),
        (
            "[models.a]\nlicense = 'MIT'\npath = 'x'",
            "models.a.path: unknown key. Allowed: add_bos, checkpoints, gguf, license, resources, weights",
        ),
        ("[models.a]\nlicense = 'MIT'", "models.a: give weights, gguf or both"),
        ("[models.a]\ngguf = { path = 'x' }", "models.a.license: is missing; add it"),
        (
            "[models.a]\nlicense = 'MIT'\nweights = { pth = 'x' }",
            "models.a.weights.pth: unknown key. Did you mean 'path'? Allowed: asset, file, hub, path, revision",
        ),
        (
            "[models.a]\nlicense = 'MIT'\nweights = { file = 'x' }",
            "models.a.weights: give exactly one of asset, hub, path",
        ),
        (
            "[models.a]\nlicense = 'MIT'\nweights = { path = 'x', asset = 'y' }",
            "models.a.weights: give exactly one of asset, hub, path",
        ),
        (
            "[models.a]\nlicense = 'MIT'\nweights = { hub = 'o/m' }",
            "models.a.weights.revision: must be the 40 hexadecimal digits of a commit",
        ),
        (
            "[models.a]\nlicense = 'MIT'\nweights = { hub = 'o/m', revision = 'v1.0' }",
            "models.a.weights.revision: must be the 40 hexadecimal digits of a commit, since a branch or a tag can "
            "move: `git ls-remote https://huggingface.co/o/m v1.0` prints them",
        ),
        (
            "[models.'a/b']\nlicense = 'MIT'\ngguf = { path = 'x' }",
            "models: 'a/b': cannot be part of a file name; use letters, digits and",
        ),
        (
            "[models.'..']\nlicense = 'MIT'\ngguf = { path = 'x' }",
            "models: '..': cannot be part of a file name",
        ),
        ("[tiers.'a/b']\nextends = 'smoke'", "tiers: 'a/b': cannot be part of a file name"),
        (
            "[backends.llamacpp.schemes.'Q4/2']\nbits = 4",
            "backends.llamacpp.schemes: 'Q4/2': cannot be part of a file name",
        ),
        (
            "[backends.llama_cpp.schemes]\nQ = { bits = 4 }",
            "backends.llama_cpp: no such backend. Did you mean 'llamacpp'? Allowed: bitsandbytes,",
        ),
        (
            "[backends.llamacpp]\nschema = 1",
            "backends.llamacpp.schema: unknown key. Did you mean 'schemes'? Allowed: checkpoint, ",
        ),
        (
            "[backends.llamacpp]\ncheckpoint = 'onnx'",
            "backends.llamacpp.checkpoint: cannot be 'onnx'. Allowed: compressed, gguf, none, safetensors",
        ),
        (
            "[backends.llamacpp.schemes.X]\nftype = 'X'",
            "backends.llamacpp.schemes.X.bits: is missing; add it",
        ),
        (
            "[backends.llamacpp.schemes.X]\nbits = 0",
            "backends.llamacpp.schemes.X.bits: must be more than 0, not 0",
        ),
        (
            "[backends.llamacpp.schemes.X]\nbits = 4\ndevice = 'gpu'",
            "backends.llamacpp.schemes.X.device: cannot be 'gpu'. Did you mean 'cpu'? Allowed: cpu, cuda",
        ),
        (
            "[backends.llamacpp.schemes.X]\nbits = 4\nreference = 'llamacpp/F61'",
            "backends.llamacpp.schemes.X.reference: no backend/scheme 'llamacpp/F61'. "
            "Did you mean 'llamacpp/F16'? Allowed: bitsandbytes/",
        ),
        (
            "[backends.bitsandbytes]\nreference = 'transformers/bf16'",
            "backends.bitsandbytes.reference: 'transformers/bf16' is not a reference, since "
            "backends.transformers.reference compares it with 'transformers/fp32': name 'transformers/fp32' here, or "
            "make it a reference of its own, with backends.transformers.schemes.bf16.reference = 'transformers/bf16'",
        ),
        (
            "[backends.llamacpp.schemes]\nF16 = { reference = 'llamacpp/Q8_0' }\nQ8_0 = { reference = 'llamacpp/F16' }",
            "backends.llamacpp.reference: 'llamacpp/F16' is not a reference, since "
            "backends.llamacpp.schemes.F16.reference compares it with 'llamacpp/Q8_0'",
        ),
        (
            "[backends.bitsandbytes]\nreference = 'fp32'",
            "backends.bitsandbytes.reference: no backend/scheme 'fp32'.",
        ),
    ],
)
def test_a_wrong_model_backend_or_scheme_is_named_with_what_is_allowed(
    tmp_path: Path, more: str, message: str
) -> None:
    assert refusal(tmp_path, f"{USER_FILE}\n{more}\n").startswith(message)


def test_divergence_from_a_reference_that_is_not_measured_is_refused(tmp_path: Path) -> None:
    text = f"{USER_FILE}[tiers.smoke.divergence]\ntext = 'boolq'\n"
    assert "divergence" in load_text(tmp_path, text).tier("smoke").group_options
    message = refusal(tmp_path, text.replace("mine/llamacpp/F16", "mine/llamacpp/Q8_0"))
    assert message == (
        "tiers.smoke.cells: mine/llamacpp/Q8_0 is compared with mine/llamacpp/F16, which is not among them: "
        "add it, or remove tiers.smoke.divergence"
    )


@pytest.mark.parametrize("key", ["models", "backends", "tiers"])
def test_a_value_in_place_of_tables_is_refused(tmp_path: Path, key: str) -> None:
    assert refusal(tmp_path, f"{key} = 3\n") == f"{key}: must be a table, [{key}], not 3"


def test_an_empty_file_misses_its_models(tmp_path: Path) -> None:
    assert refusal(tmp_path, "") == "models: is missing; add it"


def test_malformed_toml_is_named_with_line_and_column(tmp_path: Path) -> None:
    message = refusal(tmp_path, USER_FILE + "cells = [\n")
    assert message.startswith("is not valid TOML: ")
    line = len(USER_FILE.splitlines()) + 2
    assert f"line {line}" in message or "end of document" in message
    assert "line 2, column 9" in refusal(tmp_path, "\nmodels  3\n")


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: no such file"):
        load_matrix(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        load_matrix(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe[")
    with pytest.raises(InputError, match=r"binary\.toml: is UTF-16, not UTF-8"):
        load_matrix(tmp_path / "binary.toml")


def test_every_mistake_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    text = "[models.a]\nlicense = 'MIT'\n[models.b]\nlicence = 'MIT'\ngguf = { path = 'x' }\n"
    assert refusal(tmp_path, text).splitlines()[:2] == [
        "models.a: give weights, gguf or both",
        "models.b.license: is missing; add it",
    ]
