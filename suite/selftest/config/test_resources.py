"""What a cell takes of a machine: stated by schemes and models, and whether a machine has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.config.resources import Offer, Resources, lacking

from selftest.config.user_file import USER_FILE, load_text, refusal

LAPTOP = Offer("this machine", cpus=2, gpus=0, memory=24.5)


def test_a_model_states_more_than_its_scheme_for_the_cells_that_match(tmp_path: Path) -> None:
    matrix = load_text(
        tmp_path,
        USER_FILE
        + """
[models.mine.resources]
"*/*" = { memory = 40 }
"*/cuda-*" = { gpus = 2 }
"transformers/cuda-bf16" = { gpus = 8, memory = 900.5 }
[backends.transformers.schemes]
cuda-bf16 = { resources = { cpus = 16, gpus = 4 } }
cuda-fp16 = { bits = 16, dtype = "float16", device = "cuda", resources = { cpus = 16 } }
""",
    )
    cells = ("transformers/cuda-bf16", "transformers/cuda-fp16", "llamacpp/Q4_K_M")
    assert [matrix.cell(f"mine/{cell}").resources for cell in cells] == [
        Resources(cpus=16, gpus=8, memory=900.5),
        Resources(cpus=16, gpus=2, memory=40),
        Resources(memory=40),
    ]


def test_a_scheme_of_a_cuda_device_takes_one_gpu(tmp_path: Path) -> None:
    matrix = load_text(tmp_path)
    assert matrix.cell("mine/bitsandbytes/cuda-nf4").resources == Resources(gpus=1)
    assert matrix.cell("mine/bitsandbytes/nf4").resources == Resources()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            'resources = { "llamacpp/Q4_K_M" = { gpu = 1 } }',
            "resources.\"llamacpp/Q4_K_M\".gpu: unknown key. Did you mean 'gpus'? Allowed: cpus, gpus, memory",
        ),
        (
            'resources = { "llamacpp/*" = { memory = "80 GB" } }',
            "resources.\"llamacpp/*\".memory: must be a number, not the text '80 GB'",
        ),
        (
            'resources = { "llamacpp/*" = { cpus = 0 } }',
            'resources."llamacpp/*".cpus: must be 1 or more, not 0',
        ),
        (
            'resources = { "llamacpp/Q*" = { gpus = 2 } }',
            'resources."llamacpp/Q*".gpus: all schemes that it matches compute on the CPU: give it '
            'device = "cuda", or remove gpus',
        ),
        (
            'resources = { "lamacpp/Q4_0" = { memory = 8 } }',
            "resources.\"lamacpp/Q4_0\": matches no backend/scheme. Did you mean 'llamacpp/Q4_0'? Allowed: ",
        ),
    ],
)
def test_what_a_model_may_not_state(tmp_path: Path, more: str, message: str) -> None:
    text = USER_FILE.replace('license = "MIT"', f'license = "MIT"\n{more}')
    assert refusal(tmp_path, text).startswith(f"models.mine.{message}")


def test_gpus_of_a_scheme_that_computes_on_the_cpu(tmp_path: Path) -> None:
    text = f"{USER_FILE}[backends.llamacpp.schemes.Q4_K_M]\nresources = {{ gpus = 2 }}\n"
    assert refusal(tmp_path, text) == (
        "backends.llamacpp.schemes.Q4_K_M.resources.gpus: the scheme computes on the CPU: give it "
        'device = "cuda", or remove gpus'
    )


@pytest.mark.parametrize(
    ("asked", "offers", "why"),
    [
        (Resources(), [], ""),
        (Resources(cpus=2, memory=24), [LAPTOP], ""),
        (Resources(memory=900), [LAPTOP], "needs 900 GB of memory; this machine has 24.5 GB of memory"),
        (
            Resources(cpus=1, gpus=1),
            [LAPTOP],
            "needs 1 CPU and 1 GPU; this machine has 2 CPUs and 0 GPUs",
        ),
        # No one node has both, though each is somewhere.
        (
            Resources(gpus=8, memory=900),
            [Offer("node a", 8, 8, 256), Offer("node b", 64, 0, 1000), LAPTOP],
            "needs 8 GPUs and 900 GB of memory; node a has 8 GPUs and 256 GB of memory, node b has 0 GPUs and 1000 GB "
            "of memory",
        ),
        (Resources(cpus=1), [], "needs 1 CPU; there is no machine"),
    ],
)
def test_whether_a_machine_has_what_is_asked_for(asked: Resources, offers: list[Offer], why: str) -> None:
    assert lacking(asked, offers) == why
