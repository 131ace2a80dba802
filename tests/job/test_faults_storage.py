"""What a zarr job survives of its storage: full, read-only, unseen, changed under it, shared."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr
from distributed import Client
from families import same_bits
from numcodecs.blosc import Blosc
from programs import Programs
from stored import Stored, files
from zarr.codecs import BloscCodec, GzipCodec

import dasksolve
from dasksolve import BlockErrors, Report, Status, check_zarr, solve_zarr
from dasksolve.cli import main


def test_a_target_that_cannot_be_written_is_refused(batch: Stored, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OSError, match="Read-only file system"):
        solve_zarr(batch.a_path, batch.b_path, small_disk / "out")
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize("how", [[], ["--overwrite"], ["--resume"]], ids=str)
def test_a_dry_run_tells_of_an_output_that_cannot_be_written(
    batch: Stored, small_disk: Path, how: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = small_disk / "out"
    if how:
        solve_zarr(batch.a_path, batch.b_path, out)
        (out / "status/c/0").unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    words = ["solve", batch.a_path, batch.b_path, str(out), "--dry-run", *how]
    assert main(words) == 1
    said = f"dasksolve: the output {out} cannot be written: .* not writable, .*Read-only file sys"
    assert re.match(said, capsys.readouterr().err)


def test_a_dry_run_tells_of_a_part_that_a_resumed_job_could_not_write(
    batch: Stored, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = small_disk / "out"
    words = ["solve", batch.a_path, batch.b_path, str(out), "--resume"]
    solve_zarr(batch.a_path, batch.b_path, out)
    chunk, part = out / "status/c/0", out / "x/c"
    good = chunk.read_bytes()
    chunk.unlink()
    subprocess.run(["mount", "--bind", part, part], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", part], check=True)
        assert main([*words, "--dry-run"]) == 1
        assert f"'{part}'" in capsys.readouterr().err
        chunk.write_bytes(good)
        assert main([*words, "--dry-run"]) == 0  # nothing is left to be written
    finally:
        subprocess.run(["umount", part], check=True)


def test_who_checks_an_output_that_cannot_be_written_learns_that_with_what_to_do(
    batch: Stored, small_disk: Path
) -> None:
    solve_zarr(batch.a_path, batch.b_path, small_disk / "out")
    zarr.open_array(small_disk / "out/x")[3] += 1
    advice = r"resume=True \(--resume\) what is not solved yet"
    with pytest.raises(BlockErrors, match=f"{advice}:"):
        check_zarr(batch.a_path, batch.b_path, small_disk / "out")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    once = r", once the output may be written to \(.*not writable.*\):"
    with pytest.raises(BlockErrors, match=advice + once):
        check_zarr(batch.a_path, batch.b_path, small_disk / "out")


def test_an_input_is_known_under_another_name_of_its_folder(
    batch: Stored, small_disk: Path
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    before = files(batch.out)
    subprocess.run(["mount", "--bind", Path(batch.out).parent, small_disk], check=True)
    try:
        again = small_disk / Path(batch.out).name
        with pytest.raises(ValueError, match=f"overwriting {re.escape(str(again))} would delete b"):
            solve_zarr(batch.a_path, batch.out + "/x", again, overwrite=True)
        with pytest.raises(ValueError, match=f"{re.escape(str(again))}/x/in lies in b"):
            solve_zarr(batch.a_path, batch.out + "/x", again / "x" / "in")
        for path in (batch.b_path, small_disk / Path(batch.b_path).relative_to(small_disk.parent)):
            report = solve_zarr(batch.a_path, path, again, resume=True)
            assert report.blocks_resumed == report.blocks
    finally:
        subprocess.run(["umount", small_disk], check=True)
    assert files(batch.out) == before


def test_an_output_of_which_a_part_cannot_be_deleted_is_not_replaced(
    batch: Stored, small_disk: Path
) -> None:
    solve_zarr(batch.a_path, batch.b_path, small_disk / "out")
    before, part = files(small_disk), small_disk / "out/status"
    subprocess.run(["mount", "--bind", part, part], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", part], check=True)
        with pytest.raises(PermissionError, match=r"written: .*not writable, .*: '.*/out/status'"):
            solve_zarr(batch.a_path, batch.b_path, small_disk / "out", overwrite=True)
    finally:
        subprocess.run(["umount", part], check=True)
    assert files(small_disk) == before


@pytest.mark.usefixtures("many_blocks")
def test_blocks_that_cannot_be_written_are_not_read_and_solved(
    batch: Stored, small_disk: Path
) -> None:
    done = solve_zarr(batch.a_path, batch.b_path, small_disk / "out")
    for path in (small_disk / "out/status/c/7", Path(batch.a_path, "c/7/0/0")):
        path.unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(BlockErrors, match=r"not writable, .*: '.*/out/x/c/7'") as info:
        solve_zarr(batch.a_path, batch.b_path, small_disk / "out", resume=True)
    assert [failure.block for failure in info.value.failures] == [7]
    assert info.value.report.blocks_resumed == done.blocks - 1


@pytest.mark.usefixtures("many_blocks")
def test_a_folder_of_many_blocks_is_asked_once_whether_it_may_be_written_to(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    for chunk in Path(batch.out, "status/c").iterdir():
        chunk.unlink()
    asked, access = list[str](), os.access

    def noted(path: Path, *how: Any, **options: Any) -> bool:
        if str(path).startswith(batch.out):  # other threads of this process ask of other files
            asked.append(str(path))
        return access(path, *how, **options)

    monkeypatch.setattr(os, "access", noted)
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True, workers=1).blocks == 10
    assert asked.count(f"{batch.out}/status/c") == 1
    assert {*asked} == {f"{batch.out}/status/c", *(f"{batch.out}/x/c/{i}" for i in range(10))}


@pytest.mark.usefixtures("many_blocks", "small_windows")
def test_a_chunk_that_is_deleted_while_the_job_runs_fails_its_block_alone(batch: Stored) -> None:
    chunk = Path(batch.a_path) / "c/9/0/0"
    good = chunk.read_bytes()

    def disturb(report: Report) -> None:
        if report.blocks_done == 1:
            chunk.unlink()

    with pytest.raises(BlockErrors, match=r"chunk c/9/0/0 of a .* is not stored") as info:
        solve_zarr(batch.a_path, batch.b_path, batch.out, workers=1, progress=disturb)
    assert info.value.report.blocks_done == 9
    chunk.write_bytes(good)
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed == 9
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


@pytest.mark.parametrize("where", ["format 2", "URL"])
@pytest.mark.usefixtures("many_blocks")
def test_a_blosc_chunk_that_is_cut_is_an_error_where_zarr_decodes_it(
    batch: Stored, tmp_path: Path, where: str
) -> None:
    codec, form = (BloscCodec(), 3) if where == "URL" else (Blosc(), 2)
    array = zarr.create_array(
        tmp_path / "cut", data=batch.a, chunks=(100, 5, 5), compressors=codec, zarr_format=form
    )
    chunk = tmp_path / "cut" / array.metadata.encode_chunk_key((7, 0, 0))
    chunk.write_bytes(chunk.read_bytes()[:-50])
    a = f"local://{tmp_path}/cut" if where == "URL" else str(tmp_path / "cut")
    with pytest.raises(BlockErrors, match=r"a blosc chunk of \d+ bytes has \d+") as info:
        solve_zarr(a, batch.b_path, batch.out)
    assert [failure.batch_range for failure in info.value.failures] == [((700, 800),)]


@pytest.mark.parametrize("codec", [None, GzipCodec()], ids=["raw", "gzip"])
@pytest.mark.parametrize("url", [False, True], ids=["path", "URL"])
@pytest.mark.usefixtures("many_blocks")
def test_a_chunk_of_another_length_is_told_in_bytes(
    batch: Stored, tmp_path: Path, codec: Any, url: bool
) -> None:
    a = zarr.create_array(tmp_path / "a", data=batch.a, chunks=(100, 5, 5), compressors=codec)
    few = zarr.create_array(tmp_path / "few", data=batch.a[:1], compressors=codec)
    for place, part in ((7, slice(None)), (8, slice(0))):
        content = Path(few.store.root, "c/0/0/0").read_bytes()[part]
        Path(a.store.root, f"c/{place}/0/0").write_bytes(content)
    path = f"local://{tmp_path}/a" if url else str(tmp_path / "a")
    with pytest.raises(BlockErrors) as info:
        solve_zarr(path, batch.b_path, batch.out)
    causes = [failure.cause for failure in info.value.failures]
    told = [f"it holds {size} bytes, where a chunk has 20,000" for size in (200, 0)]
    assert [one in cause for one, cause in zip(told, causes, strict=True)] == [True, True], causes


@pytest.mark.parametrize("option", ["resume", "overwrite"])
@pytest.mark.usefixtures("many_blocks")
def test_a_second_job_on_an_output_is_refused_while_the_first_runs(
    batch: Stored, option: str
) -> None:
    refused: list[str] = []

    def names() -> set[Path]:
        return {path for path in Path(batch.out).rglob("*") if path.suffix != ".partial"}

    def second(_report: Report) -> None:
        written = names()
        with pytest.raises(BlockingIOError, match=r"another job is writing to .*out\.zarr") as info:
            solve_zarr(batch.a_path, batch.b_path, batch.out, workers=1, **{option: True})
        refused.append(str(info.value))
        assert written <= names()

    report = solve_zarr(batch.a_path, batch.b_path, batch.out, progress=second)
    assert len(refused) == report.blocks_done == 10
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed == 10


@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
@pytest.mark.usefixtures("many_blocks")
def test_inputs_in_a_zip(
    batch: Stored, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zarr.storage.ZipStore(tmp_path / "data.zip", mode="w") as store:
        group = zarr.create_group(store)
        group.create_array("a", data=batch.a, chunks=(100, 5, 5))
        group.create_array("b", data=batch.b, chunks=(100, 5))
    monkeypatch.chdir(tmp_path)
    archive = Path("data.zip") if relative else tmp_path / "data.zip"
    solve_zarr(archive / "a", archive / "b", batch.out)
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))
    with pytest.raises(FileNotFoundError, match=r"data\.zip is a zarr group.*it holds .*/a"):
        solve_zarr(archive, archive / "b", batch.out)


def test_relative_paths_mean_the_same_to_workers_in_another_folder(
    batch: Stored, two_processes: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    folders = two_processes.run(os.getcwd)
    two_processes.run(os.chdir, str(elsewhere))
    try:
        solve_zarr("data.zarr/a", "data.zarr/b", "out.zarr", client=two_processes)
    finally:
        two_processes.run(os.chdir, next(iter(folders.values())))
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))
    assert not list(elsewhere.iterdir())


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """A scheduler and a worker in a folder of their own."""
    with Programs(tmp_path_factory.mktemp("programs")) as started:
        started.worker()
        yield started


@pytest.mark.parametrize(
    ("hidden", "out"),
    [pytest.param("", "out.zarr", id="all"), pytest.param("other", "other/out.zarr", id="output")],
)
@pytest.mark.slow
@pytest.mark.usefixtures("small_disk")
def test_paths_that_a_worker_does_not_see_are_found_before_anything_is_created(
    batch: Stored, programs: Programs, tmp_path: Path, hidden: str, out: str
) -> None:
    (tmp_path / "other").mkdir()
    before = files(tmp_path)
    blind = programs.worker(hiding=tmp_path / hidden)
    try:
        with pytest.raises(FileNotFoundError, match=r"tcp://.*does not see file://.*put it where"):
            solve_zarr(batch.a_path, batch.b_path, tmp_path / out, client=programs.client)
    finally:
        programs.kill_worker(blind)
    assert files(tmp_path) == before
    assert not (tmp_path / out).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("small_disk")
def test_an_output_that_a_worker_may_not_write_to_is_refused(
    batch: Stored, programs: Programs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "other/out.zarr"
    out.parent.mkdir()
    sealed = programs.worker(sealing=out.parent)
    try:
        with pytest.raises(PermissionError, match=r"tcp://.*: .* not writable, .*/out\.zarr'"):
            solve_zarr(batch.a_path, batch.b_path, out, client=programs.client)
        words = ["solve", batch.a_path, batch.b_path, str(out), "--scheduler", programs.address]
        assert main([*words, "--dry-run"]) == 1
        assert re.search(r"tcp://.*: .* not writable, .*/other'", capsys.readouterr().err)
    finally:
        programs.kill_worker(sealed)
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("many_blocks", "small_windows", "small_disk")
def test_blocks_of_a_worker_that_joins_later_and_may_not_write_are_done_by_others(
    batch: Stored, programs: Programs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, sealed = tmp_path / "other/out.zarr", list[Any]()
    out.parent.mkdir()

    def join(report: Report) -> None:
        if report.blocks_done == 1:
            sealed.append(programs.worker(sealing=out.parent))

    try:
        report = solve_zarr(
            batch.a_path, batch.b_path, out, client=programs.client, progress=join, workers=1
        )
    finally:
        programs.kill_worker(*sealed)
    assert report.blocks_done == 10
    said = [record.getMessage() for record in caplog.records if "take part" in record.getMessage()]
    assert len(said) == 1
    assert re.search("cannot take part, .*: PermissionError: process .* may not write", said[0])


@pytest.mark.slow
@pytest.mark.usefixtures("many_blocks", "small_windows", "small_disk")
def test_blocks_that_such_a_worker_steals_from_who_is_to_do_them_are_done_by_others(
    batch: Stored, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sealed, stolen = tmp_path / "other/out.zarr", list[Any](), list[str]()
    out.parent.mkdir()
    persist, able = programs.client.persist, {*programs.client.nthreads()}

    def join(report: Report) -> None:
        if report.blocks_done == 1:
            sealed.append(programs.worker(sealing=out.parent))

    def stealing(graph: Any, **where: Any) -> Any:
        if where and not stolen:  # the scheduler gives to who is idle what waits for another
            stolen.extend({*programs.client.nthreads()} - able)
            where = {"workers": stolen}
        return persist(graph, **where)

    monkeypatch.setattr(programs.client, "persist", stealing)
    try:
        report = solve_zarr(
            batch.a_path, batch.b_path, out, client=programs.client, progress=join, workers=1
        )
    finally:
        programs.kill_worker(*sealed)
    assert stolen
    assert report.blocks_done == 10


@pytest.mark.slow
@pytest.mark.usefixtures("many_blocks", "small_windows", "small_disk")
def test_a_worker_that_joins_later_and_does_not_see_the_output_writes_nothing(
    batch: Stored, programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    out = tmp_path / "other/out.zarr"

    def join(report: Report) -> None:
        if report.blocks_done == 3:
            programs.worker(hiding=tmp_path / "other")
            programs.kill_worker(programs.workers[0])

    try:
        with pytest.raises(BlockErrors, match=r"does not see file://.*other/out\.zarr") as info:
            solve_zarr(batch.a_path, batch.b_path, out, client=programs.client, progress=join)
    finally:
        programs.worker()
        programs.kill_worker(programs.workers[0])
    report = info.value.report
    assert 3 <= report.blocks_done < 10
    again = solve_zarr(batch.a_path, batch.b_path, out, resume=True)
    assert report.blocks_done <= again.blocks_resumed < 10  # a result may die with its worker
    assert again.counts[Status.PENDING] == 0
