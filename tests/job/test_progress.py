"""What a person and a program see of a job while it runs: bar, JSON lines, log."""

import json
import logging
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import arguments, on_a_terminal
from dask.utils import key_split
from distributed import Client
from stored import Stored

from dasksolve import BlockErrors, Report, Status, check_zarr, solve_zarr
from dasksolve.cli import main
from dasksolve.job.progress import Bar, Lines


@pytest.mark.usefixtures("many_blocks")
def test_json_lines_end_with_the_report(batch: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", *arguments(batch, "--json-lines")]) == 3
    printed = capsys.readouterr()
    *lines, report = map(json.loads, printed.out.splitlines())
    assert printed.err == ""
    assert lines[0]["event"] == "preparing"
    assert {line["event"] for line in lines[1:]} <= {"preparing", "solving"}
    assert (lines[-1]["blocks_done"], lines[-1]["seconds_left"]) == (10, 0)
    assert (lines[-1]["systems_done"], lines[-1]["flagged_count"]) == (1000, 3)
    assert report["flagged"] == [123, 456, 789]
    assert report["blocks_done"] == 10


@pytest.mark.usefixtures("many_blocks")
def test_json_lines_come_at_most_so_often(batch: Stored) -> None:
    def lines(interval: float) -> int:
        said: list[str] = []
        watch = Lines("solving", said.append, interval)
        solve_zarr(batch.a_path, batch.b_path, batch.out, overwrite=True, progress=watch)
        return len(said)

    assert lines(0) == 10
    assert lines(3600) == 2  # the first block and the last


def test_json_lines_come_also_while_no_block_is_done(batch: Stored) -> None:
    said: list[str] = []
    spoken = threading.Event()
    wanted = 3

    def say(line: str) -> None:
        said.append(line)
        if len(said) == wanted:
            spoken.set()

    watch = Lines("solving", say, interval=0.01)
    watch.start()
    assert spoken.wait(60)
    solve_zarr(batch.a_path, batch.b_path, batch.out, progress=watch)
    wanted = len(said) + 3
    spoken.clear()
    assert spoken.wait(60)
    watch.close()
    at_first, *_, last = map(json.loads, said)
    assert at_first.keys() == {"event", "time", "seconds"}
    assert at_first["event"] == "preparing"
    assert (last["event"], last["systems_done"]) == ("solving", 1000)


@pytest.mark.slow
@pytest.mark.usefixtures("many_blocks")
@pytest.mark.parametrize("words", [["--json-lines"], []], ids=["progress", "report"])
def test_a_reader_that_goes_away_stops_no_job(batch: Stored, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(
        [sys.executable, "-m", "dasksolve.cli", "solve", *arguments(batch, *words)],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert run.returncode == 3
    assert run.stderr == ("dasksolve: warning: standard output cannot be written to: Broken pipe\n")
    assert np.count_nonzero(batch.status == Status.PENDING) == 0


@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param(["solve", "{a}", "{b}", "{out}", "--overwrite"], 3, id="a job is done"),
        pytest.param(["solve", "{a}", "{b}", "{out}2", "--dry-run"], 1, id="a plan is not seen"),
        pytest.param(["report", "{out}"], 1, id="a report is not seen"),
    ],
)
def test_a_full_disk_is_named(
    batch: Stored,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    places = {"a": batch.a_path, "b": batch.b_path, "out": batch.out}
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main([word.format(**places) for word in words]) == status
        monkeypatch.undo()
    assert capfd.readouterr().err == (
        "dasksolve: warning: standard output cannot be written to: No space left on device\n"
    )


def test_true_is_a_bar_only_where_somebody_sees_it(
    batch: Stored, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, progress=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    check_zarr(batch.a_path, batch.b_path, batch.out, progress=True)
    _, first, *_, last = capsys.readouterr().err.strip("\n").split("\r")
    assert first == "checking: preparing (kernels are compiled the first time)"
    assert re.search(r"^checking 00:00 left \|.+\| (\d+)/\1 blocks, .*, 3 flagged$", last)


@pytest.mark.usefixtures("many_blocks")
def test_what_was_done_before_is_not_in_the_speed_of_a_bar(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    Path(batch.out, "status/c/9").unlink()
    reports: list[Report] = []
    solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True, progress=reports.append)
    done = replace(reports[-1], seconds=1, blocks=reports[-1].blocks + 1)  # so that it stays
    bar = Bar("solving")
    bar(done)
    try:
        assert bar.bar.postfix.startswith("100 systems/s, ")
    finally:
        bar.close()


def test_what_is_no_progress_is_refused_before_anything_is_created(batch: Stored) -> None:
    with pytest.raises(TypeError, match="progress='yes' is neither"):
        solve_zarr(batch.a_path, batch.b_path, batch.out, progress="yes")  # type: ignore[arg-type]
    assert not Path(batch.out).exists()


@pytest.mark.usefixtures("many_blocks")
def test_the_log(batch: Stored, caplog: pytest.LogCaptureFixture) -> None:
    chunk = Path(batch.a_path) / "c/6/0/0"
    good = chunk.read_bytes()
    chunk.write_bytes(b"")
    with caplog.at_level(logging.INFO, "dasksolve"):
        with pytest.raises(BlockErrors):
            solve_zarr(batch.a_path, batch.b_path, batch.out, workers=2)
        chunk.write_bytes(good)
        solve_zarr(batch.a_path, batch.b_path, batch.out, workers=2, resume=True)
    own = [record for record in caplog.records if record.name.startswith("dasksolve")]
    said = [(r.levelname, r.getMessage().removeprefix(batch.out)) for r in own]
    expected = [
        ("INFO", r" begun: 2 threads; 1,000 systems in 10 blocks"),
        ("WARNING", r": block 6 \[600:700\]: OSError: cannot read chunk c/6/0/0"),
        ("INFO", r" finished: .*pending 100"),
        ("INFO", r" resumed: "),
        ("INFO", r" finished: .*resumed 9 blocks were done before"),
    ]
    assert len(said) == len(expected)
    for (level, text), (wanted, pattern) in zip(said, expected, strict=True):
        assert level == wanted
        assert re.match(pattern, text)


@pytest.mark.usefixtures("many_blocks", "small_windows")
def test_the_log_counts_windows(batch: Stored, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dasksolve"):
        solve_zarr(batch.a_path, batch.b_path, batch.out)
    counted = re.findall(r": (\d+) of 10 blocks done", caplog.text)
    assert counted == ["2", "4", "6", "8", "10"]


def test_tasks_have_names_that_read_well(batch: Stored, two_processes: Client) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, client=two_processes)
    names = two_processes.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.task_prefixes))
    assert "solve_block" in names
    assert key_split(("solve_block-1a2b3c4d-512-0", 3)) == "solve_block"


@pytest.mark.slow
def test_a_terminal_sees_no_bar_beside_json_lines(batch: Stored) -> None:
    assert on_a_terminal(["solve", *arguments(batch, "--json-lines")]) == ""
