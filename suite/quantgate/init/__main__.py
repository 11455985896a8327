"""Write a starter `quantgate.toml` for a model: a folder of safetensors, a GGUF file, or a repository of the hub.

Reads configurations and headers alone, asks nothing and overwrites nothing. A short comment explains each line. Then
`pytest --update-baselines --reason "first values"` measures and accepts, and `pytest` judges.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from quantgate.commands import WRONG_INPUT, Parser, run_command
from quantgate.errors import AssetError, QuantgateError
from quantgate.init.cells import choose
from quantgate.init.facts import Facts, facts_of
from quantgate.init.hub import facts_of_hub
from quantgate.init.samples import enough
from quantgate.init.text import render
from quantgate.paths import IMPORT_ROOT, INSTALLED
from quantgate.plugin.entry import matrix_file
from quantgate.run.inputs import load_matrix

FILE = Path("quantgate.toml")
EXAMPLES = """\
examples:
  python -m quantgate.init my-Q4_K_M.gguf
  python -m quantgate.init my-Q4_K_M.gguf --reference checkpoints/my   # what did the quantization cost?
  python -m quantgate.init mistralai/Mistral-7B-v0.3 --output mistral.toml   # then: pytest --matrix=mistral.toml
"""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TYPE = re.compile(r"[-._]([IT]?Q\d\w*|MXFP4\w*|B?F16|F32)$", re.IGNORECASE)
"""What the name of a GGUF file ends with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or print it."""
    parser = Parser(
        "python -m quantgate.init",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="PATH|HUB_ID", help="folder of safetensors, GGUF file, or repository of the hub")
    add(
        "--reference",
        metavar="PATH|HUB_ID",
        help="the full-precision checkpoint that a quantized one is compared with (divergence, loss)",
    )
    add("--name", help="the model's name in cells (default: that of the file or folder)")
    add(
        "--output",
        type=Path,
        default=_default(),
        metavar="PATH",
        help="the file to write (default: %(default)s)",
    )
    add("--print", action="store_true", help="print the file instead of writing it")
    options = parser.parse_args(arguments)
    try:
        if not options.print:
            _check_free(options.output)
        folder = options.output.absolute().parent
        command = _command(options.output)
        text = starter(options.model, options.reference, options.name, folder, command)
        if options.print:
            print(text, end="")
        else:
            _write(options.output, text, command)
    except QuantgateError as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT
    return 0


def starter(
    model: str, reference: str | None, name: str | None, folder: Path, command: str = "pytest"
) -> str:
    """Return the text of a matrix for `folder`. command: what runs pytest with it. Raises AssetError and InputError."""
    facts = _facts(model, name, folder)
    other = None if reference is None else _facts(reference, None, folder)
    if other is not None:
        if other.quantized:
            raise AssetError(f"{reference}: is quantized itself; name the full-precision checkpoint")
        if not facts.quantized:
            raise AssetError(
                f"{model}: is in full precision itself, so its cells need no other reference: leave out --reference"
            )
    chosen = choose(facts, other, load_matrix().backends)
    if not chosen.cells:
        reasons = "; ".join(f"{cell} {reason}" for cell, reason in chosen.skipped.items())
        raise AssetError(f"{model}: no scheme runs on this machine: {reasons}")
    samples = enough(lambda samples: render(facts, other, chosen, samples))
    return render(facts, other, chosen, samples, command)


def _facts(model: str, name: str | None, folder: Path) -> Facts:
    if not model.strip():
        raise AssetError(
            "PATH|HUB_ID: is empty: name a folder of safetensors, a GGUF file, or a repository of the hub"
        )
    path = Path(model).expanduser()
    if not path.exists() and _HUB_ID.fullmatch(model) and path.suffix != ".gguf":
        return facts_of_hub(model, _name(name or model.partition("/")[2]))
    whole = path.absolute()
    local = whole.relative_to(folder) if whole.is_relative_to(folder) else whole
    stem = whole.stem if whole.suffix == ".gguf" else whole.name
    return facts_of(path, _name(name or stem), {"path": local.as_posix()})


def _name(text: str) -> str:
    """Return what can be part of a cell's id, and of -k."""
    text = _TYPE.sub("", re.sub(r"-\d{5}-of-\d{5}$", "", text))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._").lower() or "model"


def _check_free(output: Path) -> None:
    """Raise AssetError where a file would be overwritten, or one that pytest reads now no longer be read."""
    remedy = (
        "`--print` prints it, `--output OTHER.toml` writes another file, for `pytest --matrix=OTHER.toml`"
    )
    if output.exists() or output.is_symlink():
        raise AssetError(f"{output}: already exists, and is not overwritten: {remedy}")
    if not output.absolute().parent.is_dir():
        raise AssetError(f"{output}: its folder does not exist; make it first")
    if output.name == FILE.name:
        folder = output.absolute().parent
        if (file := matrix_file(folder, folder)) is not None:
            raise AssetError(f"{file}: has [tool.quantgate] already, which {FILE} would replace: {remedy}")


def _write(output: Path, text: str, command: str) -> None:
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise AssetError(f"{output}: cannot be written: {error.strerror}") from None
    print(
        f'{output}: written. Read it; then `{command} --update-baselines --reason "first values"` measures and '
        f"accepts, and `{command}` judges."
    )


def _command(output: Path) -> str:
    """Return what runs pytest with the file."""
    words = ["pytest"] if output.name == FILE.name else ["pytest", f"--matrix={output}"]
    if _in_checkout():  # whose own matrix and baselines pytest takes otherwise
        words = ["pytest", f"--matrix={output}", f"--baselines={output.stem}"]
    return shlex.join(words)


def _in_checkout() -> bool:
    return not INSTALLED and IMPORT_ROOT.parent in (Path.cwd(), *Path.cwd().parents)


def _default() -> Path:
    """Return what is written: in this checkout a file that `--matrix` names, as pytest reads fixtures/matrix.toml."""
    return Path("mine.toml") if _in_checkout() else FILE


if __name__ == "__main__":
    run_command(main)
