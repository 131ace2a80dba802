"""The words of the command line: commands, options, their help."""

import argparse
import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NoReturn

import dasksolve
from dasksolve.batch.fit import ON_DEFICIENT
from dasksolve.batch.options import ON_SINGULAR, STRUCTURES, Options, short_word
from dasksolve.batch.pieces import thread_count
from dasksolve.command import bench
from dasksolve.command.speech import say
from dasksolve.job.memory import parse_size

Command = Callable[..., argparse.ArgumentParser]
"""Adds a command, of a name, what it does, its words, and examples."""


class _Top(argparse.ArgumentParser):
    """Words whose help is read, or fails: argparse itself takes no notice of a full disk."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End, once what was printed has been written."""
        if status == 0 and not say("", end=""):
            status = 1
        super().exit(status, message)


class _Parser(_Top):
    """A command, whose errors show its own usage."""

    words: tuple[str, ...] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.words = tuple(args)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            meant = "".join(map(self._meant, unknown))
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found, unknown

    def _meant(self, word: str) -> str:
        """The option that a word may stand for."""
        options = re.findall(r"(?<![\w-])--[\w-]+", self.format_help())
        meant = get_close_matches(word.partition("=")[0], options, 1, 0.75)
        return f"; did you mean {meant[0]}?" if word[:2] == "--" and meant else ""

    def error(self, message: str) -> NoReturn:
        known = self.format_help()
        strange = [w for w in self.words if w[:1] == "-" and w.partition("=")[0] not in known]
        if strange and "required" in message:
            message += f"; {strange[0]} is no option: names that begin with - stand after --"
        super().error(message)


