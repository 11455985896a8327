"""Builds of libraries and variables that change numbers: named, and measured anew under --reuse."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from quantgate.config.tolerances import Tolerance
from quantgate.judge.environment import changed_environment
from quantgate.judge.judge import Subject, judge
from quantgate.machine import builds as module
from quantgate.machine import environment
from quantgate.machine.builds import build_of, builds
from quantgate.machine.environment import variables
from quantgate.records import Metric, Scalar, Status

from selftest.project import Project

F16 = "tiny/llamacpp/F16"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Builds are remembered for the life of a process."""
    builds.cache_clear()
    yield
    builds.cache_clear()


# --- builds -------------------------------------------------------------------------------------------


@pytest.fixture
def hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str | None]:
    """An installed distribution `lib` of package `lib`, and its hash."""
    package = tmp_path / "lib"
    package.mkdir()
    files = {"__init__.py": b"x = 1\n", "_C.so": b"native", "lib.so.1.2": b"more", "notes.txt": b"notes"}
    lines = []
    for name, content in files.items():
        (package / name).write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"lib/{name},sha256={digest},{len(content)}")
    info = tmp_path / "lib-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lib\nVersion: 1.0\n")
    (info / "RECORD").write_text("\n".join([*lines, "lib-1.0.dist-info/RECORD,,", ""]))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "LIBRARIES", {"lib": "lib", "absent": "absent"})

    def find() -> str | None:
        builds.cache_clear()
        hashes = builds()
        assert hashes["build of absent"] is None
        return hashes["build of lib"]

    return find


def later(file: Path) -> None:
    """As after an edit: younger than what was installed."""
    moment = time.time() + 5
    os.utime(file, (moment, moment))


def test_the_same_files_are_the_same_build(hashed: Callable[[], str | None], tmp_path: Path) -> None:
    before = hashed()
    assert before is not None
    assert len(before) == 12
    later(tmp_path / "lib/_C.so")
    (tmp_path / "lib/notes.txt").write_text("other notes")
    assert hashed() == before, "touched, or no code"


@pytest.mark.parametrize("name", ["__init__.py", "_C.so", "lib.so.1.2"])
def test_an_edited_file_is_another_build(hashed: Callable[[], str | None], tmp_path: Path, name: str) -> None:
    before, file = hashed(), tmp_path / "lib" / name
    content = file.read_bytes()
    file.write_bytes(content[::-1])  # as long as before
    later(file)
    edited = hashed()
    file.write_bytes(content + b"#")
    os.utime(file, (0, 0))  # longer, and the time set back
    longer = hashed()
    file.unlink()
    assert len({before, edited, longer, hashed()}) == 4


