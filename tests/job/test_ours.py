"""What of an output is the job's own: nothing else is deleted, and what is lost is noticed."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from families import same_bits
from stored import Stored, files
from zarr.storage import LocalStore, MemoryStore
from zarr.testing.store import LatencyStore

import dasksolve
from dasksolve import Report, check_zarr, solve_zarr

ZARR_WARNS = pytest.mark.filterwarnings("ignore:Consolidated metadata")  # when xarray writes


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}], ids=str)
def test_a_job_that_is_refused_leaves_no_folder(
    store: Callable[..., Stored], how: dict[str, bool]
) -> None:
    wrong = store(np.ones((4, 2, 2)), np.ones((4, 3)), (2, 2, 2), (2, 3))
    with pytest.raises(ValueError, match="has N = 3 where a has 2"):
        solve_zarr(wrong.a_path, wrong.b_path, wrong.out, **how)
    assert not Path(wrong.out).exists()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("place", ["new", "c/new/er"])
def test_no_output_is_written_into_an_array(
    batch: Stored, tmp_path: Path, zarr_format: int, place: str
) -> None:
    zarr.create_array(tmp_path / "other", data=batch.b, zarr_format=zarr_format)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"other/{place} lies in .*/other, which is a zarr array"):
        solve_zarr(batch.a_path, batch.b_path, tmp_path / "other" / place)
    assert files(tmp_path) == before


def test_an_array_that_somebody_put_into_the_output_is_not_overwritten(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    zarr.create_array(batch.out + "/lat", data=np.arange(1000.0))
    before = files(batch.out)
    with pytest.raises(ValueError, match=r"out\.zarr holds lat, which the job did not write"):
        solve_zarr(batch.a_path, batch.b_path, batch.out, overwrite=True)
    assert files(batch.out) == before
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed


@ZARR_WARNS
def test_a_dataset_that_was_made_from_the_output_is_not_overwritten(
    batch: Stored, tmp_path: Path
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    derived = xr.open_zarr(batch.out)[["status"]].assign(mine=("batch", np.arange(1000.0)))
    derived.to_zarr(tmp_path / "derived")  # with the attributes of the output
    before = files(tmp_path / "derived")
    with pytest.raises(ValueError, match="holds mine, which"):
        solve_zarr(batch.a_path, batch.b_path, tmp_path / "derived", overwrite=True)
    assert files(tmp_path / "derived") == before


def test_a_copy_of_an_array_of_an_output_is_not_overwritten(batch: Stored, tmp_path: Path) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    shutil.copytree(Path(batch.out, "x"), tmp_path / "kept" / "x")
    before = files(tmp_path / "kept")
    with pytest.raises(ValueError, match="is not the output of a job"):
        solve_zarr(batch.a_path, batch.b_path, tmp_path / "kept", overwrite=True)
    assert files(tmp_path / "kept") == before


@pytest.mark.parametrize("place", ["notes.txt", "x/notes.txt", "status/c.txt"])
def test_a_file_in_the_output_outlives_it(batch: Stored, place: str) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)
    note = Path(batch.out, place)
    note.write_text("mine")
    solve_zarr(batch.a_path, batch.b_path, batch.out, overwrite=True)
    assert note.read_text() == "mine"
    assert sorted(p.name for p in Path(batch.out).iterdir() if p != note) == [
        "status",
        "x",
        "zarr.json",
    ]


@pytest.mark.parametrize("place", ["lat", "deep/er"])
def test_what_somebody_is_writing_into_the_output_is_not_swept(batch: Stored, place: str) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    theirs, ours = (
        Path(batch.out, name, f"zarr.json.{'0f' * 16}.partial") for name in (place, "x")
    )
    theirs.parent.mkdir(parents=True)
    for file in (theirs, ours):
        file.write_text("{")
    solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert (theirs.exists(), ours.exists()) == (True, False)


def _file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("mine")


def _link(path: Path) -> None:
    elsewhere = path.parents[2] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("place", "put"), [("x/c", _file), ("x/c", _link), ("x", _file), ("x/zarr.json", _folder)]
)
def test_what_stands_in_the_place_of_a_folder_is_not_overwritten(
    batch: Stored, place: str, put: Callable[[Path], None]
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    put(Path(batch.out, place))
    before = files(batch.out)
    with pytest.raises(ValueError, match=f"{place} is not what the job wrote.*choose another"):
        solve_zarr(batch.a_path, batch.b_path, batch.out, overwrite=True)
    assert files(batch.out) == before


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("compressors", [None, []], ids=["checksums within", "beside"])
def test_what_a_job_of_one_system_wrote_is_overwritten(
    batch: Stored, far: bool, compressors: Any
) -> None:
    single = zarr.create_group(Path(batch.a_path).parent / "single")
    a, b = (
        single.create_array(n, data=values[0]) for n, values in zip("ab", batch[:2], strict=True)
    )
    out = LatencyStore(LocalStore(batch.out)) if far else batch.out
    options = {"compressors": compressors, "on_singular": "nan"}
    for paths in ((a, b), (a, b), (batch.a_path, batch.b_path), (a, b)):
        assert solve_zarr(*paths, out, overwrite=True, **options).blocks_resumed == 0
        again = solve_zarr(*paths, out, resume=True, **options)
        assert again.blocks_resumed == again.blocks
    assert same_bits(batch.x, dasksolve.solve(batch.a[0], batch.b[0]))
    Path(batch.out, "status/c").unlink()
    Path(batch.out, "status/c").mkdir()
    with pytest.raises(ValueError, match="status/c is not what the job wrote"):
        solve_zarr(a, b, batch.out, overwrite=True)


def _without_the_rights_of_root() -> None:
    prctl = ctypes.CDLL(None).prctl
    for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: from the next exec on
        prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP


def report_without_the_rights_of_root(folder: Path, *options: str) -> Any:
    """What the command ends with in a folder, of the output there."""
    words = ["report", "out", *options]
    script = f"import sys; from dasksolve.cli import main; sys.exit(main({words}))"
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        preexec_fn=_without_the_rights_of_root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="rights of Linux")
@pytest.mark.slow
@pytest.mark.parametrize("place", ["", "x"])
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, place: str
) -> None:
    folder = tmp_path / "out" / place
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    folder.chmod(0o300)
    ended = report_without_the_rights_of_root(tmp_path)
    folder.chmod(0o700)
    assert ended.returncode == 1
    assert f"Permission denied: '{folder}'" in ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="rights of Linux")
@pytest.mark.slow
def test_a_page_that_may_not_be_written_to_is_not_replaced(batch: Stored, tmp_path: Path) -> None:
    solve_zarr(batch.a_path, batch.b_path, tmp_path / "out")
    page = tmp_path / "page.html"
    page.write_text("an older one")
    page.chmod(0o400)
    ended = report_without_the_rights_of_root(tmp_path, "--html", "page.html")
    assert ended.returncode == 1
    assert "Permission denied: 'page.html'" in ended.stderr
    assert page.read_text() == "an older one"


def test_two_colons_in_a_path_are_part_of_a_name(batch: Stored, tmp_path: Path) -> None:
    solve_zarr(batch.a_path, batch.b_path, tmp_path / "run")
    before = files(tmp_path / "run")
    for out in (tmp_path / "run::2", f"{tmp_path}/run::3"):
        solve_zarr(batch.a_path, batch.b_path, out)
        assert files(out) == before
    assert files(tmp_path / "run") == before


def test_a_path_is_what_an_object_says_and_a_tilde_what_there_is(
    batch: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    [a] = [entry for entry in os.scandir(tmp_path / "data.zarr") if entry.name == "a"]
    solve_zarr(a, "~/data.zarr/b", "~no-user")  # str of an os.DirEntry is not its path
    [out] = [entry for entry in os.scandir(tmp_path) if entry.name == "~no-user"]
    solve_zarr(batch.a_path, batch.b_path, out, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["data.zarr", "~no-user"]


@pytest.mark.parametrize("given", [Path, str])
def test_a_url_that_lost_a_slash_is_refused(
    batch: Stored, tmp_path: Path, given: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"lost a slash.*give it as text: s3://bucket/out\.zarr"):
        solve_zarr(batch.a_path, batch.b_path, given("s3:/bucket/out.zarr"))
    assert not Path("s3:").exists()


LOSSES: dict[str, Callable[[Path], object]] = {
    "empty": lambda document: document.write_bytes(b""),
    "half": lambda document: document.write_bytes(document.read_bytes()[:900]),
    "gone": lambda document: document.unlink(),
}


@pytest.mark.parametrize("option", ["resume", "overwrite"])
@pytest.mark.parametrize("member", ["", "x", "status"])
@pytest.mark.parametrize("loss", LOSSES)
def test_metadata_that_are_lost_are_written_again(
    batch: Stored, loss: str, member: str, option: str
) -> None:
    codec = zarr.codecs.ZstdCodec(checksum=True)
    solve_zarr(batch.a_path, batch.b_path, batch.out, compressors=[codec])
    before = files(batch.out)
    LOSSES[loss](Path(batch.out, member, "zarr.json"))
    options = {"compressors": [codec]} if option == "overwrite" else {}
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, **{option: True}, **options)
    assert report.blocks_resumed == (report.blocks if option == "resume" else 0)
    assert files(batch.out) == before


@ZARR_WARNS
def test_what_xarray_appends_does_not_orphan_an_output(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    added = xr.Dataset(coords={"batch": np.arange(1000)})
    added.to_zarr(batch.out, mode="a")  # writes the attributes of the group anew
    assert "dasksolve" not in zarr.open_group(batch.out).attrs
    assert check_zarr(batch.a_path, batch.b_path, batch.out).blocks_done
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert report.blocks_resumed == report.blocks
    assert "dasksolve" in zarr.open_group(batch.out).attrs
    assert list(xr.open_zarr(batch.out).coords) == ["batch"]


DELETIONS: dict[str, Callable[[Path], object]] = {
    "x": lambda out: shutil.rmtree(out / "x"),
    "chunks of x": lambda out: shutil.rmtree(out / "x/c"),
    "chunks of status": lambda out: shutil.rmtree(out / "status/c"),
    "journal": lambda out: (out / "zarr.json").unlink(),
    "all": lambda out: shutil.rmtree(out),
    "moved": lambda out: out.rename(out.with_name("moved")),
}


@pytest.mark.parametrize("what", DELETIONS)
@pytest.mark.usefixtures("many_blocks", "small_windows")
def test_what_is_deleted_while_the_job_runs_is_noticed(batch: Stored, what: str) -> None:
    def disturb(report: Report) -> None:
        if report.blocks_done == 3:
            DELETIONS[what](Path(batch.out))

    with pytest.raises(FileNotFoundError, match=r"was deleted while the job ran.*resume=True"):
        solve_zarr(batch.a_path, batch.b_path, batch.out, workers=1, progress=disturb)
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert report.blocks_resumed > 0
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


def test_where_in_memory_an_input_was_is_not_compared(batch: Stored) -> None:
    def job(**options: bool) -> Report:  # as a store that another process opens again
        group = zarr.create_group(MemoryStore())
        arrays = (group.create_array(n, data=v) for n, v in (("a", batch.a), ("b", batch.b)))
        return solve_zarr(*arrays, batch.out, **options)

    job()
    assert job(resume=True).blocks_resumed


def test_a_status_of_another_run_is_refused(batch: Stored, tmp_path: Path) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    solve_zarr(batch.a_path, batch.b_path, tmp_path / "other")
    shutil.rmtree(batch.out + "/status")
    shutil.copytree(tmp_path / "other/status", batch.out + "/status")
    with pytest.raises(ValueError, match="was written by another run than its journal"):
        solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)


def test_a_job_that_was_stopped_amid_an_overwrite_has_no_answers(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    document = Path(batch.out, "zarr.json")
    text = document.read_text().replace(r"\"version\"", r"\"creating\": true, \"version\"")
    document.write_text(text)
    with pytest.raises(ValueError, match="stopped while it created it: nothing is solved yet"):
        check_zarr(batch.a_path, batch.b_path, batch.out)
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed == 0
    assert check_zarr(batch.a_path, batch.b_path, batch.out).blocks_done