def parser() -> argparse.ArgumentParser:
    """The words that the command line understands; `command` is the name of the one given."""
    top = _Top(
        prog="dasksolve",
        usage="dasksolve COMMAND …",
        description="Solve huge batches of dense linear systems a[i] x[i] = b[i] stored in zarr, "
        "and fit huge stacks of series.",
        epilog="dasksolve COMMAND --help says more. Exit status: 0 finished, nothing flagged; "
        "3 finished, some systems flagged; 1 failed; 2 wrong usage; 130 after Ctrl-C; 143 after "
        "SIGTERM; 129 after SIGHUP, of a terminal that was closed.",
    )
    top.add_argument("--version", action="version", version=f"dasksolve {dasksolve.__version__}")
    commands = top.add_subparsers(
        required=True, metavar="COMMAND", title="commands", parser_class=_Parser
    )

    def command(name: str, text: str, words: str, *examples: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            prog=f"dasksolve {name}",
            usage=f"dasksolve {name} {words}",
            epilog="\n  ".join(["examples:" if len(examples) > 1 else "example:", *examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(command=name)
        return added

    for add in (_solve, _regress, _check, _report, _demo, _bench):
        add(command)
    return top


def _solve(command: Command) -> None:
    solve = command(
        "solve",
        "solve a batch, block by block, into a zarr group",
        "[options] A B OUT",
        "dasksolve solve data.zarr/a data.zarr/b solved.zarr --memory 2GiB",
        "dasksolve solve s3://bucket/a.zarr s3://bucket/b.zarr s3://bucket/x.zarr",
        "dasksolve solve data.zarr/a data.zarr/b solved.zarr --resume",
    )
    solve.set_defaults(solved=False)
    solve.add_argument("a", metavar="A", help="zarr array of matrices (..., N, N): path or URL")
    solve.add_argument(
        "b", metavar="B", help="zarr array of right-hand sides: (..., N) or (..., N, K)"
    )
    solve.add_argument("out", metavar="OUT", help="the zarr group to create: path or URL")
    _mathematics(solve)
    _running(solve, "A and B")


def _regress(command: Command) -> None:
    regress = command(
        "regress",
        "fit every series of a stored stack, with gaps, into a zarr group",
        "[options] Y DESIGN OUT",
        "dasksolve regress images.zarr/ndvi design.npy trends.zarr --memory 2GiB",
        "dasksolve regress s3://bucket/y.zarr design.npy s3://bucket/fit.zarr --axis -1",
        "dasksolve regress images.zarr/ndvi design.npy trends.zarr --resume",
    )
    regress.set_defaults(solved=False)
    regress.add_argument(
        "y", metavar="Y", help="zarr array of the series, P observations along --axis; NaN is a gap"
    )
    regress.add_argument(
        "design",
        metavar="DESIGN",
        help="(P, N), a row for each observation: zarr array or .npy file",
    )
    regress.add_argument("out", metavar="OUT", help="the zarr group to create: path or URL")
    _statistics(regress)
    _running(regress, "Y")


def _check(command: Command) -> None:
    check = command(
        "check",
        "solve or fit everything again and compare every bit of the output",
        "[options] A B OUT",
        "dasksolve check data.zarr/a data.zarr/b solved.zarr",
        "dasksolve check images.zarr/ndvi design.npy trends.zarr",
    )
    check.add_argument("a", metavar="A", help="as it was given to solve; or Y, to regress")
    check.add_argument("b", metavar="B", help="as it was given to solve; or DESIGN, to regress")
    check.add_argument("out", metavar="OUT", help="the zarr group that was written")
    _data(check, "the inputs").add_argument(
        "--weights", metavar="W", help="as they were given to regress"
    )
    _resources(check)
    _printed(check, lines=True)


def _report(command: Command) -> None:
    summary = command(
        "report",
        "print what an output says of itself, finished or not",
        "[options] OUT",
        "dasksolve report solved.zarr --html solved.html",
    )
    summary.add_argument("out", metavar="OUT", help="the zarr group that solve or regress wrote")
    summary.add_argument(
        "--html",
        type=os.path.expanduser,
        metavar="FILE",
        help="write a page with a map, histograms and the throughput, too, and print where",
    )
    _printed(summary, quiet=False)


def _demo(command: Command) -> None:
    show = command(
        "demo",
        "write a batch larger than the memory limit, solve and check it",
        "[options]",
        "dasksolve demo --size 4GiB --memory 512MiB",
    )
    show.add_argument(
        "--size",
        type=_size,
        default="1GiB",
        metavar="SIZE",
        help="bytes of a to write (default: 1GiB)",
    )
    show.add_argument(
        "--memory",
        type=_size,
        default="256MiB",
        metavar="SIZE",
        help="memory limit (default: 256MiB)",
    )
    show.add_argument("--keep", type=_folder, metavar="DIR", help="write there, and leave it")
    show.add_argument("--quiet", action="store_true", help="no progress bar")
    _debug(show)


def _bench(command: Command) -> None:
    measure = command(
        "bench",
        "time the kernels against NumPy on this machine",
        "[options]",
        "dasksolve bench --n 3 8 64 --dtype float64",
        "dasksolve bench --in-cache --dtype float64",
        "dasksolve bench --plot speed.png",
        "dasksolve bench --regress --n 2 6 16",
    )
    bench.add_arguments(measure)
    _debug(measure)


def _running(command: argparse.ArgumentParser, inputs: str) -> None:
    """How a job runs, whatever it does."""
    _data(command, inputs).add_argument(
        "--no-strict",
        dest="strict",
        action="store_false",
        help="take a chunk that is not stored as the fill value (default: an error)",
    )
    output = command.add_argument_group("output (one that exists: an error, by default)")
    again = output.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue an interrupted job")
    again.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    output.add_argument(
        "--no-durable",
        dest="durable",
        action="store_false",
        help="do not wait for the disk: faster, and a power cut may cost blocks that were done",
    )
    _resources(command)
    _printed(command, lines=True).add_argument(
        "--dry-run", action="store_true", help="print the plan and stop"
    )


def _statistics(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("statistics")
    group.add_argument(
        "--axis", type=int, default=0, metavar="I", help="of the observations in Y (default: 0)"
    )
    group.add_argument(
        "--weights",
        metavar="W",
        help="inverse variances: (P,), a zarr array or .npy file, or a zarr array of Y's shape",
    )
    group.add_argument(
        "--ridge",
        type=_penalty,
        nargs="+",
        metavar="R",
        help="penalty on the squares of the coefficients: one number, or one for each",
    )
    group.add_argument(
        "--rcond",
        type=_rcond,
        metavar="R",
        help="count series as rank-deficient whose reciprocal condition number is below R "
        "(default: max(P, N) eps)",
    )
    group.add_argument(
        "--min-count",
        type=int,
        metavar="C",
        help="series with fewer observations have too few (default: N)",
    )
    group.add_argument(
        "--on-deficient",
        default="nan",
        choices=ON_DEFICIENT,
        metavar="WORD",
        help="coefficients of series that are rank-deficient or have too few observations. nan: "
        "NaN; lstsq: those of the smallest norm (default: nan)",
    )
    group.add_argument(
        "--covariance", action="store_true", help="store covariances of the coefficients, too"
    )


def _mathematics(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("mathematics")
    group.add_argument(
        "--assume-a",
        type=short_word,
        default="gen",
        choices=STRUCTURES,
        metavar="WORD",
        help=f"structure of a, in SciPy's words: {', '.join(STRUCTURES)} (default: gen)",
    )
    group.add_argument(
        "--lower",
        action="store_true",
        help="read the lower triangle where a is pos, sym or her (default: the upper)",
    )
    group.add_argument(
        "--on-singular",
        default="nan",
        choices=ON_SINGULAR,
        metavar="WORD",
        help="x of a singular system. nan: NaN, of it alone; lstsq: its least-squares solution; "
        "raise: an error, once all is written (default: nan)",
    )
    group.add_argument(
        "--rcond",
        type=_rcond,
        metavar="R",
        help="count systems as singular whose reciprocal condition number is below R, say 1e-12 "
        "(default: only those with a pivot of zero)",
    )
    group.add_argument(
        "--diagnostics",
        action="store_true",
        help="store rcond and backward error of each system, too",
    )
    group.add_argument(
        "--refine",
        action="store_true",
        help="refine the answers whose backward error exceeds 4 eps",
    )


def _data(command: argparse.ArgumentParser, inputs: str) -> Any:
    group = command.add_argument_group("data")
    group.add_argument(
        "--no-mask-and-scale",
        dest="mask_and_scale",
        action="store_false",
        help=f"take the numbers of {inputs} as they are stored (default: as their attributes say, "
        "_FillValue, scale_factor, …)",
    )
    return group


def _resources(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("resources")
    group.add_argument(
        "--memory",
        type=_size,
        metavar="SIZE",
        help="memory to add to a process, such as 2GiB (default: half of what is free)",
    )
    group.add_argument(
        "--workers",
        type=_threads,
        metavar="N",
        help="threads (default: dask's num_workers, else -1, all cores)",
    )
    group.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="run on the dask cluster of this scheduler, such as tcp://host:8786",
    )


def _printed(command: argparse.ArgumentParser, lines: bool = False, quiet: bool = True) -> Any:
    group = command.add_argument_group("what is printed")
    group.add_argument("--json", action="store_true", help="print the report as JSON")
    if lines:
        group.add_argument(
            "--json-lines",
            action="store_true",
            help="print progress once a second, and the report last, each as JSON on one line",
        )
    if quiet:
        group.add_argument("--quiet", action="store_true", help="print errors only")
    _debug(group)
    return group


def _debug(command: Any) -> None:
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _threads(word: str) -> int:
    try:
        return thread_count(int(word))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{word} is no number of threads: 1, 2, …, or -1"
        ) from error


def _folder(word: str) -> str:
    if not word:  # the folder where the shell is, to pathlib
        raise argparse.ArgumentTypeError("the name of a folder is empty")
    return word


def _penalty(word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        text = f"{word} is no number; Y, DESIGN and OUT stand before --ridge, or after --"
        raise argparse.ArgumentTypeError(text) from error


def _rcond(word: str) -> float | None:
    try:
        return Options.of(rcond=float(word)).rcond
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word} is not a number from 0 to 1") from error


def _size(word: str) -> int:
    try:
        return parse_size("size", word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word} is not a positive size, such as 2GiB") from error
