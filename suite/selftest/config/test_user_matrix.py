"""A user's matrix file: what its tiers inherit from each other, and what it takes from the shipped file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from quantgate.config.matrix import Matrix, Tier

from selftest.config.user_file import USER_FILE, load_text, refusal


def options_as_written(tier: Tier) -> dict[str, dict[str, Any]]:
    """Return the options of its metric groups without defaults."""
    return {group: options.model_dump(exclude_unset=True) for group, options in tier.group_options.items()}


# --- tiers that extend ----------------------------------------------------------------------------

EXTENDED = (
    USER_FILE
    + """
[tiers.nightly]
extends = "smoke"
cells = ["mine/transformers/fp32", "mine/llamacpp/F16"]
[tiers.nightly.perplexity]
windows = 24
[tiers.nightly.memory]
prompt = 64
[tiers.full]
extends = "nightly"
time_limit = 600
"""
)


def test_extending_adds_cells_and_overrides_options_key_by_key(tmp_path: Path) -> None:
    matrix = load_text(tmp_path, EXTENDED)
    assert [c.id for c in matrix.cells("nightly")] == [
        "mine/llamacpp/F16", "mine/llamacpp/Q4_K_M", "mine/transformers/fp32",
    ]  # fmt: skip
    nightly = matrix.tier("nightly")
    assert nightly.time_limit == 60
    assert options_as_written(nightly) == {
        "perplexity": {"text": "boolq", "n_ctx": 256, "windows": 24},
        "memory": {"prompt": 64},
    }
    assert options_as_written(matrix.tier("smoke")) == {"perplexity": {"text": "boolq", "n_ctx": 256}}


def test_a_group_may_be_measured_of_some_cells_of_its_tier(tmp_path: Path) -> None:
    some = '[tiers.smoke.tokenizer]\ntext = "x"\ncells = ["*/Q4_*"]\n'
    matrix = load_text(tmp_path, f"{EXTENDED}{some}[tiers.full.tokenizer]\ncells = ['*/fp32', '*/F16']\n")

    def measured(tier: str, group: str) -> list[str]:
        chosen = matrix.tier(tier)
        return [cell.scheme for cell in matrix.cells(tier) if not chosen.leaves_out(cell.id, group)]

    assert measured("smoke", "perplexity") == ["F16", "Q4_K_M"]
    assert measured("smoke", "tokenizer") == measured("nightly", "tokenizer") == ["Q4_K_M"]
    assert measured("full", "tokenizer") == ["F16", "fp32"], "another list in place of the first"
    assert options_as_written(matrix.tier("full"))["tokenizer"] == {"text": "x"}

    none = load_text(tmp_path, f"{EXTENDED}{some}[tiers.full.tokenizer]\ncells = []\n")
    assert "tokenizer" in none.tier("nightly").group_options
    assert "tokenizer" not in none.tier("full").group_options


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            "['*/fp32']",
            "'*/fp32' matches no cell of the tier. Allowed: mine/llamacpp/F16, mine/llamacpp/Q4_K_M",
        ),
        ("'*'", 'must be a list of ids or patterns, ["*/llamacpp/*"], not '),
    ],
)
def test_cells_of_a_group_that_are_none_of_the_tier_are_refused(
    tmp_path: Path, cells: str, message: str
) -> None:
    text = f"{USER_FILE}[tiers.smoke.memory]\ncells = {cells}\n"
    assert refusal(tmp_path, text).startswith(f"tiers.smoke.memory.cells: {message}")


def test_extending_reaches_through_two_tiers(tmp_path: Path) -> None:
    matrix = load_text(tmp_path, EXTENDED)
    assert matrix.cells("full") == matrix.cells("nightly")
    assert matrix.tier("full").time_limit == 600
    assert matrix.tier("full").group_options == matrix.tier("nightly").group_options


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        (
            'extends = "smoek"',
            "tiers.nightly.extends: no tier 'smoek'. Did you mean 'smoke'? Allowed: nightly, other, smoke",
        ),
        ('extends = "nightly"', "tiers.nightly.extends: is circular: nightly -> nightly"),
        ('extends = "other"', "tiers.nightly.extends: is circular: nightly -> other -> nightly"),
        (
            'extends = ["smoke"]',
            "tiers.nightly.extends: must be the name of one tier, not a list. Allowed: nightly, other, smoke",
        ),
        (
            'extends = "smoke"\ncells = "mine/*/*"',
            "tiers.nightly.cells: must be a list of ids or patterns, [\"*/llamacpp/*\"], not the text 'mine/*/*'",
        ),
    ],
)
def test_extends_that_lead_nowhere_are_refused(tmp_path: Path, extends: str, message: str) -> None:
    text = f'{USER_FILE}\n[tiers.nightly]\n{extends}\n[tiers.other]\nextends = "nightly"\n'
    assert refusal(tmp_path, text) == message


def test_a_time_limit_that_no_tier_of_the_chain_gives_is_missing(tmp_path: Path) -> None:
    text = EXTENDED.replace("time_limit = 60\n", "").replace("time_limit = 600\n", "")
    expected = [f"tiers.{name}.time_limit: is missing; add it" for name in ("smoke", "nightly", "full")]
    assert refusal(tmp_path, text).splitlines() == expected


# --- beside the shipped file ----------------------------------------------------------------------------


def test_a_users_file_inherits_backends_and_schemes(tmp_path: Path, shipped: Matrix) -> None:
    matrix = load_text(tmp_path)
    assert matrix.backends == shipped.backends
    assert list(matrix.models) == ["mine"], "but neither models"
    assert list(matrix.tiers) == ["smoke"], "nor tiers"
    cell = matrix.cells("smoke")[1]
    assert (cell.checkpoint, cell.reference, cell.bits) == ("gguf", "mine/llamacpp/F16", 4)
    assert cell.scheme_options == {"bits": 4, "device": "cpu", "ftype": "Q4_K_M"}


def test_a_users_scheme_is_added_or_overrides_key_by_key(tmp_path: Path, shipped: Matrix) -> None:
    more = """
