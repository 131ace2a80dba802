"""The command line: `dasksolve solve`, `regress`, `check`, `report`, `demo` and `bench`."""

import argparse
import io
import json
import logging
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import dasksolve
from dasksolve.batch.options import ON_SINGULAR, STRUCTURES, Options
from dasksolve.batch.pieces import thread_count
from dasksolve.batch.regression import ON_DEFICIENT
from dasksolve.command import bench, bench_regress, demo, interrupt
from dasksolve.command.speech import complain, say
from dasksolve.job import page, series
from dasksolve.job.columns import opened
from dasksolve.job.memory import parse_size
from dasksolve.job.prepare import prepare
from dasksolve.job.progress import Bar, Lines, on_terminal
from dasksolve.job.report import Report, text
from dasksolve.job.survey import survey
from dasksolve.job.work import Work
from dasksolve.storage import stores

FLAGGED, FAILED, INTERRUPTED, TERMINATED = 3, 1, 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


def parser() -> argparse.ArgumentParser:
    """The words that the command line understands."""
    top = argparse.ArgumentParser(
        prog="dasksolve",
        usage="dasksolve COMMAND …",
        description="Solve huge batches of dense linear systems a[i] x[i] = b[i] stored in zarr, "
        "and fit huge stacks of series.",
        epilog="dasksolve COMMAND --help says more. Exit status: 0 finished, nothing flagged; "
        "3 finished, some systems flagged; 1 failed; 2 wrong usage; 130 after Ctrl-C; 143 after "
        "SIGTERM.",
    )
    top.add_argument("--version", action="version", version=f"dasksolve {dasksolve.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, words: str, *examples: str
    ) -> Any:
        added = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            prog=f"dasksolve {name}",
            usage=f"dasksolve {name} {words}",
            epilog="\n  ".join(["examples:" if len(examples) > 1 else "example:", *examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    solve = command(
        "solve",
        run_solve,
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

    regress = command(
        "regress",
        run_regress,
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

    check = command(
        "check",
        run_check,
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

    summary = command(
        "report",
        run_report,
        "print what an output says of itself, finished or not",
        "[options] OUT",
        "dasksolve report solved.zarr --html solved.html",
    )
    summary.add_argument("out", metavar="OUT", help="the zarr group that solve or regress wrote")
    summary.add_argument(
        "--html",
        metavar="FILE",
        help="write a page with a map, histograms and the throughput, too, and print where",
    )
    _printed(summary, quiet=False)

    show = command(
        "demo",
        run_demo,
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
    show.add_argument("--keep", metavar="DIR", help="write there, and leave it")
    show.add_argument("--quiet", action="store_true", help="no progress bar")
    _debug(show)

    measure = command(
        "bench",
        run_bench,
        "time the kernels against NumPy on this machine",
        "[options]",
        "dasksolve bench --n 3 8 64 --dtype float64",
        "dasksolve bench --plot speed.png",
        "dasksolve bench --regress --n 2 6 16",
    )
    bench.add_arguments(measure)
    _debug(measure)
    return top


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
        type=float,
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
        "--workers", type=_threads, metavar="N", help="threads (default: -1, all cores)"
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # the report of a finished job must not fail
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parser().parse_args(words)
    options.words = words
    if interrupt.importing():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with _waiting_is_told(), _signals_and_warnings():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        return int(options.run(options))
    except KeyboardInterrupt as stop:
        complain(_how_to_resume(options))
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except Exception as error:
        if options.debug:
            complain(traceback.format_exc())
        complain(_one_line(error))
        return FAILED


@contextmanager
def _signals_and_warnings() -> Iterator[None]:
    """End at SIGTERM as at Ctrl-C, and show warnings in a line, until `main` returns."""
    terminate, show = signal.signal(signal.SIGTERM, _terminate), warnings.showwarning
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # of its six, one counts
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, terminate)
        warnings.showwarning = show


@contextmanager
def _waiting_is_told() -> Iterator[None]:
    """Show what the schedulers warn of while a job waits."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("dasksolve: warning: %(message)s"))
    logger = logging.getLogger("dasksolve.job.schedulers")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _show_warning(message: Warning | str, *_: object) -> None:
    complain(f"warning: {message}")


def _terminate(*_: object) -> None:
    raise Terminated


def _one_line(error: Exception) -> str:
    expected = (ValueError, OSError, TypeError, NotImplementedError, RuntimeError, ImportError)
    text = str(error)
    return text if text and isinstance(error, expected) else f"{type(error).__name__}: {text}"


def _how_to_resume(options: argparse.Namespace) -> str:
    if options.run not in (run_solve, run_regress):
        return "interrupted"
    if options.overwrite and not options.solved:  # what is there may be the old output still
        command = shlex.join(["dasksolve", *options.words])
        return f"interrupted; nothing is solved yet, begin again with: {command}"
    words = [word for word in options.words if word not in ("--resume", "--overwrite")]
    command = shlex.join(["dasksolve", *words, "--resume"])
    return f"interrupted; the blocks that are done are kept, go on with: {command}"


def _client(options: argparse.Namespace, stack: ExitStack) -> Any:
    if options.scheduler is None:
        return None
    from distributed import Client  # half a second that only a cluster is worth

    if not options.debug:  # a traceback for every connection that is lost; one for Ctrl-C, at times
        loggers = filter(
            lambda name: name.startswith("distributed"), logging.root.manager.loggerDict
        )
        for name in (*loggers, "tornado.application"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        client = Client(options.scheduler, timeout="10s")
    except (OSError, ValueError) as error:  # it does not answer; it is no address
        raise OSError(f"no dask scheduler answers at {options.scheduler}: {error}") from error
    return stack.enter_context(client)


def run_solve(options: argparse.Namespace) -> int:
    """Solve."""
    how = {field.name: getattr(options, field.name) for field in fields(Options)}
    return _run_job(
        options,
        "solving",
        lambda: opened(options.a, options.b, Options.of(**how), options.mask_and_scale),
        partial(dasksolve.solve_zarr, options.a, options.b, options.out, **how),
    )


def run_regress(options: argparse.Namespace) -> int:
    """Fit."""
    how = {name: getattr(options, name) for name in (*series.OPTIONS, "weights")}
    if how["ridge"] is not None and len(how["ridge"]) == 1:
        (how["ridge"],) = how["ridge"]
    kind = {"mask_and_scale": options.mask_and_scale, "strict": options.strict}
    return _run_job(
        options,
        "fitting",
        lambda: series.Series.open(options.y, options.design, **how, **kind),
        partial(dasksolve.regress_zarr, options.y, options.design, options.out, **how),
    )


def _run_job(
    options: argparse.Namespace, what: str, work: Callable[[], Work], job: Callable[..., Report]
) -> int:
    """Do a job, or plan it alone."""
    how = {
        "memory_limit": options.memory,
        "workers": options.workers,
        "resume": options.resume,
        "overwrite": options.overwrite,
    }
    with ExitStack() as stack:
        watch = None if options.dry_run else _watch(options, what, stack)
        store, location = stores.open_store(options.out)
        if options.resume and not options.quiet and stores.is_empty(store):
            complain(f"there is no output at {location} yet: --resume begins one")
        how["client"] = _client(options, stack)
        if options.dry_run:
            prepared = prepare(work, options.out, **how)
            if options.json or options.json_lines:
                said = say(json.dumps(asdict(prepared.plan)))
            else:
                said = say(
                    f"{prepared.scheduler}\n{prepared.plan}\nnothing was written (--dry-run)"
                )
            return 0 if said else FAILED

        def follow(report: Report) -> None:
            options.solved = True
            if watch is not None:
                watch(report)

        return _finish(
            options,
            watch,
            lambda: job(
                **how,
                mask_and_scale=options.mask_and_scale,
                strict=options.strict,
                durable=options.durable,
                progress=follow,
            ),
        )


def run_check(options: argparse.Namespace) -> int:
    """Check."""
    with ExitStack() as stack:
        watch = _watch(options, "checking", stack)
        client = _client(options, stack)
        status = _finish(
            options,
            watch,
            lambda: dasksolve.check_zarr(
                options.a,
                options.b,
                options.out,
                weights=options.weights,
                memory_limit=options.memory,
                workers=options.workers,
                client=client,
                mask_and_scale=options.mask_and_scale,
                progress=watch,
            ),
        )
    if not (options.json or options.json_lines or options.quiet):
        say("checked: every block of the output is what it is computed to be")
    return status


def _watch(options: argparse.Namespace, what: str, stack: ExitStack) -> Bar | Lines | None:
    watch: Bar | Lines
    if getattr(options, "json_lines", False):
        watch = Lines(what, say)
        watch.start()
    elif on_terminal() and not options.quiet:
        watch = Bar(what)
    else:
        return None
    stack.callback(watch.close)
    return watch


def _finish(
    options: argparse.Namespace, watch: Bar | Lines | None, work: Callable[[], Report]
) -> int:
    try:
        report = work()
    except dasksolve.BlockErrors as error:
        _show(options, watch, error.report)
        raise
    _show(options, watch, report)
    return FLAGGED if report.flagged_count else 0


def _show(options: argparse.Namespace, watch: Bar | Lines | None, report: Report) -> None:
    """Print the report; the job is done, whether or not anybody reads it."""
    if watch is not None:
        watch.close()
    if options.json or options.json_lines:
        say(json.dumps(report.to_dict()))
    elif not options.quiet:
        say(str(report))


def run_report(options: argparse.Namespace) -> int:
    """Show what there is."""
    file = None if options.html is None else Path(options.html)
    if file is not None and not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} to write {file.name} to")
    if file is not None and file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; name the file to write")
    found = survey(options.out)
    if file is not None:
        file.write_text(page.drawn(found), encoding="utf-8")
    written = None if file is None else str(file.resolve())
    if options.json:
        said = say(json.dumps({**found.to_dict(), "page": written}))
    else:
        said = say(text([*page.summary(found), *([("page", written)] if written else [])]))
    if not said:
        return FAILED
    return 0 if found.all_ok else FLAGGED


def run_demo(options: argparse.Namespace) -> int:
    """Show the whole road."""
    with ExitStack() as stack:
        bars = [_watch(options, what, stack) for what in ("solving", "checking")]
        demo.run(options.size, options.memory, options.keep, *bars)
    return 0


def run_bench(options: argparse.Namespace) -> int:
    """Measure."""
    return (bench_regress if options.regress else bench).run(options)


if __name__ == "__main__":
    sys.exit(main())
