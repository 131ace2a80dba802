"""The command line: `dasksolve solve`, `regress`, `check`, `report`, `demo` and `bench`."""

import argparse
import io
import json
import logging
import os
import shlex
import shutil
import signal
import sys
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import dasksolve
from dasksolve import kernels
from dasksolve.batch.fit import FitOptions
from dasksolve.batch.options import Options
from dasksolve.command import bench, bench_regress, demo, interrupt
from dasksolve.command.arguments import parser
from dasksolve.command.speech import complain, say
from dasksolve.errors import advised, naming
from dasksolve.job import page, room, series
from dasksolve.job.columns import opened
from dasksolve.job.prepare import JobOptions, Prepared, prepare, rehearse
from dasksolve.job.progress import Bar, Lines, on_terminal
from dasksolve.job.report import Report, text
from dasksolve.job.survey import survey
from dasksolve.job.work import Work
from dasksolve.storage import groups, stores

FLAGGED, FAILED, INTERRUPTED = 3, 1, 130


class Terminated(KeyboardInterrupt):
    """SIGTERM or, from a terminal that was closed, SIGHUP: they end a run as Ctrl-C does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # the report of a finished job must not fail
        sys.stdout.reconfigure(errors="backslashreplace")
    top = parser()
    if not words:
        top.exit(2, top.format_help())
    options = top.parse_args(words)
    options.words = words
    if interrupt.importing():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if options.command != "report" and not kernels.has_cache():  # which is found while importing
        complain(f"warning: {kernels.NO_CACHE}")
    with _waiting_is_told(), _signals_and_warnings():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        return RUNS[options.command](options)
    except KeyboardInterrupt as stop:
        exec("")  # else `python -m` ends by the signal where it came while other text was executed
        complain(_how_to_resume(options))
        return 128 + stop.args[0] if isinstance(stop, Terminated) else INTERRUPTED
    except Exception as error:
        if options.debug:
            complain(traceback.format_exc())
        complain(_one_line(error))
        return FAILED


@contextmanager
def _signals_and_warnings() -> Iterator[None]:
    """End at SIGTERM and SIGHUP as at Ctrl-C, and show warnings in a line, until `main` returns."""
    ending = [signal.SIGTERM]
    if os.name != "nt" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        ending.append(signal.SIGHUP)
    before, show = {one: signal.signal(one, _terminate) for one in ending}, warnings.showwarning
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # of its six, one counts
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        warnings.showwarning = show


@contextmanager
def _waiting_is_told() -> Iterator[None]:
    """Show what a cluster warns of while a job waits."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("dasksolve: warning: %(message)s"))
    loggers = [logging.getLogger(f"dasksolve.job.{name}") for name in ("cluster", "waiting")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def _show_warning(message: Warning | str, *_: object) -> None:
    complain(f"warning: {message}")


def _terminate(number: int, *_: object) -> None:
    if number != signal.SIGTERM:  # a shell sends on what the terminal sent: that is no second one
        signal.signal(number, signal.SIG_IGN)
    raise Terminated(number)


def _one_line(error: Exception) -> str:
    expected = (ValueError, OSError, TypeError, NotImplementedError, RuntimeError, ImportError)
    text = advised(str(error))
    return text if text and isinstance(error, expected) else f"{type(error).__name__}: {text}"


def _how_to_resume(options: argparse.Namespace) -> str:
    if options.command not in ("solve", "regress"):
        return "interrupted"
    if options.overwrite and not options.solved:  # what is there may be the old output still
        command = shlex.join(["dasksolve", *options.words])
        return f"interrupted; nothing is solved yet, begin again with: {command}"
    words = [word for word in options.words[1:] if word not in ("--resume", "--overwrite")]
    command = shlex.join(["dasksolve", options.command, "--resume", *words])  # before any "--"
    # Of an output that may not be there yet: --resume begins it then.
    kept = "the blocks that are done are kept" if options.solved else "nothing was solved this time"
    return f"interrupted; {kept}, go on with: {command}"


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
    how = {name: getattr(options, name) for name in series.OPTIONS}
    if how["ridge"] is not None and len(how["ridge"]) == 1:
        (how["ridge"],) = how["ridge"]
    given = options.y, options.design, options.weights
    kind = {"mask_and_scale": options.mask_and_scale, "strict": options.strict}
    return _run_job(
        options,
        "fitting",
        lambda: series.Series.open(*given, FitOptions(**how), **kind),
        partial(dasksolve.regress_zarr, *given[:2], options.out, weights=given[2], **how),
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
        if location.startswith("memory://"):
            raise ValueError(
                f"{location} would be in the memory of this process, which ends with the job; "
                "name a folder, or the URL of a store that stays"
            )
        if options.resume and not options.quiet and groups.is_empty(store):
            complain(f"there is no output at {location} yet: --resume begins one")
        how["client"] = _client(options, stack)
        if options.dry_run:
            prepared = prepare(work, options.out, JobOptions(**how))
            rehearse(prepared)
            return _show_plan(options, prepared)

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


def _show_plan(options: argparse.Namespace, prepared: Prepared) -> int:
    if options.json or options.json_lines:
        said = say(json.dumps(asdict(prepared.plan)))
    else:
        said = say(f"{prepared.scheduler}\n{prepared.plan}\nnothing was written (--dry-run)")
    return 0 if said else FAILED


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
    elif on_terminal() and not options.quiet:
        watch = Bar(what)
    else:
        return None
    stack.callback(watch.close)
    watch.start()
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
    """Print what an output says of itself, or write a page about it."""
    file = None if options.html is None else Path(options.html)
    if file is not None and not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} to write {file.name} to")
    if file is not None and file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; name the file to write")
    found = survey(options.out)
    if file is not None:
        _replace(file, page.drawn(found))
    written = None if file is None else str(file.resolve())
    if options.json:
        said = say(json.dumps({**found.to_dict(), "page": written}))
    else:
        said = say(text([*page.summary(found), *([("page", written)] if written else [])]))
    if not said:
        return FAILED
    return 0 if found.all_ok else FLAGGED


def _replace(file: Path, text: str) -> None:
    """Write a file whole, or leave what was there; what cannot be replaced, as a pipe, in place."""
    how = {"encoding": "utf-8", "errors": "backslashreplace"}
    target = file.resolve()
    beside = target.with_name(f".{uuid.uuid4().hex}.partial")
    ours = not file.exists() or (file.is_file() and os.access(file, os.W_OK))
    with naming(file):
        if ours and os.access(target.parent, os.W_OK):
            try:
                beside.write_text(text, **how)
                if file.exists():
                    shutil.copymode(file, beside)
                beside.replace(target)
                return
            except OSError as error:
                if room.is_lasting(error):  # else it is mounted by itself, or another's in /tmp
                    raise OSError(error.errno, error.strerror) from error
            finally:
                beside.unlink(missing_ok=True)
        file.write_text(text, **how)


def run_demo(options: argparse.Namespace) -> int:
    """Write, solve and check a batch."""
    demo.run(options.size, options.memory, options.keep, progress=not options.quiet)
    return 0


def run_bench(options: argparse.Namespace) -> int:
    """Measure."""
    return (bench_regress if options.regress else bench).run(options)


RUNS = {
    "solve": run_solve,
    "regress": run_regress,
    "check": run_check,
    "report": run_report,
    "demo": run_demo,
    "bench": run_bench,
}


if __name__ == "__main__":
    sys.exit(main())
