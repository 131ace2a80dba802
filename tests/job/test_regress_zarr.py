"""`regress_zarr` writes the bits of `regress`, however y is stored, and refuses what cannot be."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client
from families import same_bits
from numpy.typing import NDArray
from stored import files
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore, MemoryStore
from zarr.testing.store import LatencyStore

import dasksolve
from dasksolve import BlockErrors, Regression, Report, Status, check_zarr
from dasksolve.batch.fit import FitOptions
from dasksolve.job.page import page
from dasksolve.job.planning import block_memory, portions
from dasksolve.job.series import Series

P, N = 40, 3
SHAPE = (P, 12, 20)
TIME = np.linspace(-1, 1, P)
DESIGN = np.stack([np.ones(P), TIME, np.sin(9 * TIME)], axis=1)


def observations(dtype: Any = np.float64) -> NDArray[Any]:
    """Series with gaps, and of every status."""
    rng = np.random.default_rng(0)
    y = 5 + 2 * TIME[:, None, None] + rng.standard_normal(SHAPE)
    y[rng.random(SHAPE) < 0.3] = np.nan
    y[:, 0, 0], y[3, 1, 1] = np.nan, np.inf
    y[:, 2, 2] = np.nan
    y[:2, 2, 2] = 1  # too few
    y[:, 11, 19] = 0
    return y.astype(dtype)


class Stack(NamedTuple):
    """Series, in memory and in zarr."""

    y: NDArray[Any]
    path: Path
    out: Path

    @property
    def found(self) -> Regression:
        """What a job wrote."""
        group = zarr.open_group(self.out, mode="r")
        values = [group[name][...] if name in group else None for name in Regression._fields]
        return Regression._make(values)


@pytest.fixture
def stack(tmp_path: Path) -> Callable[..., Stack]:
    """Store series as zarr."""

    def stored(y: NDArray[Any] | None = None, **how: Any) -> Stack:
        y = observations() if y is None else y
        how = {"chunks": (P, 6, 10), **how}
        zarr.create_array(tmp_path / "y", data=y, config={"write_empty_chunks": True}, **how)
        return Stack(y, tmp_path / "y", tmp_path / "out")

    return stored


def assert_same(found: Regression, wanted: Regression) -> None:
    for name, one, other in zip(Regression._fields, found, wanted, strict=True):
        assert (one is None) == (other is None)
        assert one is None or same_bits(one, other), name


STORED = [
    pytest.param({"chunks": (P, 6, 10)}, id="whole series"),
    pytest.param({"chunks": (1, 12, 20)}, id="one file a time step"),
    pytest.param({"chunks": (7, 5, 9)}, id="chunked every way"),
    pytest.param({"chunks": (10, 3, 5), "shards": (20, 6, 10)}, id="sharded"),
    pytest.param({"chunks": (1, 6, 20), "compressors": BloscCodec()}, id="blosc"),
    pytest.param({"chunks": (8, 12, 7), "compressors": None}, id="no codec"),
    pytest.param({"chunks": (8, 12, 7), "zarr_format": 2, "order": "F"}, id="format 2, F order"),
]


@pytest.mark.parametrize("how", STORED)
@pytest.mark.usefixtures("many_blocks")
def test_the_bits_are_those_of_regress(stack: Callable[..., Stack], how: dict[str, Any]) -> None:
    stored = stack(**how)
    report = dasksolve.regress_zarr(stored.path, DESIGN, stored.out, covariance=True)
    assert_same(stored.found, dasksolve.regress(stored.y, DESIGN, covariance=True))
    assert report.blocks > 1 or how["chunks"][1:] == SHAPE[1:]
    check_zarr(stored.path, DESIGN, stored.out)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.usefixtures("many_blocks")
def test_observations_along_any_axis(stack: Callable[..., Stack], axis: int) -> None:
    y = np.moveaxis(observations(), 0, axis)
    chunks = tuple(7 if n == P else 6 for n in y.shape)
    stored = stack(y, chunks=chunks)
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, axis=axis, covariance=True)
    assert_same(stored.found, dasksolve.regress(y, DESIGN, axis=axis, covariance=True))


def test_an_axis_may_be_an_integer_of_numpy_and_a_design_a_file_of_it(
    stack: Callable[..., Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = stack()
    np.save(tmp_path / "design.npy", DESIGN)
    monkeypatch.setenv("HOME", str(tmp_path))
    for design in ("~/design.npy", f"file://{tmp_path}/design.npy"):
        given = stored.path, design, stored.out
        dasksolve.regress_zarr(*given, axis=np.int64(-3), overwrite=True)
        check_zarr(*given)
    with pytest.raises(ValueError, match=r"design: s3://b/d.npy is far away, .* in a local folder"):
        dasksolve.regress_zarr(stored.path, "s3://b/d.npy", tmp_path / "other")


@pytest.mark.parametrize("dtype", ["f4", ">f8", "i2"])
def test_dtypes_are_those_of_regress(stack: Callable[..., Stack], dtype: str) -> None:
    y = np.nan_to_num(observations(), posinf=0).astype(dtype)
    stored = stack(y, chunks=(5, 6, 20))
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out)
    assert_same(stored.found, dasksolve.regress(y, DESIGN))


@pytest.mark.parametrize("shape", [(P,), (P, 3), (P, 0, 4), (P, 2, 3, 4, 5)])
def test_shapes_of_all_kinds(tmp_path: Path, shape: tuple[int, ...]) -> None:
    y = np.random.default_rng(1).standard_normal(shape)
    zarr.create_array(tmp_path / "y", data=y)
    stored = Stack(y, tmp_path / "y", tmp_path / "out")
    report = dasksolve.regress_zarr(stored.path, DESIGN, stored.out)
    assert_same(stored.found, dasksolve.regress(y, DESIGN))
    assert report.systems == y[0].size
    assert report.unit == "series"


def test_each_status_stands_at_its_place(stack: Callable[..., Stack]) -> None:
    stored = stack()
    design = np.concatenate([DESIGN, DESIGN[:, 1:2] * 2], axis=1)
    report = dasksolve.regress_zarr(stored.path, DESIGN, stored.out)
    status = stored.found.status
    assert status[0, 0] == status[2, 2] == Status.TOO_FEW
    assert status[1, 1] == Status.NONFINITE
    assert np.count_nonzero(status) == report.flagged_count == 3
    assert report.flagged == (0, 21, 42)
    dasksolve.regress_zarr(stored.path, design, stored.out, overwrite=True)
    assert np.count_nonzero(stored.found.status == Status.RANK_DEFICIENT) == 12 * 20 - 3


@pytest.mark.usefixtures("many_blocks")
def test_every_option_is_that_of_regress(stack: Callable[..., Stack], tmp_path: Path) -> None:
    stored = stack(chunks=(9, 6, 20))
    weights = np.random.default_rng(2).uniform(0.1, 2, SHAPE)
    zarr.create_array(tmp_path / "w", data=weights, chunks=(20, 7, 20))
    how = {"ridge": [0, 1e-3, 2], "min_count": 5, "on_deficient": "lstsq", "rcond": 1e-10}
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, weights=tmp_path / "w", **how)
    assert_same(stored.found, dasksolve.regress(stored.y, DESIGN, weights=weights, **how))
    check_zarr(stored.path, DESIGN, stored.out, weights=tmp_path / "w")


@pytest.mark.parametrize("given", ["array", "zarr", "npy"])
def test_weights_of_the_observations(
    stack: Callable[..., Stack], tmp_path: Path, given: str
) -> None:
    stored, weights = stack(), np.linspace(0, 2, P)
    np.save(tmp_path / "w.npy", weights)
    zarr.create_array(tmp_path / "w", data=weights)
    places = {"array": weights, "zarr": tmp_path / "w", "npy": tmp_path / "w.npy"}
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, weights=places[given])
    assert_same(stored.found, dasksolve.regress(stored.y, DESIGN, weights=weights))


def test_what_is_stored_is_read_where_a_loop_runs_as_in_a_notebook(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stored = stack()
    zarr.create_array(tmp_path / "design", data=DESIGN)

    async def called() -> None:
        dasksolve.regress_zarr(stored.path, tmp_path / "design", stored.out)
        await asyncio.sleep(0)
        assert asyncio.get_running_loop().is_running()

    asyncio.run(called())
    assert_same(stored.found, dasksolve.regress(stored.y, DESIGN))


def test_weights_broadcast_along_the_batch(stack: Callable[..., Stack], tmp_path: Path) -> None:
    stored, weights = stack(), np.random.default_rng(2).uniform(0, 2, (P, 12, 1))
    zarr.create_array(tmp_path / "w", data=weights)
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, weights=str(tmp_path / "w"))
    wanted = dasksolve.regress(stored.y, DESIGN, weights=np.broadcast_to(weights, SHAPE))
    assert_same(stored.found, wanted)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_packed_integers_mean_what_xarray_reads(tmp_path: Path, zarr_format: int) -> None:
    y = xr.DataArray(observations().round(2), dims=("time", "y", "x"), name="ndvi")
    y = y.where(np.isfinite(y)).assign_coords(
        time=np.arange(P), y=np.arange(12.0), x=("x", np.arange(20.0), {"units": "m"})
    )
    packed = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -32768, "chunks": (1, 12, 20)}
    y.to_dataset().to_zarr(
        tmp_path / "in", encoding={"ndvi": packed}, zarr_format=zarr_format, consolidated=False
    )
    names = xr.DataArray(DESIGN, dims=("time", "term")).assign_coords(
        term=["mean", "trend", "wave"], time=np.arange(P)
    )
    names.to_dataset(name="design").to_zarr(tmp_path / "design", zarr_format=2, consolidated=False)
    dasksolve.regress_zarr(
        tmp_path / "in/ndvi", tmp_path / "design/design", tmp_path / "out", strict=False
    )
    with (
        xr.open_zarr(tmp_path / "in", consolidated=False) as given,
        xr.open_zarr(tmp_path / "out") as fit,
    ):
        wanted = dasksolve.regress(given.ndvi.values.astype(fit.coef.dtype), DESIGN)
        assert fit.coef.dims == ("term", "y", "x")
        assert fit.status.dims == ("y", "x")
        assert fit.x.attrs == {"units": "m"}
        assert list(fit.term.values) == ["mean", "trend", "wave"]
        assert same_bits(fit.coef.values, wanted.coef)
        assert same_bits(fit.stderr.values, wanted.stderr)
        trend = fit.coef.sel(term="trend", y=3, x=4)
        assert trend == wanted.coef[1, 3, 4]


def test_rows_that_are_at_other_times_are_refused(tmp_path: Path) -> None:
    y = xr.DataArray(np.ones((P, 4)), dims=("time", "x")).assign_coords(time=np.arange(P))
    y.to_dataset(name="y").to_zarr(tmp_path / "in", consolidated=False)
    design = xr.DataArray(DESIGN, dims=("time", "term")).assign_coords(time=np.arange(P) + 1)
    design.to_dataset(name="x").to_zarr(tmp_path / "design", consolidated=False)
    with pytest.raises(ValueError, match="coordinates time that stand beside y and design differ"):
        dasksolve.regress_zarr(tmp_path / "in/y", tmp_path / "design/x", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Going on


def named(path: Path, values: NDArray[Any], **coordinates: Any) -> str:
    """Store an array as xarray does, with dimensions and coordinates of these names."""
    names = ("time", "lat", "lon")[: values.ndim]
    array = xr.DataArray(values, dims=coordinates.pop("dims", names), coords=coordinates)
    array.rename("values").to_dataset().to_zarr(path, zarr_format=2)
    return str(path / "values")


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        pytest.param({"dims": ("time", "lon", "lat")}, "named .*'lon', 'lat'.*order", id="order"),
        pytest.param({"time": np.arange(P)[::-1]}, "coordinates time .* y and weights", id="time"),
        pytest.param({"lat": np.arange(6)[::-1]}, "coordinates lat .* y and weights", id="place"),
    ],
)
def test_weights_that_stand_elsewhere_are_refused(
    tmp_path: Path, stored: dict[str, Any], message: str
) -> None:
    y = named(tmp_path / "y", np.ones((P, 6, 6)), time=np.arange(P), lat=np.arange(6))
    weights = named(tmp_path / "weights", np.ones((P, 6, 6)), **stored)
    with pytest.raises(ValueError, match=message):
        dasksolve.regress_zarr(y, DESIGN, tmp_path / "out", weights=weights)
    assert not (tmp_path / "out").exists()
    fine = named(tmp_path / "fine", np.ones((P, 6, 6)), time=np.arange(P), lat=np.arange(6))
    assert dasksolve.regress_zarr(y, DESIGN, tmp_path / "out", weights=fine).flagged == ()


def test_weights_of_observations_at_other_times_are_refused(tmp_path: Path) -> None:
    y = named(tmp_path / "y", np.ones((P, 6, 6)), time=np.arange(P))
    weights = named(tmp_path / "weights", np.ones(P), time=np.arange(P)[::-1])
    with pytest.raises(ValueError, match=r"coordinates time .* y and weights"):
        dasksolve.regress_zarr(y, DESIGN, tmp_path / "out", weights=weights)


def test_neither_design_nor_weights_are_written_into_or_deleted(tmp_path: Path) -> None:
    first = zarr.create_array(tmp_path / "first", data=np.ones((P, 2)))
    dasksolve.regress_zarr(first, DESIGN, tmp_path / "out")
    second = zarr.create_array(tmp_path / "second", data=np.ones((N, 7)))
    coef = str(tmp_path / "out/coef")
    with pytest.raises(ValueError, match=r"overwriting .* would delete design"):
        dasksolve.regress_zarr(second, coef, tmp_path / "out", overwrite=True)
    weights = zarr.create_array(tmp_path / "weights", data=np.ones(P))
    with pytest.raises(ValueError, match="lies in weights"):
        dasksolve.regress_zarr(first, DESIGN, tmp_path / "weights/out", weights=weights)
    assert zarr.open_array(coef).shape == (N, 2)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("t", "coefficient_2", "x"), ("coefficient_", "coefficient_2", "x")),
        (("t", "status", "coefficient"), ("coefficient_", "status_", "coefficient")),
    ],
)
def test_a_name_that_clashes_is_changed_alone(
    tmp_path: Path, names: tuple[str, ...], found: tuple[str, ...]
) -> None:
    y = zarr.create_array(tmp_path / "y", data=np.ones((P, 4, 5)), dimension_names=names)
    dasksolve.regress_zarr(y, DESIGN, tmp_path / "out", covariance=True)
    with xr.open_zarr(tmp_path / "out") as out:
        assert out.coef.dims == found


@pytest.mark.parametrize(
    ("chunks", "limit", "advice"),
    [
        ((12, 40000, 40000), "1GiB", r"in all\. Raise the limit, or store y .*rechunk\(\((.*)\)\)"),
        ((1, 6, 7), "80MiB", r"in all\. Raise the limit$"),
    ],
)
def test_chunks_are_advised_only_if_they_fit(
    tmp_path: Path, chunks: tuple[int, ...], limit: str, advice: str
) -> None:
    def job(chunks: tuple[int, ...]) -> None:
        y = zarr.create_array(
            tmp_path / "y", shape=(12, *chunks[1:]), chunks=chunks, dtype="f8", overwrite=True
        )
        dasksolve.regress_zarr(y, DESIGN[:12], tmp_path / "out", memory_limit=limit, workers=1)

    with pytest.raises(ValueError, match="is too small") as info:
        job(chunks)
    found = re.search(advice, str(info.value))
    assert found
    for smaller in found.groups():
        with pytest.raises(BlockErrors):  # they fit, and are not stored
            job(tuple(map(int, smaller.split(","))))


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


# What cannot be read


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


REFUSED = [
    pytest.param({"design": DESIGN[:-1]}, "y has 40 observations along axis 0, and design 39"),
    pytest.param({"design": "nowhere.zarr"}, "design: there is no zarr array at"),
    pytest.param({"design": "nowhere.npy"}, "design: there is no file .*nowhere.npy"),
    pytest.param({"weights": np.ones(SHAPE)}, "must be stored in zarr, as y is"),
    pytest.param({"weights": -np.ones(P)}, "weights must not be negative"),
    pytest.param({"on_deficient": "raise"}, "on_deficient='raise' is not one of"),
    pytest.param({"axis": 3}, "axis=3 is not an axis of y"),
    pytest.param({"on_singular": "nan"}, r"regress_zarr\(\) has no keyword 'on_singular'"),
    pytest.param({"covariance": "no"}, "covariance='no' must be True or False"),
]


@pytest.mark.parametrize(("how", "text"), REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_created(
    stack: Callable[..., Stack], how: dict[str, Any], text: str
) -> None:
    stored = stack()
    design = how.pop("design", DESIGN)
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=text):
        dasksolve.regress_zarr(stored.path, design, stored.out, **how)
    assert not stored.out.exists()


# Memory and machines


LONG = 400
ACCUMULATED = {
    "one file a time step": ((1, 64, 64), {}),
    "thirty, with a ridge": ((30, 64, 64), {"on_deficient": "lstsq", "ridge": 0.1}),
    "weights of each": ((4, 64, 64), {"weights": True, "covariance": True}),
    "along another axis": ((12, 64, 64), {"axis": 1}),
}


@pytest.mark.parametrize(
    ("chunks", "how", "dtype"),
    [
        pytest.param(
            chunks,
            how,
            dtype,
            id=f"{name}-{dtype}",
            marks=pytest.mark.slow if dtype == "i2" else [],
        )
        for name, (chunks, how) in ACCUMULATED.items()
        for dtype in ("f8", "i2")
    ],
)
def test_observations_that_do_not_fit_are_read_twice_and_give_the_same_bits(
    tmp_path: Path, chunks: tuple[int, ...], how: dict[str, Any], dtype: str
) -> None:
    rng, how = np.random.default_rng(0), dict(how)
    axis, times = how.get("axis", 0), np.linspace(-1, 1, LONG)
    design = np.stack([np.ones(LONG), times, np.sin(9 * times)], axis=1)
    y = rng.integers(-100, 100, (LONG, 64, 64)).astype(float)
    y[rng.random(y.shape) < 0.3] = -999
    y[:, 0] = -999
    y[3:9, 0, :7], y[5, 0, 9] = rng.integers(1, 100, (6, 7)), 3  # some have few, and one has one
    y[:, 1, 1] = 0
    y = np.moveaxis(y, 0, axis)
    weights = rng.uniform(0, 2, y.shape) if how.pop("weights", None) else None
    order = tuple(np.moveaxis(np.empty(chunks), 0, axis).shape)
    for name, values in (("y", y.astype(dtype)), ("w", weights)):
        if values is not None:
            attributes = {"missing_value": -999} if name == "y" else {}
            zarr.create_array(tmp_path / name, data=values, chunks=order, attributes=attributes)
    stored = Stack(np.where(y == -999, np.nan, y), tmp_path / "y", tmp_path / "out")
    given: dict[str, Any] = {"memory_limit": "104MiB" if dtype == "f8" else "94MiB"}
    if weights is not None:
        given |= {"weights": tmp_path / "w", "memory_limit": "106MiB"}
    report = dasksolve.regress_zarr(stored.path, design, stored.out, **how, **given)
    assert 1.9 < report.read_amplification < 2.3
    wanted = stored.y if dtype == "f8" else stored.y.astype("f4")
    found, wanted = stored.found, dasksolve.regress(wanted, design, weights=weights, **how)
    if how.get("covariance"):  # of series that are fitted with care they are LAPACK's
        np.testing.assert_allclose(found.covariance, wanted.covariance, rtol=1e-6)
    assert_same(found._replace(covariance=None), wanted._replace(covariance=None))
    check_zarr(stored.path, design, stored.out, **given)


@pytest.mark.parametrize("how", [{"chunks": (P, 6, 10)}, {"chunks": (7, 6, 10)}], ids=str)
def test_chunks_of_a_block_are_fitted_one_after_the_other(
    stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    monkeypatch.setattr("dasksolve.job.planning._SMALL", 1 << 10)
    monkeypatch.setattr("dasksolve.job.planning._BLOCKS_A_WORKER", 1)
    stored = stack(**how)
    report = dasksolve.regress_zarr(stored.path, DESIGN, stored.out, covariance=True, workers=1)
    assert report.blocks == 1
    assert_same(stored.found, dasksolve.regress(stored.y, DESIGN, covariance=True))
    check_zarr(stored.path, DESIGN, stored.out)
    series = Series.open(stored.path, DESIGN, None, FitOptions())
    parts = list(portions(series.needs, ((0, 12), (0, 20))))
    assert parts == [((i, i + 6), (j, j + 10)) for i in (0, 6) for j in (0, 10)]
    whole = replace(series.needs, aligned=False)
    assert block_memory(whole, (12, 20)) > block_memory(series.needs, (12, 20))


@pytest.mark.parametrize("compressors", [None, []], ids=["checksums", "no codec"])
def test_a_store_that_keeps_what_it_is_given_gets_memory_of_its_own(
    stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch, compressors: Any
) -> None:
    monkeypatch.setattr("dasksolve.job.planning._SMALL", 1 << 10)
    monkeypatch.setattr("dasksolve.job.planning._BLOCKS_A_WORKER", 2)
    stored, into = stack(chunks=(P, 6, 10)), MemoryStore()
    how = {"covariance": True, "workers": 1, "compressors": compressors}
    report = dasksolve.regress_zarr(stored.path, DESIGN, into, **how)
    assert report.blocks == 2
    found, wanted = zarr.open_group(into), dasksolve.regress(stored.y, DESIGN, covariance=True)
    for name, values in wanted._asdict().items():
        assert same_bits(found[name][...], values), name


def test_on_two_processes(
    stack: Callable[..., Stack], two_processes: Client, many_blocks: None
) -> None:
    stored = stack(chunks=(10, 3, 20))
    report = dasksolve.regress_zarr(stored.path, DESIGN, stored.out, client=two_processes)
    assert_same(stored.found, dasksolve.regress(stored.y, DESIGN))
    assert (report.blocks, report.flagged) == (4, (0, 21, 42))


def test_from_a_store_that_is_waited_for_into_memory(stack: Callable[..., Stack]) -> None:
    stored = stack(chunks=(10, 3, 20))
    far = LatencyStore(LocalStore(stored.path), get_latency=0.001)
    into = MemoryStore()
    report = dasksolve.regress_zarr(zarr.open_array(far, mode="r"), DESIGN, into)
    found = zarr.open_group(into, mode="r")
    wanted = dasksolve.regress(stored.y, DESIGN)
    assert same_bits(found["coef"][...], wanted.coef)
    assert same_bits(found["status"][...], wanted.status)
    assert report.chunks_read >= 16


def test_the_page(stack: Callable[..., Stack]) -> None:
    stored = stack()
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out)
    html = page(stored.out)
    for words in ("40 observations, 3 coefficients, float64", "Flagged series", "237"):
        assert words in html
