"""Options of schemes: each backend refuses what it does not take, and needs no library for that."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from quantgate.backends.spec import backends
from quantgate.paths import IMPORT_ROOT

from selftest.config.user_file import USER_FILE, refusal

ON_GPUS = "llamacpp.schemes.mine]\nbits = 4\nftype = 'Q4_0'\ndevice = 'cuda'\nn_gpu_layers = -1\n"


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (
            "bitsandbytes.schemes.mine]\nbits = 4\ndtype = 'float32'\nload_in_4bits = true",
            "Did you mean 'load_in_4bit'?",
        ),
        (
            "bitsandbytes.schemes.mine]\nbits = 4\ndtype = 'float32'\nload_in_4bit = true\nbnb_4bit_quanttype = 'nf4'",
            "Did you mean 'bnb_4bit_quant_type'?",
        ),
        (
            "llamacpp.schemes.mine]\nbits = 4\nftype = 'Q4_0'\nn_gpu_layer = -1",
            "Did you mean 'n_gpu_layers'?",
        ),
        (
            "transformers.schemes.mine]\nbits = 32\ndtype = 'float32'\nrefrence = 'a/b'",
            "Did you mean 'reference'?",
        ),
        (
            "llamacpp.schemes.mine]\nbits = 4\nftype = 'Q4_X'",
            "mine.ftype: cannot be 'Q4_X'. Did you mean 'IQ4_XS'?",
        ),
        (
            "llamacpp.schemes.mine]\nbits = 4\nftype = 'Q4_0'\nn_gpu_layers = '3'",
            "mine.n_gpu_layers: must be a whole number, not the text '3'",
        ),
        ("llamacpp.schemes.mine]\nbits = 4\nftype = 'Q4_0'\ndevice = 'cuda'", "give n_gpu_layers"),
        ("llamacpp.schemes.mine]\nbits = 16\nftype = 'F16'\nimatrix = 'code'", "leave imatrix out"),
        (
            "llamacpp.schemes.mine]\nbits = 8\nftype = 'Q8_0'\nimatrix = 'code'",
            "does nothing for Q8_0: leave imatrix",
        ),
        (
            "llamacpp.schemes.mine]\nas_is = true\nimatrix = 'code'",
            "does nothing without an ftype: leave imatrix",
        ),
        (
            "served.schemes.mine]\nbits = 16\nftype = 'F16'\nimatrix = 'code'\ndialect = 'llama-server'\n"
            "command = ['s', '{port}', '{checkpoint}']",
            "does nothing for F16: leave imatrix",
        ),
        ("llamacpp.schemes.mine]\nbits = 4\nftype = 'Q4_0'\nmain_gpu = 0", 'main_gpu needs device = "cuda"'),
        (f"{ON_GPUS}split_mode = 'rows'", "mine.split_mode: cannot be 'rows'. Did you mean 'row'?"),
        (f"{ON_GPUS}tensor_split = [1, -1]", "mine.tensor_split"),
        (f"{ON_GPUS}tensor_split = [0, 0]", "give it a share above 0"),
        (f"{ON_GPUS}tensor_split = [1, 1]\nsplit_mode = 'none'", "tensor_split spreads nothing"),
        (
            "transformers.schemes.mine]\nbits = 16\ndtype = 'bfloat16'\ndevice_map = 'auto'",
            'device_map splits a model over GPUs: give device = "cuda"',
        ),
        (
            "llamacpp.schemes.mine]\nbits = 16\nftype = 'F16'\ntype_k = 'Q8_0'",
            "type_k: cannot be 'Q8_0'. Did you mean 'q8_0'? Allowed: bf16, ",
        ),
        (
            "llamacpp.schemes.mine]\nbits = 16\nftype = 'F16'\ntype_v = 'q8_0'\nflash_attn = false",
            'type_v = "q8_0" needs flash attention in llama.cpp: remove flash_attn = false',
        ),
        (
            "llamacpp.schemes.mine]\nbits = 16\nftype = 'F16'\nn_ubatch = 0",
            "mine.n_ubatch: must be 1 or more, not 0",
        ),
        ("transformers.schemes.mine]\nbits = 32", "mine.dtype: is missing; add it"),
        (
            "transformers.schemes.mine]\nbits = 8\ndtype = 'float32'",
            'dtype = "float32" makes 32 bits, and bits = 8: add the quantization that makes them',
        ),
        (
            "transformers.schemes.mine]\nbits = 32\ndtype = 'float32'\ncheckpoint = 'gguf'",
            'loads what is made by `ftype` of its scheme (checkpoint = "gguf"), and the backend transformers has no',
        ),
        ("bitsandbytes.schemes.mine]\nbits = 4\ndtype = 'float32'", "give either load_in_8bit = true or"),
        (
            "bitsandbytes.schemes.mine]\nbits = 4\ndtype = 'float32'\nload_in_8bit = true",
            "makes 8 bits, and bits = 4",
        ),
        (
            "bitsandbytes.schemes.mine]\nbits = 8\ndtype = 'float32'\nload_in_8bit = true\nbnb_4bit_quant_type = 'nf4'",
            "bnb_4bit_quant_type does nothing with load_in_8bit",
        ),
        ("kbit.schemes.mine]\nbits = 5\ndtype = 'float32'\ndata_type = 'nf4'", "the nf4 type has 4 bits"),
        (
            "kbit.schemes.mine]\nbits = 4\ndtype = 'float32'\ndata_type = 'integer'",
            "mine.data_type: cannot be 'integer'. Did you mean 'int'?",
        ),
        (
            "llmcompressor.schemes.mine]\nbits = 4\ndtype = 'float32'\nmethod = 'gptq'",
            "needs a `calibration`",
        ),
    ],
)
def test_options_that_a_backend_does_not_take_are_refused(tmp_path: Path, scheme: str, message: str) -> None:
    refused = refusal(tmp_path, f"{USER_FILE}\n[backends.{scheme}\n")
    assert refused.startswith(f"backends.{scheme.partition(']')[0]}")
    assert message in refused


def test_backends_are_read_without_the_libraries_that_compute() -> None:
    code = "import sys; from quantgate.run.inputs import load_matrix; load_matrix(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=IMPORT_ROOT
    )
    assert not {"torch", "transformers", "bitsandbytes", "llama_cpp"} & {*done.stdout.split()}


def test_a_backend_whose_library_is_not_installed_says_how_it_is() -> None:
    spec = replace(backends()["llmcompressor"], libraries={"json": "json", "no_such_module": "some-package"})
    options = {"bits": 4, "dtype": "float32", "method": "rtn"}
    assert spec.missing(options) == "no_such_module is not installed: pip install some-package"
    assert not replace(spec, libraries={"json": "json"}).missing(options)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            "llamacpp/Q8",
            "backends.served.schemes.mine.in_process: no backend/scheme 'llamacpp/Q8'. Did you mean 'llamacpp/Q8_0'",
        ),
        (
            "llamacpp/Q6_K",
            "tiers.smoke.cells: mine/served/mine is compared with mine/llamacpp/Q6_K, ",
        ),
        (
            "llamacpp/F16",
            "backends.served.schemes.mine.in_process: the server computes token by token, and mine/llamacpp/F16 many "
            "tokens at once: name a scheme with n_ubatch = 1",
        ),
    ],
)
def test_the_cell_in_process_has_to_exist_to_be_measured_and_to_compute_as_the_server_does(
    tmp_path: Path, other: str, message: str
) -> None:
    command = "['x', '{port}', '{checkpoint}']"
    scheme = (
        f"bits = 8\nftype = 'Q8_0'\ndialect = 'llama-server'\ncommand = {command}\nin_process = '{other}'"
    )
    file = USER_FILE.replace("[tiers.smoke]", f"[backends.served.schemes.mine]\n{scheme}\n[tiers.smoke]")
    cells = file.replace("cells = [", 'cells = ["mine/served/mine", ')
    assert refusal(tmp_path, cells).startswith(message)
