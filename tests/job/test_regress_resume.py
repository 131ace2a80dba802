"""A regression that stopped goes on, another does not, and what is damaged is found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from seasons import assert_same
from stored import DESIGN, SHAPE, P, Stack, files

import dasksolve
from dasksolve import BlockErrors, Report, Status, check_zarr


def test_what_is_damaged_is_named(stack: Callable[..., Stack]) -> None:
    stored = stack()
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out)
    chunk = next(path for path in (stored.out / "stderr/c").rglob("*") if path.is_file())
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(BlockErrors, match=r"cannot read stderr of the output: .*resume=True"):
        check_zarr(stored.path, DESIGN, stored.out)
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, resume=True)
    assert chunk.read_bytes() == content


@pytest.mark.usefixtures("many_blocks")
def test_a_job_that_stopped_goes_on_to_the_same_bytes(stack: Callable[..., Stack]) -> None:
    stored = stack(chunks=(P, 3, 20))

    def stop(report: Report) -> None:
        if report.blocks_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dasksolve.regress_zarr(stored.path, DESIGN, stored.out, progress=stop, workers=1)
    report = dasksolve.regress_zarr(stored.path, DESIGN, stored.out, resume=True)
    assert 2 <= report.blocks_resumed < report.blocks == 4
    resumed = files(stored.out)
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, overwrite=True)
    assert files(stored.out) == resumed


@pytest.mark.usefixtures("many_blocks")
def test_a_chunk_without_checksum_is_known_again(stack: Callable[..., Stack]) -> None:
    stored = stack(chunks=(P, 6, 20))
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, compressors=())
    chunk = stored.out / "stderr/c/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(BlockErrors, match="stderr of 1 series is not what it is computed to be"):
        check_zarr(stored.path, DESIGN, stored.out)
    report = dasksolve.regress_zarr(stored.path, DESIGN, stored.out, resume=True)
    assert (report.blocks, report.blocks_resumed) == (2, 1)
    assert_same(stored.found, dasksolve.regress(stored.y, DESIGN))


CHANGES = [
    pytest.param({"ridge": 1.0}, r"options\.ridge was \[0\.0, 0\.0, 0\.0\], is now", id="ridge"),
    pytest.param(
        {"weights": np.ones(P) / 2},
        r"of weights are not .* had\. Give the inp",
        id="weights",
    ),
    pytest.param({"design": DESIGN * 2}, r"of design are not .* had\.", id="design"),
    pytest.param({"covariance": True}, r"options\.covariance was False, is now True", id="fields"),
    pytest.param({"min_count": 9}, r"options\.min_count was 3, is now 9", id="min_count"),
]


@pytest.mark.parametrize(("change", "named"), CHANGES)
def test_another_fit_is_not_gone_on_with(
    stack: Callable[..., Stack], change: dict[str, Any], named: str
) -> None:
    stored = stack()
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out)
    before = files(stored.out)
    design = change.pop("design", DESIGN)
    with pytest.raises(ValueError, match=named):
        dasksolve.regress_zarr(stored.path, design, stored.out, resume=True, **change)
    assert files(stored.out) == before
    assert dasksolve.regress_zarr(stored.path, DESIGN.tolist(), stored.out, resume=True).blocks
    with pytest.raises(ValueError, match=r"numbers of design .*\. Give .*, and its weights if it"):
        check_zarr(stored.path, DESIGN[:, :2], stored.out)


def test_what_nobody_gave_is_not_said_to_have_changed(stack: Callable[..., Stack]) -> None:
    stored = stack()
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out)
    longer = np.concatenate([stored.y, stored.y[:5]])
    zarr.create_array(stored.path, data=longer, chunks=(P, 4, 5), overwrite=True)
    with pytest.raises(ValueError, match=r"y\.shape was .*design\.shape was ") as refused:
        dasksolve.regress_zarr(
            stored.path, np.concatenate([DESIGN, DESIGN[:5]]), stored.out, resume=True
        )
    assert "weights" not in str(refused.value)


def test_the_file_that_weights_came_from_is_named(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stored = stack()
    np.save(tmp_path / "w.npy", np.arange(1.0, P + 1))
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, weights=tmp_path / "w.npy")
    with pytest.raises(ValueError, match=r"numbers of weights are not those .*, from .*w\.npy\."):
        check_zarr(stored.path, DESIGN, stored.out)


def test_weights_of_another_kind_than_a_job_had_are_called_so(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stored = stack()
    weights = zarr.create_array(tmp_path / "w", data=np.ones(SHAPE), chunks=(20, 7, 20))
    every, each = r"one for each number in y \(.*\)", "one for each observation, or none"
    for first, second, change in ((weights, None, (every, each)), (None, weights, (each, every))):
        dasksolve.regress_zarr(stored.path, DESIGN, stored.out, weights=first, overwrite=True)
        message = r"is of another job: weights were {}, are now {}\. Give".format(*change)
        with pytest.raises(ValueError, match=message):
            check_zarr(stored.path, DESIGN, stored.out, weights=second)
        with pytest.raises(ValueError, match=message):
            dasksolve.regress_zarr(stored.path, DESIGN, stored.out, weights=second, resume=True)


def test_the_name_of_a_file_is_not_taken_for_what_has_changed(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stored, design = stack(), tmp_path / "y.location was here.npy"
    np.save(design, DESIGN)
    dasksolve.regress_zarr(stored.path, design, stored.out)
    np.save(design, 2 * DESIGN)
    with pytest.raises(ValueError, match="numbers of design are not those") as refused:
        dasksolve.regress_zarr(stored.path, design, stored.out, resume=True)
    assert "moved" not in str(refused.value)


def test_what_solves_systems_is_no_regression(stack: Callable[..., Stack], tmp_path: Path) -> None:
    stored = stack()
    for name, values in (("a", np.eye(2)[None]), ("b", np.ones((1, 2)))):
        zarr.create_array(tmp_path / name, data=values)
    dasksolve.solve_zarr(tmp_path / "a", tmp_path / "b", stored.out)
    with pytest.raises(ValueError, match="holds solutions of systems, not regressions"):
        dasksolve.regress_zarr(stored.path, DESIGN, stored.out, resume=True)
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, overwrite=True)
    assert not (stored.out / "x").exists()
    with pytest.raises(ValueError, match="holds regressions, not solutions of systems"):
        dasksolve.solve_zarr(tmp_path / "a", tmp_path / "b", stored.out, resume=True)


@pytest.mark.usefixtures("many_blocks")
def test_a_chunk_that_is_not_there_is_named(stack: Callable[..., Stack]) -> None:
    stored = stack(chunks=(10, 6, 20), fill_value=np.nan)
    (stored.path / "c/2/1/0").unlink()
    with pytest.raises(BlockErrors, match=r"chunk c/2/1/0 of y .* is not stored") as failed:
        dasksolve.regress_zarr(stored.path, DESIGN, stored.out)
    assert failed.value.report.blocks_done == 1
    report = dasksolve.regress_zarr(stored.path, DESIGN, stored.out, resume=True, strict=False)
    assert (report.chunks_missing, report.blocks_resumed) == (1, 1)
    y = stored.y.copy()
    y[20:30, 6:] = np.nan
    assert_same(stored.found, dasksolve.regress(y, DESIGN))


@pytest.mark.usefixtures("many_blocks")
def test_a_damaged_chunk_fails_its_own_block_alone(stack: Callable[..., Stack]) -> None:
    stored = stack(chunks=(10, 6, 20))
    chunk = stored.path / "c/3/0/0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:30])
    with pytest.raises(BlockErrors, match=r"cannot read chunk c/3/0/0 of y"):
        dasksolve.regress_zarr(stored.path, DESIGN, stored.out)
    assert (stored.found.status[:6] == Status.PENDING).all()
    chunk.write_bytes(content)
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, resume=True)
    assert_same(stored.found, dasksolve.regress(stored.y, DESIGN))


@pytest.mark.parametrize("name", ["coef", "stderr", "rss", "count", "rcond", "status"])
def test_one_bit_that_changed_is_found(stack: Callable[..., Stack], name: str) -> None:
    stored = stack()
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out)
    array = zarr.open_array(stored.out / name)
    values = array[...]
    values.view(f"u{values.itemsize}")[..., 5, 7] ^= 1
    array[...] = values
    with pytest.raises(BlockErrors, match=f"{name} of 1 series is not what it is computed to be"):
        check_zarr(stored.path, DESIGN, stored.out)


def test_what_another_arithmetic_wrote_is_compared_within_bounds(
    stack: Callable[..., Stack],
) -> None:
    stored = stack()
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out)
    group = zarr.open_group(stored.out)
    record = json.loads(group.attrs["dasksolve"])
    group.attrs["dasksolve"] = json.dumps({**record, "arithmetic": "0"})
    coef = zarr.open_array(stored.out / "coef")
    coef[...] *= 1 + 1e-9
    with pytest.warns(UserWarning, match="within bounds"):
        check_zarr(stored.path, DESIGN, stored.out)
    coef[1, 5, 7] *= 1.1
    with (
        pytest.warns(UserWarning, match="within bounds"),
        pytest.raises(BlockErrors, match=r"coef of 1 series .* the first at \(5, 7\)"),
    ):
        check_zarr(stored.path, DESIGN, stored.out)
