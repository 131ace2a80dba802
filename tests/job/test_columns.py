"""One matrix for many right-hand sides in zarr: the columns of b are the batch."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from dasksolve import BlockErrors, Report, Status, check_zarr, solve, solve_ex, solve_zarr
from dasksolve.cli import main

K = 1000


def stored(folder: Path, a: np.ndarray, b: np.ndarray, chunks: tuple[int, int]) -> tuple[str, ...]:
    group = zarr.create_group(folder / "in.zarr")
    group.create_array("a", data=a, dimension_names=("row", "col"))
    group.create_array("b", data=b, chunks=chunks, dimension_names=("row", "pixel"))
    group.create_array("pixel", data=np.arange(b.shape[1]), dimension_names=("pixel",))
    return str(folder / "in.zarr/a"), str(folder / "in.zarr/b"), str(folder / "out.zarr")


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((3, 3)), rng.standard_normal((3, K))


@pytest.mark.usefixtures("many_blocks")
@pytest.mark.parametrize("diagnostics", [False, True])
@pytest.mark.parametrize("chunks", [(3, 100), (2, 70), (3, K)])
def test_each_column_is_a_system(tmp_path, numbers, chunks, diagnostics):
    a, b = numbers
    b[1, 17], b[0, 999] = np.nan, np.inf
    paths = stored(tmp_path, a, b, chunks)
    report = solve_zarr(*paths, diagnostics=diagnostics)
    assert report.flagged == (17, 999)
    alone = solve_ex(a[None], b.T)
    with xr.open_zarr(paths[-1]) as out:
        assert out.x.dims == ("col", "pixel")
        assert out.status.dims == ("pixel",)
        np.testing.assert_array_equal(out.pixel, np.arange(K))
        np.testing.assert_array_equal(out.x, alone.x.T)
        np.testing.assert_array_equal(out.x, solve(a, b))
        np.testing.assert_array_equal(out.status, alone.status)
        if diagnostics:
            np.testing.assert_array_equal(out.rcond, alone.rcond)
            np.testing.assert_array_equal(out.backward_error, alone.backward_error)


@pytest.mark.usefixtures("many_blocks")
def test_a_batch_of_columns_is_resumed_checked_and_reported(tmp_path, numbers, capsys):
    paths = stored(tmp_path, *numbers, (3, 100))
    first: list[Report] = []

    def stop(report: Report) -> None:
        first.append(report)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_zarr(*paths, workers=1, progress=stop)
    resumed = solve_zarr(*paths, resume=True)
    assert resumed.blocks_resumed >= 1
    assert resumed.counts[Status.OK] == K
    assert check_zarr(*paths).counts[Status.OK] == K
    assert main(["report", paths[-1]]) == 0
    assert "order 3, one matrix for all" in capsys.readouterr().out
    x = zarr.open_array(paths[-1] + "/x")
    x[2, 321] += 1e-12
    with pytest.raises(BlockErrors, match=r"x of 1 system is not what .* \(321,\)"):
        check_zarr(*paths)


@pytest.mark.parametrize("on_singular", ["nan", "lstsq", "raise"])
def test_a_singular_matrix_and_a_column_that_is_not_finite(tmp_path, numbers, on_singular):
    a, b = numbers
    a[2], b[0, 5] = 0, np.nan
    paths = stored(tmp_path, a, b, (3, 100))
    if on_singular == "raise":
        with pytest.raises(np.linalg.LinAlgError, match=r"999 systems .* are singular"):
            solve_zarr(*paths, on_singular=on_singular)
        return
    report = solve_zarr(*paths, on_singular=on_singular)
    assert report.counts == {**report.counts, Status.SINGULAR: K - 1, Status.NONFINITE: 1}
    expected = solve_ex(a[None], b.T, on_singular=on_singular).x.T
    np.testing.assert_array_equal(zarr.open_array(paths[-1] + "/x")[...], expected)


def test_a_column_that_overflows_is_told_apart(tmp_path):
    a, b = 2.0**-900 * np.eye(2), np.ones((2, 50))
    b[:, 7] = 2.0**900
    paths = stored(tmp_path, a, b, (2, 10))
    assert solve_zarr(*paths).flagged == (7,)
    np.testing.assert_array_equal(zarr.open_array(paths[-1] + "/x")[:, 8], [2.0**900, 2.0**900])


def test_a_column_that_is_not_finite_has_the_bits_that_it_has_in_memory(tmp_path, numbers):
    a, b = (values.astype(complex) for values in numbers)
    b[1, 17] = np.nan
    paths = stored(tmp_path, a, b, (3, 100))
    solve_zarr(*paths)
    found = zarr.open_array(paths[-1] + "/x")[...]
    assert found[:, 17].tobytes() == solve(a[None], b.T, on_singular="nan")[17].tobytes()
