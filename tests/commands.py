"""The command line as a program of its own: on a terminal, and stopped in mid-job."""

import os
import pty
import signal
import subprocess
import sys
import termios

from stored import Stored


def arguments(batch: Stored, *more: str) -> list[str]:
    return [batch.a_path, batch.b_path, batch.out, *more]


def on_a_terminal(words: list[str], stdout: bool = False) -> str:
    """Run the command line on a terminal of 80 columns; return what it shows there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "dasksolve.cli", *words],
        stdout=theirs if stdout else subprocess.DEVNULL,
        stderr=theirs,
        env=environment,
    ):
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    return shown.decode()


def command(stored: Stored, *options: str) -> list[str]:
    # Eight threads plan for blocks of one chunk: the more blocks, the more moments to die in.
    words = arguments(stored, "--workers", "8", *options)
    return [sys.executable, "-m", "dasksolve.cli", "solve", *words]


def hear_ctrl_c() -> None:
    """In a background job of a shell it is ignored, by all that the job starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


STOPPED = """
import os, runpy, signal, sys

left = int(sys.argv.pop(1))

def hook(event, arguments):
    global left
    if event == "os.rename" and "/status/c/" in str(arguments[1]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(hook)
runpy.run_module("dasksolve.cli", run_name="__main__", alter_sys=True)
"""
"""The command line, which stops, as by Ctrl-Z, where one more block is about to be done."""


STOPPED_BESIDE = """
import os, runpy, signal, sys
import dasksolve
from dasksolve.job import cluster, planning, run

planning._SMALL, planning._BLOCKS_A_WORKER, planning._together = 0, 1 << 30, lambda *_: 1
run.WINDOW = cluster.WINDOW = 2
left, solve = int(sys.argv.pop(1)), dasksolve.solve_zarr

def stopped(*paths, progress, **options):
    def follow(report):
        progress(report)
        if report.blocks_done == left:
            os.kill(os.getpid(), signal.SIGSTOP)

    return solve(*paths, progress=follow, **options)

dasksolve.solve_zarr = stopped
runpy.run_module("dasksolve.cli", run_name="__main__", alter_sys=True)
"""
"""The same beside a cluster, whose workers have no more than four blocks in hand meanwhile."""


def stopped(stored: Stored, blocks: int) -> subprocess.Popen[str]:
    """Start a job and return once it has stopped with some blocks done."""
    # Eight threads write blocks: the last eight before that moment may not be done either.
    return _stopped(STOPPED, blocks + 8, *command(stored)[3:])


def stopped_beside(address: str, stored: Stored, blocks: int) -> subprocess.Popen[str]:
    """The same on a cluster."""
    return _stopped(STOPPED_BESIDE, blocks, *command(stored, "--scheduler", address)[3:])


def _stopped(program: str, left: int, *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(left), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    os.waitpid(process.pid, os.WUNTRACED)
    return process
