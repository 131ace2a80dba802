"""The command line: `dasksolve solve`, `check`, `report`, `demo` and `bench`."""

import argparse
import io
import json
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

import dasksolve
from dasksolve import bench, demo, early, report_page
from dasksolve.prepare import prepare
from dasksolve.problem import ON_SINGULAR, STRUCTURES
from dasksolve.report import Report, text
from dasksolve.survey import survey

FLAGGED, FAILED, INTERRUPTED, TERMINATED = 3, 1, 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


class Bar:
    """The progress bar, shown on a terminal only."""

    def __init__(self, what: str, shown: bool) -> None:
        self.what, self.shown = what, shown
        self.bar: Any = None

    def __call__(self, report: Report) -> None:
        """Show where the job is."""
        if not self.shown:
            return
        if self.bar is None:
            self.bar = tqdm(
                total=report.blocks,
                desc=self.what,
                unit="block",
                dynamic_ncols=True,
                bar_format="{desc} {remaining} left |{bar}| {n_fmt}/{total_fmt} blocks{postfix}",
            )
        flagged = report.flagged_count - report.counts[dasksolve.Status.PENDING]
        rate = (report.bytes_read + report.bytes_written) / report.seconds
        self.bar.set_postfix_str(
            f"{tqdm.format_sizeof(report.solved / report.seconds)} systems/s, "
            f"{tqdm.format_sizeof(rate, 'B')}/s, "
            f"{tqdm.format_sizeof(flagged) if flagged > 999 else flagged} flagged",
            refresh=False,
        )
        self.bar.update(report.blocks_done - self.bar.n)
        if report.blocks_done == report.blocks:
            self.close()

    def close(self) -> None:
        """Leave the bar where it is, and go to a line of its own."""
        if self.bar is not None:
            self.bar.close()
            self.shown, self.bar = False, None


