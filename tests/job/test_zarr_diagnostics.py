"""`solve_zarr(diagnostics=True)`: what is stored beside x, resumed, reported and checked."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from families import same_bits
from stored import Stored, files

import dasksolve
from dasksolve import BlockErrors, Status, check_zarr, cli, solve_zarr
from dasksolve.job.survey import survey


@pytest.fixture
def batch(batch: Stored) -> Stored:
    """The same, with an ill-conditioned system at 800."""
    a = zarr.open_array(batch.a_path)
    a[800] = batch.a[800] = np.diag([1, 1, 1, 1, 1e-18])
    return batch


def test_what_is_stored_is_what_solve_ex_returns(batch: Stored) -> None:
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)
    expected = dasksolve.solve_ex(batch.a, batch.b)
    for name, values in expected._asdict().items():
        assert same_bits(zarr.open_array(f"{batch.out}/{name}", mode="r")[...], values), name
    solved = np.isin(expected.status, (Status.OK, Status.ILL_CONDITIONED))
    assert report.worst_rcond == expected.rcond[solved].min() == pytest.approx(1e-18)
    assert report.worst_backward_error == expected.backward_error[solved].max()
    assert report.counts[Status.ILL_CONDITIONED] == 1
    assert report.flagged == (123, 456, 789, 800)
    with xr.open_zarr(batch.out) as found:
        assert found["rcond"].dims == found["status"].dims == found["x"].dims[:1]


def test_the_worst_are_those_that_rcond_leaves_a_solution(batch: Stored) -> None:
    options = {"on_singular": "lstsq", "diagnostics": True}
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, rcond=1e-10, **options)
    expected = dasksolve.solve_ex(batch.a, batch.b, rcond=1e-10, on_singular="lstsq")
    solved = expected.status == Status.OK
    assert report.worst_rcond == expected.rcond[solved].min() > 1e-10
    assert report.worst_backward_error == expected.backward_error[solved].max() < 1e-14


def test_two_processes_store_the_same_bytes(batch: Stored, two_processes) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)
    there = batch.out + ".cluster"
    solve_zarr(batch.a_path, batch.b_path, there, diagnostics=True, client=two_processes)
    assert {k: v for k, v in files(there).items() if "/c" in k} == {
        k: v for k, v in files(batch.out).items() if "/c" in k
    }


@pytest.mark.usefixtures("many_blocks")
@pytest.mark.parametrize("lost", ["rcond/c/3", "backward_error/c/3", "x/c/3/0", "status/c/3"])
def test_a_block_whose_diagnostics_are_lost_is_solved_again(batch: Stored, lost: str) -> None:
    first = solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)
    before = files(batch.out)
    Path(batch.out, lost).unlink()
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True, resume=True)
    assert report.blocks_resumed == 9
    assert report.worst_rcond == first.worst_rcond
    assert report.worst_backward_error == first.worst_backward_error
    assert files(batch.out) == before


@pytest.mark.parametrize("first", [True, False])
def test_a_job_is_resumed_with_the_diagnostics_that_it_began_with(
    batch: Stored, first: bool
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=first)
    with pytest.raises(ValueError, match=f"options.diagnostics was {first}, is now {not first}"):
        solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=not first, resume=True)


def test_a_structure_has_diagnostics(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True, assume_a="pos")
    expected = dasksolve.solve_ex(batch.a, batch.b, assume_a="pos")
    for name, values in expected._asdict().items():
        assert same_bits(zarr.open_array(f"{batch.out}/{name}", mode="r")[...], values), name
    check_zarr(batch.a_path, batch.b_path, batch.out)


def test_check_reports_the_worst_and_finds_what_was_changed(batch: Stored) -> None:
    first = solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)
    report = check_zarr(batch.a_path, batch.b_path, batch.out)
    assert report.worst_rcond == first.worst_rcond
    assert report.worst_backward_error == pytest.approx(first.worst_backward_error, abs=1e-15)
    for name, value in (("rcond", 1e-20), ("backward_error", 1e-3)):
        array = zarr.open_array(f"{batch.out}/{name}")
        kept, array[17] = array[17], value
        with pytest.raises(BlockErrors, match=rf"{name} of 1 system .* at \(17,\)"):
            check_zarr(batch.a_path, batch.b_path, batch.out)
        array[17] = kept
    check_zarr(batch.a_path, batch.b_path, batch.out)


def test_the_command_line_prints_the_worst(
    batch: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["solve", batch.a_path, batch.b_path, batch.out, "--diagnostics"]) == 3
    assert "worst rcond           1e-18" in capsys.readouterr().out
    assert cli.main(["check", batch.a_path, batch.b_path, batch.out, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["worst_rcond"] == pytest.approx(1e-18)


@pytest.mark.parametrize("lost", ["x", "rcond"])
def test_an_array_that_was_lost_is_named(batch: Stored, lost: str) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)
    shutil.rmtree(Path(batch.out) / lost)
    with pytest.raises(ValueError, match=f"has no array {lost}; resume"):
        check_zarr(batch.a_path, batch.b_path, batch.out)
    if lost == "x":
        with pytest.raises(ValueError, match="has no array x; resume"):
            survey(batch.out)
