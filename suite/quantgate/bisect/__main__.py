"""Find out which upgrade moved a metric of a cell: the package, then its release or commit.

Environments between a good and a bad one are built by pip on top of what is installed here, measured, and held against
the good one by the judge of the A/B runs (`pytest --against`). Bisection over the packages whose versions differ comes
first, then over the releases of the guilty one, which pip's index lists; of a git repository, over its commits. Where
the judge says `inconclusive`, a larger sample is taken. An environment that cannot be built or measured is skipped.

Environments stay in the cache, replies in the results: after Ctrl-C or a crash the same command goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from quantgate.bisect.ends import read_pins, with_here
from quantgate.bisect.hunt import Hunt
from quantgate.bisect.outcome import no_change, report, skipped_lines, step
from quantgate.bisect.search import Answer, Finding, Pins, changes_between, most
from quantgate.bisect.state import State
from quantgate.bisect.steps import Versions, at_commits
from quantgate.bisect.trial import Question
from quantgate.commands import WRONG_INPUT, Parser, run_command
from quantgate.config.matrix import selecting
from quantgate.config.tolerances import TOLERANCES, load_tolerances
from quantgate.errors import InputError, QuantgateError
from quantgate.locks import BusyError, locked
from quantgate.machine.quota import cores as quota
from quantgate.machine.quota import usable_cores
from quantgate.paths import RESULTS
from quantgate.plugin.entry import matrix_file
from quantgate.plugin.options import PAIRS, spelling
from quantgate.report.progress import Progress
from quantgate.run.gates import check_tolerances
from quantgate.run.inputs import load_matrix
from quantgate.run.process import file_error
from quantgate.supply.environments import installed
from quantgate.words import plural

EXACT, NARROWED, INTERRUPTED, NO_CHANGE, FAILED = 0, 1, 2, 3, 10
EPILOG = """\
exit status:
  0   the change is traced: to one package and release (or commit), or to several that are bad only together
  1   it is narrowed down, but what lies between could not be judged: the lines say what
  2   interrupted; the same command goes on
  3   the bad end is as good as the good one, or the largest sample does not tell
  4   wrong input
  10  one of the two ends could not be built or measured

