"""Stops a small job, of systems or of series, at each of its calls that change the disk; a script.

Every job runs in a child of its own, forked from this process, which has no threads, and has the
kernel and all that is imported in memory: a stop costs a tenth of a second. What is printed is
JSON: how often a job was stopped, and where what came of it afterwards was not what an undisturbed
job writes.
"""

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from stored import files

import dasksolve
from dasksolve import regress_zarr, solve_zarr
from dasksolve.job import planning

CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
"""Audit events that change a disk."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def child(work: Callable[[], None]) -> int:
    """Do something in a process of its own; return how it ended."""
    pid = os.fork()
    if pid == 0:
        work()
        sys.stdout.flush()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def stop_at(folder: Path, number: int, sent: signal.Signals) -> None:
    """Send this process a signal just before so many changes of a folder."""
    count = 0

    def changes(event: str, arguments: tuple[Any, ...]) -> bool:
        path = arguments[0] if arguments else None
        within = str(path).startswith(str(folder))
        if event == "open":
            return within and bool(arguments[2] & WRITES)
        return event in CHANGES and (within or not str(path).startswith("/"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if changes(event, arguments):
            count += 1
            if count == number:
                os.kill(os.getpid(), sent)

    sys.addaudithook(hook)


def store(folder: Path, seed: int) -> None:
    """Store three blocks of systems, and of series, in the place of those that are there."""
    rng = np.random.default_rng(seed)
    chunks = {"a": (2, 3, 3), "b": (2, 3), "y": (5, 2)}
    for name, shape in (("a", (6, 3, 3)), ("b", (6, 3)), ("y", (8, 6))):
        values = rng.standard_normal(shape)
        zarr.create_array(folder / name, data=values, chunks=chunks[name], overwrite=True)


def main() -> None:
    """Stop, go on, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("which", choices=["first", "resume", "overwrite"])
    parser.add_argument("--series", action="store_true", help="fit series, do not solve systems")
    parser.add_argument("--step", type=int, default=1, help="at every so many calls")
    parser.add_argument("--first", type=int, default=1, help="the first call to stop at")
    parser.add_argument("--signal", default="SIGKILL")
    options = parser.parse_args()
    sent = signal.Signals[options.signal]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
    # Blocks of one chunk each, however small.
    planning._SMALL, planning._BLOCKS_A_WORKER = 0, 1 << 30
    folder, out = options.folder, options.folder / "out"
    design = np.stack([np.ones(8), np.arange(8)], axis=1)
    if options.series:
        dasksolve.regress(np.ones((8, 6)), design)
    else:
        dasksolve.solve(np.eye(3)[None], np.ones((1, 3)))

    def solve(**how: bool) -> None:
        if options.series:
            regress_zarr(folder / "y", design, out, workers=1, covariance=True, **how)
        else:
            paths = folder / "a", folder / "b", out
            solve_zarr(*paths, workers=1, diagnostics=True, **how)

    def stopped(number: int, **how: bool) -> None:
        stop_at(out, number, sent)
        try:
            solve(**how)
        except KeyboardInterrupt:
            os._exit(-sent)

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if options.which != "first":
            shutil.copytree(folder / "before", out)

    assert child(lambda: store(folder, 0)) == 0
    if options.which == "overwrite":
        assert child(solve) == 0
        out.rename(folder / "before")
        assert child(lambda: store(folder, 1)) == 0
    elif options.which == "resume":
        child(lambda: stopped(40))
        out.rename(folder / "before")
    assert child(solve) == 0
    expected = files(out)
    how = {} if options.which == "first" else {options.which: True}
    before = files(folder / "before") if options.which == "overwrite" else None
    stops, wrong, number = 0, [], options.first
    while True:
        begin()
        if child(partial(stopped, number, **how)) == 0:
            break
        stops += 1
        shutil.rmtree(folder / "left", ignore_errors=True)
        if out.exists():
            shutil.copytree(out, folder / "left")
        left = files(out) if out.exists() else {}
        begun = {name: left[name] for name in left if not name.endswith(".partial")} != before
        for then in ("resume", "overwrite"):
            shutil.rmtree(out, ignore_errors=True)
            if (folder / "left").exists():
                shutil.copytree(folder / "left", out)
            ended = child(partial(solve, **{then: True}))
            # Where an overwriting job has changed nothing yet, the output is whole, and is resumed.
            right = expected if begun or then == "overwrite" else before
            if ended != 0 or files(out) != right:
                wrong.append([number, then, ended])
        number += options.step
    print(json.dumps({"stops": stops, "wrong": wrong}))


if __name__ == "__main__":
    main()
