"""`python -m quantgate.proofs.pocket`: trains the pocket models, smallest first, going on where it was interrupted."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from quantgate.commands import WRONG_INPUT, Parser, run_command
from quantgate.config.sentences import allowed
from quantgate.errors import InputError, QuantgateError
from quantgate.files import hash_of
from quantgate.paths import FIXTURES, cache_dir
from quantgate.proofs.pocket.corpus import load_tokens
from quantgate.proofs.pocket.plan import Plan, load_plan
from quantgate.proofs.pocket.ready import make_ready


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 4 for an option, a file or an asset that is not as it should be."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except QuantgateError as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT
    return 0


def _run(options: argparse.Namespace) -> None:
    plan = load_plan()
    if unknown := set(options.size or ()) - plan.sizes.keys():
        raise InputError(f"--size {sorted(unknown)[0]}: {allowed(sorted(unknown)[0], list(plan.sizes))}")
    names = [n for n in plan.sizes if n in (options.size or plan.sizes)]
    if not options.gguf:
        _train(plan, names, options)
    for name in names:
        make_ready(name, plan.sizes[name], options.output, options.threads, _say)


def _train(plan: Plan, names: Sequence[str], options: argparse.Namespace) -> None:
    tokens = load_tokens(plan, options.work, _say)
    _say(f"{len(tokens.train):,} tokens to train on, {len(tokens.heldout):,} held out; {plan.steps} steps")
    import torch

    from quantgate.proofs.pocket.train import Trainer, parameters_of

    torch.set_num_threads(options.threads)
    key = hash_of(plan.model_dump(exclude={"sizes"}))
    for name in names:
        size = plan.sizes[name].model_dump(exclude={"gguf"})
        file = options.work / f"{name}-{hash_of([key, size])}.safetensors"
        trainer = Trainer(plan, name, tokens, file)
        _say(f"{name}: {parameters_of(trainer.model):,} parameters, from step {trainer.step}")
        trainer.advance(plan.steps, partial(_say, prefix=f"{name}: "))
        trainer.export(options.output / name)
        _say(f"{name}: in {options.output / name}; held-out loss {trainer.heldout_loss():.4f} in bfloat16")


def _say(text: str, prefix: str = "") -> None:
    print(f"{time.strftime('%H:%M:%S')} {prefix}{text}", flush=True)


def _parser() -> Parser:
    parser = Parser(prog="python -m quantgate.proofs.pocket", description=__doc__)
    add = parser.add_argument
    add("--size", action="append", metavar="NAME", help="which models (default: all of fixtures/pocket.toml)")
    add("--threads", type=int, default=1, metavar="N", help="default: 1; another number rounds otherwise")
    add(
        "--gguf",
        action="store_true",
        help="train nothing: only the ready-made GGUF files, of models that are there",
    )
    add("--work", type=Path, default=cache_dir() / "pocket", metavar="DIR", help="tokens and checkpoints")
    add(
        "--output",
        type=Path,
        default=FIXTURES / "models",
        metavar="DIR",
        help="the models (default: fixtures/models/)",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