def parser() -> argparse.ArgumentParser:
    """The words that the command line understands."""
    top = argparse.ArgumentParser(
        prog="dasksolve",
        description="Solve huge batches of dense linear systems a[i] x[i] = b[i] stored in zarr.",
        epilog="Exit status: 0 finished, nothing flagged; 3 finished, some systems flagged; "
        "1 failed; 2 usage; 130 interrupted.",
    )
    top.add_argument("--version", action="version", version=f"dasksolve {dasksolve.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(run=run)
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return added

    solve = command("solve", run_solve, "solve a batch, block by block, into a zarr group")
    _inputs(solve, "the zarr group to create")
    solve.add_argument(
        "--assume-a",
        default="gen",
        metavar="W",
        help=f"structure of a, in SciPy's words: {', '.join(STRUCTURES)} (default: gen)",
    )
    solve.add_argument(
        "--lower",
        action="store_true",
        help="read the lower triangle where W is pos, sym or her (default: the upper)",
    )
    solve.add_argument(
        "--on-singular",
        default="nan",
        metavar="W",
        help=f"what becomes of a singular system: {', '.join(ON_SINGULAR)} (default: nan)",
    )
    solve.add_argument(
        "--diagnostics",
        action="store_true",
        help="store rcond and backward error of each system, too",
    )
    solve.add_argument(
        "--refine",
        action="store_true",
        help="refine the answers whose backward error exceeds 4 eps",
    )
    _resources(solve)
    again = solve.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue an interrupted job")
    again.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    solve.add_argument(
        "--no-strict",
        dest="strict",
        action="store_false",
        help="take a chunk that is not stored as the fill value (default: an error)",
    )
    solve.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    _output(solve)

    check = command("check", run_check, "re-read everything and recompute the backward errors")
    _inputs(check, "the zarr group that solve wrote")
    _resources(check)
    _output(check)

    summary = command("report", run_report, "print what an output says of itself")
    summary.add_argument("out", metavar="OUT", help="the zarr group that solve wrote")
    summary.add_argument(
        "--html", metavar="FILE", help="write a page with a map, histograms and the throughput, too"
    )

    show = command("demo", run_demo, "write a batch larger than memory_limit, solve and check it")
    show.add_argument(
        "--size", default="1GiB", metavar="SIZE", help="bytes of a to write (default: 1GiB)"
    )
    show.add_argument(
        "--memory", default="256MiB", metavar="SIZE", help="memory limit (default: 256MiB)"
    )
    show.add_argument("--keep", metavar="DIR", help="write there, and leave it")
    show.add_argument("--quiet", action="store_true", help="no progress bar")

    measure = command("bench", run_bench, "time the kernels against NumPy on this machine")
    bench.add_arguments(measure)
    return top


def _inputs(command: argparse.ArgumentParser, out: str) -> None:
    command.add_argument("a", metavar="A", help="zarr array of matrices (..., N, N): path or URL")
    command.add_argument("b", metavar="B", help="zarr array of right-hand sides")
    command.add_argument("out", metavar="OUT", help=out)


def _resources(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--memory",
        metavar="SIZE",
        help="memory to add to a process, such as 2GiB (default: half of what is free)",
    )
    command.add_argument("--workers", type=int, metavar="N", help="threads (default: all cores)")
    command.add_argument("--scheduler", metavar="ADDRESS", help="of a dask cluster to run on")


def _output(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the report as JSON")
    command.add_argument("--quiet", action="store_true", help="print errors only")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parser().parse_args(words)
    options.words = words
    if isinstance(sys.stdout, io.TextIOWrapper):  # the report of a finished job must not fail
        sys.stdout.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminate)
    if early.importing():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # of its six, one counts
    try:
        return int(options.run(options))
    except KeyboardInterrupt as stop:
        print(f"dasksolve: {_how_to_resume(options)}", file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        print(f"dasksolve: {_one_line(error)}", file=sys.stderr)
        return FAILED


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"dasksolve: warning: {message}", file=sys.stderr)


def _terminate(*_: object) -> None:
    raise Terminated


def _one_line(error: Exception) -> str:
    expected = (ValueError, OSError, TypeError, NotImplementedError, RuntimeError, ImportError)
    text = str(error)
    return text if text and isinstance(error, expected) else f"{type(error).__name__}: {text}"


def _how_to_resume(options: argparse.Namespace) -> str:
    if options.run is not run_solve:
        return "interrupted"
    words = [word for word in options.words if word not in ("--resume", "--overwrite")]
    command = shlex.join(["dasksolve", *words, "--resume"])
    return f"interrupted; the blocks that are done are kept, go on with: {command}"


def _client(options: argparse.Namespace, stack: ExitStack) -> Any:
    if options.scheduler is None:
        return None
    from distributed import Client  # half a second that only a cluster is worth

    try:
        client = Client(options.scheduler, timeout="10s")
    except (OSError, ValueError) as error:  # it does not answer; it is no address
        raise OSError(f"no dask scheduler answers at {options.scheduler}: {error}") from error
    return stack.enter_context(client)


def run_solve(options: argparse.Namespace) -> int:
    """Solve."""
    job = {
        "assume_a": options.assume_a,
        "lower": options.lower,
        "on_singular": options.on_singular,
        "diagnostics": options.diagnostics,
        "refine": options.refine,
        "memory_limit": options.memory,
        "workers": options.workers,
        "resume": options.resume,
        "overwrite": options.overwrite,
    }
    arrays = options.a, options.b, options.out
    with ExitStack() as stack:
        job["client"] = _client(options, stack)
        if options.dry_run:
            prepared = prepare(*arrays, **job)
            if options.json:
                print(json.dumps(asdict(prepared.plan)))
            else:
                print(f"{prepared.scheduler}\n{prepared.plan}\nnothing was written (--dry-run)")
            return 0
        bar = _bar(options, "solving", stack)
        return _finish(
            options,
            bar,
            lambda: dasksolve.solve_zarr(
                *arrays,
                **job,
                strict=options.strict,
                progress=bar,
            ),
        )


def run_check(options: argparse.Namespace) -> int:
    """Check."""
    with ExitStack() as stack:
        client = _client(options, stack)
        bar = _bar(options, "checking", stack)
        return _finish(
            options,
            bar,
            lambda: dasksolve.check_zarr(
                options.a,
                options.b,
                options.out,
                memory_limit=options.memory,
                workers=options.workers,
                client=client,
                progress=bar,
            ),
        )


def _bar(options: argparse.Namespace, what: str, stack: ExitStack) -> Bar:
    terminal = sys.stderr is not None and sys.stderr.isatty()  # None after 2>&-
    bar = Bar(what, shown=terminal and not options.quiet)
    stack.callback(bar.close)
    return bar


def _finish(options: argparse.Namespace, bar: Bar, work: Callable[[], Report]) -> int:
    try:
        report = work()
    except dasksolve.BlockErrors as error:
        bar.close()
        _show(options, error.report)
        raise
    bar.close()
    _show(options, report)
    return FLAGGED if report.flagged_count else 0


def _show(options: argparse.Namespace, report: Report) -> None:
    if options.json:
        print(json.dumps(report.to_dict()))
    elif not options.quiet:
        print(report)


def run_report(options: argparse.Namespace) -> int:
    """Show what there is."""
    page = None if options.html is None else Path(options.html)
    if page is not None and not page.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {page.parent} to write {page.name} to")
    found = survey(options.out)
    print(text(report_page.summary(found)))
    if page is not None:
        page.write_text(report_page.drawn(found), encoding="utf-8")
    return 0 if found.all_ok else FLAGGED


def run_demo(options: argparse.Namespace) -> int:
    """Show the whole road."""
    with ExitStack() as stack:
        bars = [_bar(options, what, stack) for what in ("solving", "checking")]
        demo.run(options.size, options.memory, options.keep, *bars)
    return 0


def run_bench(options: argparse.Namespace) -> int:
    """Measure."""
    return bench.run(options)


if __name__ == "__main__":
    sys.exit(main())