examples:
  pip freeze >new.txt                   # in each environment; constraints files do as well
  python -m quantgate.bisect --cell smollm2-135m/llamacpp/Q4_K_M --metric perplexity --good old.txt --bad new.txt
  python -m quantgate.bisect --cell my/transformers/fp32 --metric throughput/decode --tier nightly \\
      --repository 'transformers @ git+https://github.com/huggingface/transformers' \\
      --good-commit v5.17.0 --bad-commit main
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        question, good, bad, here = _question(options)
        if options.dry_run:
            return _list(good, bad)
        with closing(Progress(sys.stderr, 1)) as progress:
            return _hunt(options, question, good, bad, here, progress)
    except QuantgateError as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT if isinstance(error, InputError) else FAILED
    except BrokenPipeError:
        raise
    except OSError as error:
        print(file_error(error), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one ended", file=sys.stderr)
        return INTERRUPTED


def _hunt(
    options: argparse.Namespace,
    question: Question,
    good: Pins,
    bad: Pins,
    here: dict[str, str],
    progress: Progress,
) -> int:
    results = options.results.resolve() / "bisect"
    state = State(results, _identity(question, question.work(results), good, bad, here))
    try:
        with locked(state.folder / ".lock", f"search in {state.folder}", patience=1.0):
            if options.results == RESULTS:  # nobody adds it to git by mistake
                (RESULTS / ".gitignore").write_text("*\n")
            if options.fresh or options.retry_skipped:
                state.forget(broken=not options.fresh)
            if state.count:
                progress.note(f"going on from {state.file} (replies: {state.count})")
            versions = Versions(state.folder / "repositories", progress.note)
            hunt = Hunt(question, good, bad, here, state, progress, versions)
            changes = changes_between(good, bad)
            progress.note(f"differ: {', '.join(step(c.package, c.good, c.bad) for c in changes)}")
            progress.note(f"measured are {_about(len(changes))}")
            reply = hunt.aim()
            if reply.answer != Answer.BAD:
                print(no_change(reply, question.metric, question.cell.id))
                return NO_CHANGE
            finding = hunt.run()
            print("\n".join(_lines(options, hunt, finding)))
            return EXACT if finding.exact else NARROWED
    except BusyError as error:
        raise InputError(f"{state.folder}: {error} does this search already: wait for it") from None


def _lines(options: argparse.Namespace, hunt: Hunt, finding: Finding) -> list[str]:
    question, ends = hunt.question, (hunt.good, hunt.bad)
    replies = (hunt.reply(finding.good), hunt.reply(finding.bad))
    lines = report(finding, ends, replies, question.metric, question.cell.id)
    lines.append(f"  measured: {plural(hunt.count, 'environment')} beside the two ends")
    lines += skipped_lines(hunt.skipped)
    names = ("matrix", "tolerances", "text", "threads")
    words = [f"{spelling(name)}={value}" for name in names if (value := getattr(options, name)) is not None]
    words += [f"--pairs={question.pairs}"] if question.nested else []
    command = [
        *(hunt.python(finding.bad), "-m", "pytest", "--tier", question.tier_name, *words),
        f"--against={hunt.python(finding.good)}",
        *("-m", selecting(f"{question.cell.id}/{question.need.request}")),
    ]
    return [*lines, "again, both environments being in the cache:", f"  {shlex.join(command)}"]


def _list(good: Pins, bad: Pins) -> int:
    changes = changes_between(good, bad)
    for change in changes:
        print(step(change.package, change.good, change.bad))
    print(f"to be measured: {_about(len(changes))}")
    return EXACT


def _about(packages: int) -> str:
    between = f"{plural(most(packages), 'environment')} between them, " if packages > 1 else ""
    return f"the two ends, {between}and a few for the releases of the guilty package"


def _question(options: argparse.Namespace) -> tuple[Question, dict[str, str], dict[str, str], dict[str, str]]:
    """Return what is asked, the pins of both ends, and what is installed here. Raises InputError."""
    here = installed()
    ends = _ends(options)
    good, bad = with_here(at_commits(ends[0]), at_commits(ends[1]), here)
    if not changes_between(good, bad):
        raise InputError(
            f"{options.good or '--good'} and {options.bad or '--bad'} pin the same versions: nothing differs"
        )
    matrix = load_matrix(options.matrix or matrix_file(Path.cwd(), Path.cwd()))
    cells = {cell.id: cell for cell in matrix.cells(options.tier)}
    if options.cell not in cells:
        raise InputError(
            f"--cell {options.cell}: tier {options.tier} of {matrix.path} has no such cell; it has {', '.join(cells)}"
        )
    tolerances = load_tolerances(path := options.tolerances or TOLERANCES)
    check_tolerances(path, tolerances, matrix)
    for name in ("threads", "pairs"):
        value, least = getattr(options, name), 2 if name == "pairs" else 1
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: must be {least} or more")
    if options.text is not None and not options.text.is_file():
        raise InputError(f"--text {options.text}: no such file")
    question = Question(
        matrix=matrix,
        tier_name=options.tier,
        cell=cells[options.cell],
        metric=options.metric,
        tolerances=tolerances.for_tier(options.tier, matrix.roundings()),
        threads=options.threads or usable_cores(quota()),
        text=options.text,
        pairs=options.pairs or PAIRS,
    )
    question.check()
    return question, good, bad, here


def _ends(options: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """Return the pins that the options name. Raises InputError."""
    git = (options.repository, options.good_commit, options.bad_commit)
    if any(git) != all(git):
        raise InputError("--repository, --good-commit and --bad-commit go together: name all three, or none")
    if bool(options.good) != bool(options.bad):
        raise InputError("--good and --bad go together: name both files")
    if not options.good and not any(git):
        raise InputError("name the two ends: --good FILE --bad FILE, or --repository with two commits")
    good = read_pins(options.good) if options.good else {}
    bad = read_pins(options.bad) if options.bad else {}
    if options.repository:
        try:
            requirement = Requirement(options.repository)
        except InvalidRequirement:
            requirement = None
        if requirement is None or not (requirement.url or "").startswith("git+"):
            raise InputError(f"--repository {options.repository!r}: write 'NAME @ git+URL'")
        address, mark, rest = (requirement.url or "").partition("#")
        for pins, commit in ((good, options.good_commit), (bad, options.bad_commit)):
            pins[canonicalize_name(requirement.name)] = f"{requirement.name} @ {address}@{commit}{mark}{rest}"
    return good, bad


def _identity(
    question: Question, work: str, good: Pins, bad: Pins, here: dict[str, str]
) -> dict[str, object]:
    """Return all that a reply depends on. work: see `Question.work`."""
    return {
        "cell": question.cell.id,
        "metric": question.metric,
        "tier": question.tier_name,
        "work": work,
        "tolerances": question.tolerances.model_dump(mode="json"),
        "pairs": question.pairs,
        "good": dict(good),
        "bad": dict(bad),
        "here": here,
    }


def _parser() -> Parser:
    parser = Parser(
        "python -m quantgate.bisect",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--cell", required=True, metavar="ID", help="model/backend/scheme")
    add(
        "--metric",
        required=True,
        metavar="NAME",
        help="a gated one: perplexity, perplexity/reproduction, throughput/decode",
    )
    add(
        "--good",
        type=Path,
        metavar="FILE",
        help="versions of the environment that is good, NAME==VERSION a line",
    )
    add("--bad", type=Path, metavar="FILE", help="versions of the environment that is worse")
    add("--repository", metavar="'NAME @ git+URL'", help="a package that is installed from git")
    add("--good-commit", metavar="COMMIT", help="of that repository")
    add("--bad-commit", metavar="COMMIT", help="of that repository")
    add("--tier", default="smoke", metavar="NAME", help="whose samples are taken (default: smoke)")
    add("--matrix", type=Path, metavar="PATH", help="default: as pytest takes it, else quantgate's")
    add("--tolerances", type=Path, metavar="PATH", help="your tolerances.toml, instead of quantgate's")
    add("--text", type=Path, metavar="PATH", help="plain text file, in place of the tier's texts")
    add("--threads", type=int, metavar="N", help="of each measuring process (default: the cores it may use)")
    add(
        "--pairs", type=int, metavar="N",
        help=f"of processes that timings and memory peaks are taken in (default: {PAIRS}, and more to tell)",
    )  # fmt: skip
    add(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help=f"for state, records and logs (default: {RESULTS}/)",
    )
    add("--dry-run", action="store_true", help="say what differs and what would be measured; build nothing")
    add("--retry-skipped", action="store_true", help="try again what could not be built or measured")
    add("--fresh", action="store_true", help="forget the replies of an earlier search; environments stay")
    return parser


if __name__ == "__main__":
    run_command(main)
