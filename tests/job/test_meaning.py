"""A job takes data for what their metadata say: packed numbers, and the names of dimensions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from stored import Stored

from dasksolve import Status, check_zarr, labelled, solve_zarr
from dasksolve.batch.options import Options
from dasksolve.cli import main
from dasksolve.job.planning import block_memory
from dasksolve.job.systems import Systems

PACK = {"dtype": "int16", "scale_factor": 0.001, "_FillValue": -32768}


@pytest.fixture
def dataset() -> xr.Dataset:
    rng = np.random.default_rng(0)
    a = 4 * np.eye(3) + rng.random((50, 3, 3))
    a[7, 1, 1] = np.nan
    variables = {"a": (("t", "row", "col"), a), "b": (("t", "row"), rng.random((50, 3)))}
    return xr.Dataset(variables, coords={"t": np.arange(50) / 2})


@pytest.fixture
def packed(dataset: xr.Dataset, tmp_path: Path, request: pytest.FixtureRequest) -> Stored:
    """As xarray packs them, in format 3 unless the test says otherwise."""
    zarr_format, chunks, shards = getattr(request, "param", (3, 10, None))
    more: dict[str, Any] = {"shards": (shards, 3, 3)} if shards else {}
    a = {**PACK, "add_offset": 4.0, "chunks": (chunks, 3, 3), **more}
    b = {**PACK, "chunks": (chunks, 3)}
    folder = tmp_path / "packed"
    dataset.to_zarr(folder, encoding={"a": a, "b": b}, zarr_format=zarr_format, consolidated=False)
    with xr.open_zarr(folder, consolidated=False) as seen:
        values = seen.a.values, seen.b.values
    return Stored(*values, str(folder / "a"), str(folder / "b"), str(tmp_path / "out"))


@pytest.mark.parametrize(
    "packed",
    [(3, 10, None), (3, 50, None), (3, 7, None), (2, 10, None), (3, 5, 25)],
    ids=["format 3", "one chunk", "odd chunks", "format 2", "shards"],
    indirect=True,
)
def test_packed_numbers_are_solved_as_xarray_reads_them(packed: Stored) -> None:
    report = solve_zarr(packed.a_path, packed.b_path, packed.out)
    with xr.open_zarr(Path(packed.a_path).parent, consolidated=False) as seen:
        right = labelled.solve(seen.a, seen.b).values
    assert np.array_equal(packed.x, right, equal_nan=True)
    assert (report.counts[Status.OK], report.flagged) == (49, (7,))
    assert report.read_amplification == pytest.approx(1, abs=0.13)
    assert check_zarr(packed.a_path, packed.b_path, packed.out).worst_backward_error < 1e-15


def test_raw_numbers_for_who_wants_them(packed: Stored) -> None:
    assert main(["solve", packed.a_path, packed.b_path, packed.out, "--no-mask-and-scale"]) == 0
    a, b = (zarr.open_array(path)[...].astype(float) for path in (packed.a_path, packed.b_path))
    assert np.allclose(np.einsum("mij,mj->mi", a, packed.x), b, rtol=1e-12)
    words = [packed.a_path, packed.b_path, packed.out, "--quiet"]
    assert main(["check", *words, "--no-mask-and-scale"]) == 0
    assert main(["check", *words]) == 1


def test_a_resume_under_other_attributes_is_refused(packed: Stored) -> None:
    solve_zarr(packed.a_path, packed.b_path, packed.out)
    zarr.open_array(packed.a_path).attrs["scale_factor"] = 0.01
    for changed in ({}, {"mask_and_scale": False}):
        with pytest.raises(ValueError, match=r"a\.packing was 'int16, times 0\.001, plus 4\.0, "):
            solve_zarr(packed.a_path, packed.b_path, packed.out, resume=True, **changed)


def test_attributes_that_are_no_numbers_are_refused(batch: Stored) -> None:
    zarr.open_array(batch.a_path).attrs["scale_factor"] = "0.1"
    with pytest.raises(ValueError, match=r"a \(.*\) cannot be decoded: its attribute scale_factor"):
        solve_zarr(batch.a_path, batch.b_path, batch.out)
    assert not Path(batch.out).exists()
    solve_zarr(batch.a_path, batch.b_path, batch.out, mask_and_scale=False)


def test_a_chunk_that_is_not_stored_is_missing_in_what_xarray_wrote(packed: Stored) -> None:
    Path(packed.a_path, "c/2/0/0").unlink()
    zarr.open_array(packed.a_path).attrs.update(_FillValue=0)
    report = solve_zarr(packed.a_path, packed.b_path, packed.out, strict=False)
    assert report.chunks_missing == 1
    assert (packed.status == Status.NONFINITE)[20:30].all()


NAMES = [
    pytest.param(("y", "x", "r", "c"), ("y", "x", "r"), None, id="the same"),
    pytest.param(("y", "x", "r", "c"), ("y", "x", "k"), None, id="another name for the rows"),
    pytest.param(("y", "x", "r", "c"), ("dim_0", "dim_1", "dim_2"), None, id="no names"),
    pytest.param(("y", "x", "r", "c"), None, None, id="none of b"),
    pytest.param(("y", "x", "r", "r"), ("x", "y", "r"), None, id="names that clash"),
    pytest.param(("y", "x", "r", "c"), ("x", "y", "r"), "('y', 'x', 'r')", id="batch"),
    pytest.param(("y", "x", "c", "r"), ("y", "x", "r"), "('y', 'x', 'c')", id="a transposed"),
    pytest.param(("y", "x", "r", "c"), ("y", "t", "r"), "('y', 'x', 'r')", id="another dimension"),
    pytest.param(("y", "x", "r", "c"), ("r", "y", "x"), "('y', 'x', 'r')", id="rows first"),
]


@pytest.mark.parametrize(("a_names", "b_names", "wanted"), NAMES)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_names_decide_which_dimension_is_which(
    tmp_path: Path, zarr_format: int, a_names: Any, b_names: Any, wanted: str | None
) -> None:
    rng = np.random.default_rng(0)
    group = zarr.create_group(tmp_path / "data", zarr_format=zarr_format)
    shapes = {"a": (3, 3, 3, 3), "b": (3, 3, 3)}
    for (name, shape), names in zip(shapes.items(), (a_names, b_names), strict=True):
        given: dict[str, Any] = {"dimension_names": names} if zarr_format == 3 else {}
        array = group.create_array(name, data=rng.random(shape), **given)
        if zarr_format == 2 and names:
            array.attrs["_ARRAY_DIMENSIONS"] = list(names)
    out = tmp_path / "out"
    if wanted is None:
        solve_zarr(group["a"], group["b"], out)
        return
    with pytest.raises(ValueError, match="are named") as refused:
        solve_zarr(group["a"], group["b"], out)
    for part in (f"a are named {a_names}", f"those of b {b_names}", f"b must be {wanted}"):
        assert part in str(refused.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("b", "b_names", "fits"),
    [
        pytest.param((4,), ("r",), True, id="one vector"),
        pytest.param((4,), ("t",), False, id="one vector along the batch"),
        pytest.param((4, 4, 2), ("t", "r", "k"), True, id="matrices"),
        pytest.param((4, 4, 4), ("t", "k", "r"), False, id="matrices transposed"),
        pytest.param((1, 4), ("one", "r"), True, id="one vector of a batch of one"),
        pytest.param((5, 4, 4, 2), ("m", "t", "r", "k"), True, id="more of b"),
        pytest.param((4, 4, 4, 2), ("t", "m", "r", "k"), False, id="more of b, in another place"),
        pytest.param((4, 4, 4, 2), ("c", "t", "r", "k"), False, id="more of b, named as of a"),
    ],
)
def test_names_of_what_broadcasts(tmp_path: Path, b: Any, b_names: Any, fits: bool) -> None:
    rng = np.random.default_rng(0)
    a = zarr.create_array(
        tmp_path / "a", data=rng.random((4, 4, 4)), dimension_names=("t", "r", "c")
    )
    right = zarr.create_array(tmp_path / "b", data=rng.random(b), dimension_names=b_names)
    if fits:
        solve_zarr(a, right, tmp_path / "out")
    else:
        with pytest.raises(ValueError, match="are named"):
            solve_zarr(a, right, tmp_path / "out")


def test_names_of_format_2_are_kept(dataset: xr.Dataset, tmp_path: Path) -> None:
    dataset.to_zarr(tmp_path / "in", zarr_format=2, consolidated=False)
    solve_zarr(tmp_path / "in/a", tmp_path / "in/b", tmp_path / "out")
    with xr.open_zarr(tmp_path / "out") as solved:
        assert solved.x.dims == ("t", "col")


def test_memory_of_packed_numbers_is_planned(packed: Stored) -> None:
    raw, meant = (
        Systems.open(packed.a_path, packed.b_path, Options(), wanted) for wanted in (False, True)
    )
    least, more = (block_memory(v.needs, (10,)) for v in (raw, meant))
    assert more - least >= 10 * (9 + 3) * 8 - 10 * 9 * 2