[backends.llamacpp.schemes.Q4_K_M]
device = "cuda"
n_gpu_layers = 12
[backends.llamacpp.schemes.TQ1_0]
bits = 2
ftype = "TQ1_0"
"""
    schemes = load_text(tmp_path, USER_FILE + more).backends["llamacpp"].schemes
    assert schemes["Q4_K_M"].scheme_options == {
        "bits": 4,
        "device": "cuda",
        "ftype": "Q4_K_M",
        "n_gpu_layers": 12,
    }
    assert schemes["Q4_K_M"].bits == 4
    assert schemes["TQ1_0"].scheme_options["ftype"] == "TQ1_0"
    assert set(schemes) == {*shipped.backends["llamacpp"].schemes, "TQ1_0"}


def test_a_users_grid_stands_beside_those_of_the_shipped_file(tmp_path: Path, shipped: Matrix) -> None:
    grid = (
        '[[backends.kbit.grid]]\nname = "mine{bits}"\ndtype = "float32"\ndata_type = "int"\nbits = [3, 4]\n'
    )
    kbit = load_text(tmp_path, USER_FILE + grid).backends["kbit"].schemes
    assert kbit.keys() == {*shipped.backends["kbit"].schemes, "mine3", "mine4"}
    assert kbit["int4-b64"] == shipped.backends["kbit"].schemes["int4-b64"]


def test_a_users_scheme_overrides_one_that_a_grid_of_the_shipped_file_makes(
    tmp_path: Path, shipped: Matrix
) -> None:
    scheme = "[backends.kbit.schemes.int4-b64]\nblock = 32\n"
    matrix = load_text(tmp_path, USER_FILE + scheme)
    mine, theirs = (m.backends["kbit"].schemes for m in (matrix, shipped))
    assert mine.keys() == theirs.keys()
    assert mine["int4-b64"].model_dump() == {**theirs["int4-b64"].model_dump(), "block": 32}


def test_a_pattern_stands_for_its_cells_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = USER_FILE.replace('"mine/llamacpp/F16"', '"*/bitsandbytes/nf4*", "*/llamacpp/Q5_?"')
    assert [c.id for c in load_text(tmp_path, text).cells("smoke")] == [
        "mine/bitsandbytes/nf4", "mine/bitsandbytes/nf4-dq",
        "mine/llamacpp/Q5_1", "mine/llamacpp/Q5_0", "mine/llamacpp/Q4_K_M",
    ]  # fmt: skip


def test_a_cell_named_twice_is_measured_once(tmp_path: Path) -> None:
    text = USER_FILE.replace('"mine/llamacpp/F16"', '"mine/llamacpp/F16", "mine/*/F16"')
    assert [c.scheme for c in load_text(tmp_path, text).cells("smoke")] == ["F16", "Q4_K_M"]


def test_half_bits_keep_their_half(tmp_path: Path) -> None:
    text = USER_FILE + '[backends.llamacpp.schemes.TQ1_0]\nbits = 1.5\nftype = "TQ1_0"\n'
    assert "bits1.5" in load_text(tmp_path, text).cell("mine/llamacpp/TQ1_0").marks


def test_keys_that_only_the_backend_knows_reach_it(tmp_path: Path) -> None:
    text = (
        USER_FILE
        + '[backends.transformers.schemes]\nbf16 = { reference = "transformers/bf16" }\n'
        + '[backends.bitsandbytes.schemes.mixed]\nbits = 8\ndtype = "float32"\nload_in_8bit = true\n'
        + 'reference = "transformers/bf16"\nllm_int8_threshold = 4.5\n'
    )
    cell = load_text(tmp_path, text).cell("mine/bitsandbytes/mixed")
    assert cell.scheme_options == {
        "bits": 8,
        "device": "cpu",
        "dtype": "float32",
        "load_in_8bit": True,
        "llm_int8_threshold": 4.5,
    }, "the reference is not for the backend"
    assert cell.reference == "mine/transformers/bf16"
