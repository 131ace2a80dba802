"""`regress_zarr` writes the bits of `regress`, however y is stored, and refuses what cannot be."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client
from families import same_bits
from seasons import assert_same
from stored import DESIGN, SHAPE, N, P, Stack, observations
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore
from zarr.testing.store import LatencyStore

import dasksolve
from dasksolve import BlockErrors, Status, check_zarr
from dasksolve.batch.fit import FitOptions
from dasksolve.job.page import page
from dasksolve.job.planning import block_memory, portions
from dasksolve.job.series import Series

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


def test_compressors_are_those_of_all_numbers_that_are_not_whole(
    stack: Callable[..., Stack],
) -> None:
    stored = stack()
    how: dict[str, Any] = {"covariance": True, "compressors": [ZstdCodec()]}
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, **how)
    for name in ("coef", "stderr", "rss", "covariance"):
        assert zarr.open_array(stored.out / name).metadata.codecs[1:] == (ZstdCodec(),)


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


def test_answers_of_too_few_observations_that_are_lost_are_found(
    stack: Callable[..., Stack],
) -> None:
    stored = stack()
    how = {"min_count": P + 1, "on_deficient": "lstsq"}
    dasksolve.regress_zarr(stored.path, DESIGN, stored.out, **how)
    coef = zarr.open_array(stored.out / "coef")
    coef[...] = np.nextafter(coef[...], 9)  # another LAPACK may find it so
    check_zarr(stored.path, DESIGN, stored.out)
    coef[:, 0, 0] = np.nan
    with pytest.raises(BlockErrors, match="coef of 1 series is not what it is computed to be"):
        check_zarr(stored.path, DESIGN, stored.out)


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


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "error", "text"),
    [
        ("weights", (P, *SHAPE[2:]), "f8", ValueError, "or .40,., one for each observation"),
        ("weights", SHAPE, "c16", TypeError, "weights have dtype complex128; real"),
        ("design", (P, 1 << 20), "f8", ValueError, "too large for a design .*; y comes first"),
    ],
)
def test_what_is_stored_but_neither_design_nor_weights_is_refused(
    stack: Callable[..., Stack],
    tmp_path: Path,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    error: type[Exception],
    text: str,
) -> None:
    stored = stack()
    zarr.create_array(tmp_path / "given", shape=shape, dtype=dtype)
    given = {"design": DESIGN, name: tmp_path / "given"}
    with pytest.raises(error, match=text):
        dasksolve.regress_zarr(stored.path, out=stored.out, **given)
    assert not stored.out.exists()


@pytest.mark.parametrize("content", [b"", b"1 2 3", b"\x93NUMPY\x01\x00"])
def test_a_file_that_numpy_cannot_read_is_refused_by_its_name(
    stack: Callable[..., Stack], tmp_path: Path, content: bytes
) -> None:
    design = tmp_path / "design.npy"
    design.write_bytes(content)
    stored = stack()
    with pytest.raises(ValueError, match=r"design: .*design\.npy is no array of numbers that"):
        dasksolve.regress_zarr(stored.path, design, stored.out)


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
