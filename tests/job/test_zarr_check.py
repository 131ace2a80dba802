"""`check_zarr`: what it recomputes, and what it finds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from families import backward_error
from stored import Stored, files
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore, ZipStore
from zarr.testing.store import LatencyStore

from dasksolve import (
    BlockErrors,
    Factorization,
    Status,
    check_zarr,
    factor,
    kernels,
    regress_zarr,
    solve_zarr,
)
from dasksolve.job.survey import survey


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("status", "shape", [7]), ("status", "shape", [1001]), ("x", "shape", [99, 4])],
)
def test_an_output_of_another_shape_is_damaged(
    batch: Stored, name: str, key: str, value: object
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    document = Path(batch.out, name, "zarr.json")
    document.write_text(json.dumps(json.loads(document.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=f"the array {name} of .* is damaged: its {key} is"):
        check_zarr(batch.a_path, batch.b_path, batch.out)
    with pytest.raises(ValueError, match=r"the journal of .* is damaged: its blocks have shape"):
        survey(batch.out)


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        pytest.param(lambda document: {}, "lost or damaged", id="lost"),
        pytest.param(lambda d: d | {"zarr_format": 7}, "zarr_format", id="of another format"),
        pytest.param(lambda d: d | {"node_type": "array"}, "lost or damaged", id="of an array"),
        pytest.param(lambda d: _told(d, shape=[999, 5]), "of x it says", id="another shape"),
        pytest.param(lambda d: _told(d, data_type="int64"), "lost or damaged", id="another dtype"),
        pytest.param(lambda d: _told(d, codecs=[]), "lost or damaged", id="no codecs"),
    ],
)
def test_a_document_by_which_others_would_not_read_the_output_is_found(
    batch: Stored, spoil: Callable[[dict[str, Any]], dict[str, Any]], cause: str
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    document = Path(batch.out, "zarr.json")
    whole = json.loads(document.read_text())
    document.write_text(json.dumps(spoil(json.loads(document.read_text()))))
    if not json.loads(document.read_text()):
        document.unlink()
    with pytest.raises(ValueError, match=rf"group .*{cause}.*resume=True \(--resume\) writes"):
        check_zarr(batch.a_path, batch.b_path, batch.out)
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).systems_resumed == 1000
    there = json.loads(document.read_text())
    assert there["consolidated_metadata"] == whole["consolidated_metadata"]
    check_zarr(batch.a_path, batch.b_path, batch.out)


def _told(document: dict[str, Any], **otherwise: Any) -> dict[str, Any]:
    """The document of a group that says something else of x."""
    document["consolidated_metadata"]["metadata"]["x"] |= otherwise
    return document


def test_notes_that_are_not_consolidated_are_no_damage(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    zarr.open_array(f"{batch.out}/x", mode="r+").attrs["units"] = "m"
    check_zarr(batch.a_path, batch.b_path, batch.out)
    document = Path(batch.out, "zarr.json")
    kept = json.loads(document.read_text())
    document.write_text(json.dumps(kept | {"consolidated_metadata": None}))
    check_zarr(batch.a_path, batch.b_path, batch.out)


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


def packed(folder: str) -> str:
    """A zip archive of what is in a folder."""
    return shutil.make_archive(folder, "zip", folder)


READ_ONLY: dict[str, Callable[[str], Any]] = {
    "an archive": packed,
    "an open archive": lambda out: ZipStore(packed(out), mode="r"),
    "a store": lambda out: LocalStore(out, read_only=True),
    "a group": lambda out: zarr.open_group(out, mode="r"),
}


@pytest.mark.parametrize("opened", READ_ONLY.values(), ids=READ_ONLY)
def test_an_output_that_cannot_be_written_is_read(
    batch: Stored, opened: Callable[[str], Any]
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    out, before = opened(batch.out), files(batch.out)
    assert check_zarr(batch.a_path, batch.b_path, out).flagged == (123, 456, 789)
    assert survey(out).flagged == ((123,), (456,), (789,))
    assert files(batch.out) == before


def test_an_output_within_a_folder_of_an_archive_is_asked_for_at_its_top(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    folder = Path(batch.out)
    archive = shutil.make_archive(batch.out, "zip", folder.parent, folder.name)
    with pytest.raises(
        ValueError, match=r"packed so that its zarr\.json is at the top of the arch"
    ):
        check_zarr(batch.a_path, batch.b_path, archive)


@pytest.mark.parametrize("opened", READ_ONLY.values(), ids=READ_ONLY)
def test_factors_that_cannot_be_written_are_read(
    tmp_path: Path, opened: Callable[[str], Any]
) -> None:
    factor(2 * np.eye(3)).to_zarr(tmp_path / "factors")
    found = Factorization.open(opened(str(tmp_path / "factors")))
    assert found.solve(np.ones(3)).compute().tolist() == [0.5, 0.5, 0.5]


def test_there_is_no_output_in_an_archive_that_is_not_there(batch: Stored, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no output at .*no\.zip"):
        check_zarr(batch.a_path, batch.b_path, tmp_path / "no.zip")
    assert not (tmp_path / "no.zip").exists()
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"bad\.zip is no zip archive \(File is not a zip file\)"):
        check_zarr(batch.a_path, batch.b_path, tmp_path / "bad.zip")


def test_a_single_system_and_a_single_series_are_checked(
    store: Callable[..., Stored], tmp_path: Path
) -> None:
    stored = store(2 * np.eye(3), np.ones(3))
    solve_zarr(stored.a_path, stored.b_path, stored.out, diagnostics=True)
    assert check_zarr(stored.a_path, stored.b_path, stored.out).counts[Status.OK] == 1
    given = stored.b_path, np.ones((3, 1)), tmp_path / "fit"
    regress_zarr(*given)
    assert check_zarr(*given).counts[Status.OK] == 1


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        pytest.param(17, 1.5, r"x does not solve 1 system .* at \(17,\)", id="a wrong x"),
        pytest.param(17, np.nan, r"x does not solve 1 system .* at \(17,\)", id="NaN but OK"),
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


FLIPS = 60


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "status",
        pytest.param("rcond", marks=pytest.mark.slow),
        pytest.param("backward_error", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "checked",
    [
        pytest.param(True, id="checksums", marks=pytest.mark.slow),
        pytest.param(False, id="no checksums"),
    ],
)
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_any_bit_that_flips_is_found(
    store: Callable[..., Stored], name: str, checked: bool
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((24, 3, 3)), rng.standard_normal((24, 3))
    a[3], a[5, 0, 1], b[7, 2] = 1, np.nan, np.inf
    batch = store(a, b, (24, 3, 3), (24, 3))
    solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)
    array = zarr.open_array(f"{batch.out}/{name}")
    if not checked:  # the same numbers, where nothing but them can tell
        values = array[...]
        array = zarr.create_array(
            batch.out, name=name, data=values, chunks=array.chunks, compressors=(), overwrite=True
        )
        zarr.consolidate_metadata(batch.out)
    (chunk,) = (path for path in Path(batch.out, name, "c").rglob("*") if path.is_file())
    sound = chunk.read_bytes()
    check_zarr(batch.a_path, batch.b_path, batch.out)
    missed = []
    for bit in rng.choice(8 * len(sound), min(FLIPS, 8 * len(sound)), replace=False):
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        chunk.write_bytes(flipped)
        try:
            check_zarr(batch.a_path, batch.b_path, batch.out)
        except BlockErrors:
            continue
        missed.append(int(bit))
    assert missed == []


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("assume_a", ["gen", "pos", "tridiagonal"])
@pytest.mark.parametrize("rcond", [None, 1e-3])
@pytest.mark.parametrize("on_singular", ["nan", "lstsq"])
def test_what_was_solved_is_solved_to_the_same_bits(
    store: Callable[..., Stored],
    assume_a: str,
    refine: bool,
    rcond: float | None,
    on_singular: str,
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((40, 5, 5)), rng.standard_normal((40, 5, 2))
    a = a @ a.swapaxes(-1, -2)
    a[3] = 1
    batch = store(a, b)
    paths = batch.a_path, batch.b_path, batch.out
    solve_zarr(*paths, assume_a=assume_a, refine=refine, rcond=rcond, on_singular=on_singular)
    assert check_zarr(*paths).counts[Status.PENDING] == 0


@pytest.mark.parametrize("assume_a", ["gen", "pos"])
def test_damage_to_what_is_left_to_lapack_is_found(
    store: Callable[..., Stored], assume_a: str
) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((10, 4, 2))
    batch = store(a @ a.swapaxes(-1, -2), rng.standard_normal((10, 4, 3)), (10, 4, 4))
    paths, how = (batch.a_path, batch.b_path, batch.out), {"rcond": 1e-9, "on_singular": "lstsq"}
    solve_zarr(*paths, assume_a=assume_a, diagnostics=True, compressors=(), **how)
    x = zarr.open_array(batch.out + "/x")
    whole = x[...]
    x[...] = np.nextafter(whole, 9)  # another LAPACK may find it so
    check_zarr(*paths)
    for wrong in (-whole, np.where(whole == whole[3, 1, 2], np.nan, whole)):
        x[...] = wrong
        with pytest.raises(BlockErrors, match=r"x of 10? systems? is not what it is computed"):
            check_zarr(*paths)
    x[...] = whole
    for name in ("backward_error", "rcond"):
        shutil.rmtree(Path(batch.out, name, "c"))
        with pytest.raises(BlockErrors, match=f"{name} of .* is not what it is computed"):
            check_zarr(*paths)


def test_an_output_of_another_arithmetic_is_compared_within_bounds(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)
    x = zarr.open_array(batch.out + "/x")
    x[17] = np.nextafter(x[17], 9)
    with pytest.raises(BlockErrors, match=r"x of 1 system .* the first at \(17,\)"):
        check_zarr(batch.a_path, batch.b_path, batch.out)
    group = zarr.open_group(batch.out)
    journal = json.loads(group.attrs["dasksolve"])
    assert journal.pop("arithmetic") == kernels.ARITHMETIC
    group.attrs["dasksolve"] = json.dumps(journal)
    with pytest.warns(UserWarning, match="another arithmetic .* within bounds") as caught:
        check_zarr(batch.a_path, batch.b_path, batch.out)
    assert [warning.filename for warning in caught] == [__file__]
    x[17, 0] = 1.5
    with (
        pytest.warns(UserWarning, match="another arithmetic"),
        pytest.raises(BlockErrors, match="x does not solve 1 system"),
    ):
        check_zarr(batch.a_path, batch.b_path, batch.out)


@pytest.mark.usefixtures("many_blocks")
def test_an_output_that_two_arithmetics_wrote_says_so(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    before = files(batch.out)
    solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert files(batch.out) == before
    group = zarr.open_group(batch.out)
    journal = json.loads(group.attrs["dasksolve"])
    group.attrs["dasksolve"] = json.dumps({**journal, "arithmetic": "0"})
    Path(batch.out, "status/c/4").unlink()
    solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    with pytest.warns(UserWarning, match="another arithmetic .several"):
        check_zarr(batch.a_path, batch.b_path, batch.out)


def test_compressed_answers_are_read_beside_inputs_that_are_far_away(tmp_path: Path) -> None:
    y = np.random.default_rng(0).standard_normal((6, 200_000))
    zarr.create_array(tmp_path / "y", data=y, chunks=(6, 50_000))
    far = zarr.open_array(LatencyStore(LocalStore(tmp_path / "y")), mode="r")
    design = np.stack([np.ones(6), np.arange(6)], axis=1)
    regress_zarr(far, design, tmp_path / "out", compressors=[ZstdCodec()])
    assert check_zarr(far, design, tmp_path / "out", workers=2).blocks_done == 4


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
