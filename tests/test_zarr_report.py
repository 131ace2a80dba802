"""`dasksolve report`: what an output says of itself."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from stored import Stored
from test_cli import arguments

from dasksolve import BlockErrors, Status, solve_zarr
from dasksolve.cli import main
from dasksolve.zarr_report import read_report

pytestmark = pytest.mark.usefixtures("many_blocks")


def test_it_is_the_report_of_the_run(batch: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    done = solve_zarr(batch.a_path, batch.b_path, batch.out)
    assert read_report(batch.out).to_dict() == done.to_dict()
    assert main(["report", batch.out]) == 3
    assert re.search(r"^flagged +123, 456, 789$", capsys.readouterr().out, re.M)
    assert main(["report", batch.out, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["counts"]["SINGULAR"] == 1


def test_runs_are_added_up(batch: Stored) -> None:
    chunk = Path(batch.a_path) / "c/6/0/0"
    good = chunk.read_bytes()
    chunk.write_bytes(b"")
    with pytest.raises(BlockErrors) as info:
        solve_zarr(batch.a_path, batch.b_path, batch.out)
    half = read_report(batch.out)
    assert half.counts[Status.PENDING] == 100
    assert (half.blocks, half.blocks_done) == (10, 9)
    assert half.flagged == (123, 456, 789)
    chunk.write_bytes(good)
    rest = solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    report = read_report(batch.out)
    assert report.bytes_read == info.value.report.bytes_read + rest.bytes_read
    assert report.seconds == pytest.approx(info.value.report.seconds + rest.seconds)
    assert report.blocks_done == 10


def test_what_no_solver_writes_is_not_solved(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    zarr.open_array(batch.out + "/status")[[250, 251]] = 77, -128
    report = read_report(batch.out)
    assert (report.counts[Status.PENDING], report.blocks_done) == (2, 9)


def test_flagged_are_counted_over_a_grid(batch: Stored, tmp_path: Path) -> None:
    a = zarr.create_array(tmp_path / "a", data=batch.a.reshape(20, 50, 5, 5), chunks=(7, 20, 5, 5))
    done = solve_zarr(a, np_array(tmp_path / "b", batch.b.reshape(20, 50, 5)), batch.out)
    assert read_report(batch.out).flagged == done.flagged == (123, 456, 789)


def np_array(path: Path, values: np.ndarray) -> zarr.Array:
    return zarr.create_array(path, data=values)


@pytest.mark.parametrize(
    "record", ["no JSON", "{}", "[1]", '{"seconds": -1}', "[" * 100_000], ids=lambda text: text[:9]
)
def test_a_record_that_is_damaged_is_refused_and_written_anew(batch: Stored, record: str) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    zarr.open_group(batch.out, use_consolidated=False).attrs["dasksolve_runs"] = record
    with pytest.raises(ValueError, match=r"record of the runs of .* is damaged.*--resume"):
        read_report(batch.out)
    solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert read_report(batch.out).seconds > 0


def test_a_status_that_cannot_be_read_is_named(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    Path(batch.out, "status/c/4").write_bytes(b"?")
    with pytest.raises(OSError, match=r"cannot read the status of \[400:500\].*--resume"):
        read_report(batch.out)


def test_a_job_that_was_killed_has_taken_no_time(batch: Stored) -> None:
    code = "import os, sys, dasksolve; dasksolve.solve_zarr(*sys.argv[1:], progress=os._exit)"
    code = code.replace("os._exit", "lambda _: os._exit(9)")
    run = subprocess.run([sys.executable, "-c", code, *arguments(batch)], check=False)
    assert run.returncode == 9
    report = read_report(batch.out)
    assert 1 <= report.blocks_done < 10
    assert (report.seconds, report.bytes_read) == (0, 0)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        pytest.param("nowhere", "there is no output at", id="nothing"),
        pytest.param("data.zarr", "dasksolve did not write", id="another group"),
    ],
)
def test_what_is_no_output_is_one_line(
    batch: Stored, tmp_path: Path, out: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path / out)]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
