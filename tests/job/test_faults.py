"""What a zarr job survives in its own process: SIGKILL, Ctrl-C, SIGTERM, a memory limit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from stored import Stored, files

from dasksolve import Status, solve_zarr

BLOCKS = 64
SCRIPT = Path(sys.executable).with_name("dasksolve")


def command(stored: Stored, *options: str) -> list[str]:
    paths = [stored.a_path, stored.b_path, stored.out]
    # Eight threads plan for blocks of one chunk: the more blocks, the more moments to die in.
    return [sys.executable, "-m", "dasksolve.cli", "solve", *paths, "--workers", "8", *options]


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
    process = begun([sys.executable, "-c", program, str(left), *words])
    os.waitpid(process.pid, os.WUNTRACED)
    return process


def begun(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def done(chunks: Path) -> int:
    try:
        return sum(not name.endswith(".partial") for name in os.listdir(chunks))
    except FileNotFoundError:
        return 0


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, 10])
def test_a_killed_job_resumes_to_the_same_bits(long: Stored, rounds: int) -> None:
    solve_zarr(long.a_path, long.b_path, long.out, workers=8)
    undisturbed = files(long.out)
    moments = random.Random(rounds)
    for _ in range(rounds):
        shutil.rmtree(long.out)
        process = stopped(long, moments.randrange(1, BLOCKS - 8))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        finished = done(Path(long.out, "status/c"))
        resumed = subprocess.run(
            command(long, "--resume", "--json"), capture_output=True, text=True, check=False
        )
        assert resumed.returncode == 3, resumed.stderr
        report = json.loads(resumed.stdout)
        assert report["blocks"] == report["blocks_done"] == BLOCKS
        assert report["blocks_resumed"] == finished < BLOCKS
        assert report["flagged"] == [77]
        assert files(long.out) == undisturbed  # no *.partial among them


CTRL_C = """
import os, signal, sys

def hook(event, arguments):
    if event == "import" and arguments[0] == {module!r}:
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(hook)
"""
"""What Python imports before all else: it presses Ctrl-C where a module is about to be imported."""


@pytest.mark.parametrize("start", [["-m", "dasksolve"], [str(SCRIPT)]], ids=["-m", "script"])
@pytest.mark.parametrize("module", ["logging", "numba"])
def test_ctrl_c_while_it_imports_is_one_line(start: list[str], module: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CTRL_C.format(module=module))
    paths = filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))
    process = subprocess.Popen(
        [sys.executable, *start, "demo"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "dasksolve: interrupted\n")


@pytest.mark.parametrize(
    "cluster", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["threads", "cluster"]
)
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, id="TERM", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_blocks_in_hand_and_says_how_to_go_on(
    long: Stored, sent: signal.Signals, status: int, request: pytest.FixtureRequest, cluster: bool
) -> None:
    if cluster:
        address = request.getfixturevalue("two_processes").scheduler.address
        process = stopped_beside(address, long, 3)
    else:
        process = stopped(long, 3)
    process.send_signal(sent)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate()
    assert process.returncode == status
    assert "Traceback" not in errors
    assert "interrupted; the blocks that are done are kept, go on with: dasksolve solve" in errors
    assert "--resume" in errors
    statuses = zarr.open_array(long.out + "/status")
    assert 0 < np.count_nonzero(statuses[:] != Status.PENDING) < statuses.size
    assert not list(Path(long.out).rglob("*.partial"))
    report = solve_zarr(long.a_path, long.b_path, long.out, resume=True)
    assert 3 <= report.blocks_resumed < BLOCKS
    assert report.counts[Status.PENDING] == 0
