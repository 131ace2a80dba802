"""What a zarr job survives in its own process: SIGKILL, Ctrl-C, SIGTERM, SIGHUP, a memory limit."""

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
from commands import command, hear_ctrl_c, stopped, stopped_beside
from stored import Stored, files

from dasksolve import Status, solve_zarr
from dasksolve.job.survey import survey

BLOCKS = 64
SCRIPT = Path(sys.executable).with_name("dasksolve")


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
        pytest.param(signal.SIGHUP, 129, id="HUP", marks=pytest.mark.slow),
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


@pytest.mark.parametrize("finished", [-7, 3], ids=["none", "some"])
def test_what_is_done_after_a_signal_is_in_the_history(long: Stored, finished: int) -> None:
    process = stopped(long, finished)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    process.communicate()
    assert process.returncode == 130
    [run] = survey(long.out).runs
    assert run["samples"][-1][1] == np.count_nonzero(long.status != Status.PENDING)
