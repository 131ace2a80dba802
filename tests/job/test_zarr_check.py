"""`check_zarr`: what it recomputes, and what it finds."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from families import backward_error
from stored import Stored, files

from dasksolve import BlockErrors, Status, check_zarr, solve_zarr


def test_the_worst_backward_error_is_recomputed(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    before = files(batch.out)
    report = check_zarr(batch.a_path, batch.b_path, batch.out)
    solved = batch.status == Status.OK
    expected = np.max(backward_error(batch.a, batch.b[..., None], batch.x[..., None])[solved])
    assert report.worst_backward_error == pytest.approx(expected, rel=0.5)
    assert report.counts[Status.OK] == 997
    assert report.flagged == (123, 456, 789)
    assert files(batch.out) == before


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        pytest.param(17, 1.5, r"x does not solve 1 systems .* at \(17,\)", id="a wrong x"),
        pytest.param(17, np.nan, r"x does not solve 1 systems .* at \(17,\)", id="NaN but OK"),
    ],
)
@pytest.mark.usefixtures("many_blocks")
def test_an_x_that_does_not_solve_its_system_is_found(
    batch: Stored, place: int, value: float, message: str
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    zarr.open_array(batch.out + "/x")[place, 0] = value
    with pytest.raises(BlockErrors, match=message) as info:
        check_zarr(batch.a_path, batch.b_path, batch.out)
    assert [failure.batch_range for failure in info.value.failures] == [((0, 100),)]


@pytest.mark.usefixtures("many_blocks")
def test_blocks_that_are_not_solved_yet_are_found(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    Path(batch.out, "status/c/4").unlink()
    with pytest.raises(BlockErrors, match="100 systems are not solved yet; resume the job"):
        check_zarr(batch.a_path, batch.b_path, batch.out)


@pytest.mark.usefixtures("many_blocks")
def test_a_status_that_there_is_not_is_found(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    zarr.open_array(batch.out + "/status")[[450, 451]] = 77, 127
    with pytest.raises(BlockErrors, match="2 systems are not solved yet; resume the job") as info:
        check_zarr(batch.a_path, batch.b_path, batch.out)
    assert len(info.value.failures) == 1


def test_other_inputs_are_refused(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    with pytest.raises(ValueError, match=r"b\.shape was \[1000, 5\], is now \[1000, 5, 5\]"):
        check_zarr(batch.a_path, batch.a_path, batch.out)


def test_inputs_that_were_moved_are_the_same(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    moved = Path(batch.a_path).rename(batch.a_path + "_moved")
    assert check_zarr(moved, batch.b_path, batch.out).counts[Status.OK] == 997


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        pytest.param("nowhere", FileNotFoundError, "no output at", id="nothing"),
        pytest.param("data.zarr", ValueError, "did not write", id="another group"),
        pytest.param("data.zarr/a", ValueError, "not the output of a job", id="an array"),
    ],
)
def test_what_is_no_output_is_refused(
    batch: Stored, tmp_path: Path, out: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_zarr(batch.a_path, batch.b_path, tmp_path / out)