def test_a_package_in_front_on_the_path_is_another_build(
    hashed: Callable[[], str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashed()
    shutil.copytree(tmp_path / "lib", tmp_path / "front/lib")
    monkeypatch.syspath_prepend(str(tmp_path / "front"))
    front = hashed()
    assert front != before
    (tmp_path / "front/lib/__init__.py").write_text("x = 2\n")
    assert hashed() not in (before, front)


def test_an_editable_package_is_known_by_its_files(hashed: Callable[[], str | None], tmp_path: Path) -> None:
    (tmp_path / "lib-1.0.dist-info/direct_url.json").write_text(
        '{"url": "file:///x", "dir_info": {"editable": true}}'
    )
    before = hashed()
    (tmp_path / "lib/__init__.py").write_text("x = 22\n")
    assert hashed() != before


def test_a_library_of_llama_cpp_that_was_replaced_is_another_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as before, and with its time: what `cp -p` leaves of another build."""
    library = tmp_path / "llama_cpp/lib/libllama.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"native")
    (library.parents[1] / "__init__.py").touch()
    info = tmp_path / "fake-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n")
    (info / "RECORD").write_text("llama_cpp/lib/libllama.so,sha256=x,6\nfake-1.0.dist-info/RECORD,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    before = build_of("fake", "llama_cpp")
    library.write_bytes(b"NATIVE")
    os.utime(library, (0, 0))
    replaced = build_of("fake", "llama_cpp")
    elsewhere = shutil.copytree(library.parent, tmp_path / "built")
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(elsewhere))
    chosen = build_of("fake", "llama_cpp")
    (elsewhere / "libllama.so").write_bytes(b"more")
    assert len({before, replaced, chosen, build_of("fake", "llama_cpp")}) == 4


def test_the_installed_libraries_are_what_was_installed() -> None:
    before = bytes_read()
    assert all(builds().values())
    assert bytes_read() - before < 100e6, "of gigabytes: what RECORD says of them is taken"
    torch = metadata.distribution("torch")
    record = torch.read_text("RECORD")
    assert record is not None
    assert "libtorch_cpu.so" in record
    assert Path(str(torch.locate_file("torch/lib/libtorch_cpu.so"))).stat().st_size > 100e6


def bytes_read() -> int:
    """By this process so far."""
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])


# --- variables ----------------------------------------------------------------------------------------


def test_variables_that_compute_are_taken_and_no_others() -> None:
    computing = {
        "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41", "DNNL_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default", "OMP_PROC_BIND": "true", "GOMP_CPU_AFFINITY": "0", "KMP_AFFINITY": "x",
        "MALLOC_ARENA_MAX": "1", "LD_PRELOAD": "/usr/lib/libjemalloc.so", "LD_LIBRARY_PATH": "/opt/lib",
        "LLAMA_CPP_LIB_PATH": "/opt/llama",
        "GGML_CUDA_FORCE_MMQ": "1", "OPENBLAS_CORETYPE": "Haswell", "TORCH_BLAS_PREFER_CUBLASLT": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "x", "CUBLAS_WORKSPACE_CONFIG": ":8:8", "CUDA_VISIBLE_DEVICES": "1",
        "NVIDIA_TF32_OVERRIDE": "0", "BNB_CUDA_VERSION": "121", "GLIBC_TUNABLES": "x", "PYTHONMALLOC": "malloc",
    }  # fmt: skip
    others = {
        "HOME": "/root", "PATH": "/bin", "CUDA_HOME": "/usr/local/cuda", "TORCH_HOME": "/cache", "PYTHONPATH": "x",
        "OMP_NUM_THREADS": "7", "GGML_LOG_LEVEL": "1", "TORCH_LOGS": "x", "PIP_INDEX_URL": "x", "CUDA_CACHE_PATH": "x",
    }  # fmt: skip
    assert variables(computing | others) == dict(sorted(computing.items()))


def test_keys_are_in_no_record() -> None:
    keys = dict.fromkeys(["LLAMA_API_KEY", "LLAMA_ARG_API_KEY", "NVIDIA_API_KEY", "TRITON_TOKEN"], "a-secret")
    assert variables(keys) == {}
    assert variables({"LLAMA_ARG_N_TOKENS_MAX": "3", "NVIDIA_KEYS_IN_USE": "1"}), "and what looks like one is"


def test_bytes_that_are_no_text_are_written_out() -> None:
    assert variables({"LD_PRELOAD": "/opt/\udce9.so"}) == {"LD_PRELOAD": "/opt/\\udce9.so"}


def test_a_variable_is_named_and_the_other_tolerance_holds() -> None:
    old, new = {"torch": "2"}, {"torch": "2", "MKL_CBWR": "COMPATIBLE"}
    (line,) = changed_environment(old, new)
    assert line == "MKL_CBWR none -> COMPATIBLE"
    assert changed_environment(new, new) == []
    assert status([line]) == Status.PASS
    assert status([]) == Status.REGRESSION


def test_a_build_that_an_older_record_does_not_name_is_no_change() -> None:
    new = {"torchao": "1", "build of torchao": "b"}
    assert changed_environment({"torchao": "1"}, new) == []
    assert changed_environment(new, {**new, "build of torchao": "c"}) == ["build of torchao b -> c"]
    assert changed_environment({}, new) == ["torchao none -> 1"]


def test_the_suites_own_code_is_named_and_loosens_nothing() -> None:
    old: dict[str, Scalar] = {"quantgate code": "a", "quantgate": "1", "commit": "c"}
    code = changed_environment(old, old | {"quantgate code": "b", "commit": "d"})
    assert code == ["quantgate code a -> b"]
    assert status(code) == Status.REGRESSION
    assert status([*code, "torch 1 -> 2"]) == Status.PASS


def test_another_checkpoint_is_named_and_a_value_without_an_error_bar_keeps_the_other_tolerance() -> None:
    old: dict[str, Scalar] = {"checkpoint": "a"}
    new: dict[str, Scalar] = {"checkpoint": "b", "name of the checkpoint": "x.gguf"}
    changed = changed_environment(old, new)
    assert changed == ["checkpoint a -> b (x.gguf)"]
    assert status(changed) == Status.PASS, "a quantile of other weights moves by chance"
    assert changed_environment({**new, "name of the checkpoint": "y.gguf"}, new) == []


def status(changed: list[str]) -> Status:
    def size(value: float) -> Metric:
        return Metric(kind="exact", value=value, unit="", better="lower")

    tolerance = Tolerance(metric="x", relative=0.1, here=0.001)
    return judge(Subject("m/b/s", "x", changed), size(1.05), size(1.0), tolerance, 0.01).status


def test_memory_of_one_machine_varies_from_start_to_start() -> None:
    assert changed_environment({"memory_gb": 23.49}, {"memory_gb": 23.51}) == []
    assert changed_environment({"memory_gb": 24}, {"memory_gb": 23.5}) == []
    assert changed_environment({"memory_gb": 24}, {"memory_gb": 32.0}) == ["memory_gb 24 -> 32.0"]


# --- whole runs ---------------------------------------------------------------------------------------


def test_a_library_that_was_edited_is_named_and_measured_anew_under_reuse(baselined: Project) -> None:
    """A copy of the same version in front on the path: in the folder where pytest is started, and on PYTHONPATH."""
    import llama_cpp

    over, site = baselined.folder, Path(llama_cpp.__file__).parents[1]
    for source in (site / "llama_cpp", *site.glob("llama_cpp_python-*.dist-info")):
        shutil.copytree(source, over / source.name, copy_function=shutil.copy2)
    path = f"{baselined.environment['PYTHONPATH']}{os.pathsep}{over}"
    selected = ("-m", "perplexity", "-k", "F16", "--reuse")
    assert baselined.run(*selected, PYTHONPATH=path).measured == [], "the same build, elsewhere"
    edited = over / "llama_cpp/llama_cpp.py"
    edited.write_text(edited.read_text() + "\n# edited\n")
    result = baselined.run(*selected, PYTHONPATH=path)
    assert result.measured == [F16]
    (line,) = result.verdict(F16, "perplexity").environment
    assert line.startswith("build of llama-cpp-python ")


@pytest.mark.slow
def test_a_variable_and_libraries_of_another_build_are_named_and_measured_anew_under_reuse(
    baselined: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama-cpp-python loads those that a variable names. What stands behind the end of a library changes nothing."""
    import llama_cpp

    built = shutil.copytree(Path(llama_cpp.__file__).parent / "lib", tmp_path / "built")
    selected = ("-m", "perplexity", "-k", "F16", "--reuse")
    new = {"GGML_SELFTEST": "1", "LLAMA_CPP_LIB_PATH": str(built)}
    for change in (b"one", b"another"):
        for library in built.glob("libllama.so*"):
            with library.open("ab") as file:
                file.write(change)
        result = baselined.run(*selected, **new)
        assert result.measured == [F16]
        verdict = result.verdict(F16, "perplexity")
        *variables, build = sorted(verdict.environment)
        assert variables == [f"{name} none -> {value}" for name, value in new.items()]
        assert build.startswith("build of llama-cpp-python ")
        assert verdict.status == Status.PASS
    assert "changed since the baselines: GGML_SELFTEST none -> 1" in result.output
    assert baselined.run(*selected, **new).measured == []
    record = baselined.measurement(F16).environment
    assert record["GGML_SELFTEST"] == "1"
    assert record["quantgate code"] == environment.code_hash(*environment.MEASURING)
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(built))
    assert record["build of llama-cpp-python"] == builds()["build of llama-cpp-python"]
