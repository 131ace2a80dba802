"""What a zarr job does on a disk that is full, or takes no file of that size."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from stored import Stored
from zarr.storage import LocalStore
from zarr.testing.store import LatencyStore

from dasksolve import BlockErrors, Status, solve_zarr
from dasksolve.cli import main


@pytest.fixture
def wide(store: Callable[..., Stored], small_disk: Path) -> Stored:
    """Ten blocks, of whose answers five fit on the small disk."""
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((1000, 4, 4)), rng.standard_normal((1000, 4, 60))
    return store(a, b)._replace(out=str(small_disk / "out"))


@pytest.mark.parametrize(
    "where", ["threads", "far", pytest.param("cluster", marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("many_blocks", "small_windows")
@pytest.mark.filterwarnings("ignore:.* and .* are free there")
def test_a_full_disk_stops_a_job_and_keeps_what_is_done(
    wide: Stored, small_disk: Path, where: str, request: pytest.FixtureRequest
) -> None:
    out = LatencyStore(LocalStore(wide.out)) if where == "far" else wide.out
    client = request.getfixturevalue("two_processes") if where == "cluster" else None
    text = r"(\d) of 10 blocks are done and kept; what is left takes about (\S*) MiB"
    with pytest.raises(BlockErrors, match=r"(?s)no space is left at .*No space left") as info:
        solve_zarr(wide.a_path, wide.b_path, out, workers=2, client=client)
    report, found = info.value.report, re.search(text, str(info.value))
    assert found is not None
    least = 0 if where == "far" else 3  # far away all are written at once: parts take the room
    assert least <= report.blocks_done == int(found[1]) <= 5
    left = (10 - report.blocks_done) * 100 * (4 * 60 * 8 + 1) / 2**20
    assert float(found[2]) == pytest.approx(left, abs=0.01)
    if where != "far":  # where all blocks are in hand at once
        assert len(info.value.failures) <= 2
        assert re.search(r" kiB are free\. Make room; resume=True \(--resume\)", str(info.value))
    assert not list(small_disk.rglob("*.partial"))
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    again = solve_zarr(wide.a_path, wide.b_path, out, resume=True)
    assert again.blocks_resumed == report.blocks_done
    assert again.counts[Status.OK] == 1000


@pytest.mark.filterwarnings("always")
def test_an_output_that_has_no_room_is_told_of_before(
    wide: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solve", wide.a_path, wide.b_path, wide.out, "--dry-run"]) == 0
    said = r"dasksolve: warning: .*/out takes about 1\.83 MiB, and 1\.00 MiB are free there"
    assert re.match(said, capsys.readouterr().err)


@pytest.mark.usefixtures("many_blocks", "small_windows")
def test_a_disk_that_takes_no_more_files_is_said_to(batch: Stored, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,nr_inodes=30", small_disk], check=True)
    message = r"take.* and .* are free, but for no more files \(inodes\)\. Make room"
    with pytest.raises(BlockErrors, match=message) as info:
        solve_zarr(batch.a_path, batch.b_path, small_disk / "out", workers=1)
    assert 0 < info.value.report.blocks_done < 9


@pytest.mark.parametrize(
    ("lost", "told"), [((2, 4, 6), "7 of 10 blocks are"), (range(1, 10), "1 of 10 blocks is")]
)
@pytest.mark.usefixtures("many_blocks", "small_windows")
def test_what_was_done_before_the_disk_was_full_is_counted(
    wide: Stored, small_disk: Path, lost: Sequence[int], told: str
) -> None:
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    solve_zarr(wide.a_path, wide.b_path, wide.out)
    for block in lost:
        Path(wide.out, f"status/c/{block}").unlink()
        Path(wide.out, f"x/c/{block}/0/0").unlink()
    with pytest.raises(OSError, match="No space left on device"):
        (small_disk / "full").write_bytes(bytes(4 << 20))
    with pytest.raises(BlockErrors, match=f"{told} done and kept") as info:
        solve_zarr(wide.a_path, wide.b_path, wide.out, resume=True, workers=1)
    assert [failure.block for failure in info.value.failures] == [lost[0]]
    assert info.value.report.blocks_resumed == 10 - len(lost)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of Unix")
@pytest.mark.usefixtures("many_blocks", "small_windows")
def test_a_limit_of_files_stops_a_job(wide: Stored) -> None:
    import resource

    out, usual = wide.a_path + "_solved", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, usual[1]))  # a chunk of x has 192,004
    try:
        with pytest.raises(BlockErrors, match=r"larger than a file may be.*ulimit -f") as info:
            solve_zarr(wide.a_path, wide.b_path, out, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert len(info.value.failures) == 1


@pytest.mark.filterwarnings("ignore:.* and 0 B are free there")
def test_a_disk_without_room_for_an_output_is_named(batch: Stored, small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        (small_disk / "full").write_bytes(bytes(2 << 20))
    place = re.escape(repr(f"{small_disk}/out"))
    with pytest.raises(OSError, match=f"No space left on device: {place}"):
        solve_zarr(batch.a_path, batch.b_path, small_disk / "out")
    assert [path.name for path in small_disk.iterdir()] == ["full"]
