"""`solve_zarr` goes on with what an earlier run left, if that is of the same job."""

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from stored import Stored, files

from dasksolve import Status, solve_zarr


@pytest.mark.usefixtures("many_blocks")
def test_resume_solves_only_what_is_not_done(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    expected = files(batch.out)
    for name in ("status/c/3", "status/c/7", "x/c/8/0"):
        (Path(batch.out) / name).unlink()
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert (report.blocks_done, report.blocks_resumed) == (10, 7)
    assert report.counts[Status.OK] == 997
    assert report.flagged == (123, 456, 789)
    assert files(batch.out) == expected


@pytest.mark.usefixtures("many_blocks")
def test_what_is_done_is_read_past_the_pipeline_of_zarr(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a millisecond for each chunk: minutes, of the blocks of a large job."""
    solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)

    def read(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(zarr.AsyncArray, "getitem", read)
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True, resume=True)
    assert report.blocks_resumed == 10


def test_what_has_no_right_hand_sides_is_solved_once(store: Callable[..., Stored]) -> None:
    stored = store(np.ones((6, 2, 2)), np.ones((6, 2, 0)))
    solved = [solve_zarr(*stored[2:], strict=False, resume=again) for again in (False, True)]
    assert [report.blocks_resumed for report in solved] == [0, 1]


def test_resume_of_nothing_starts(batch: Stored) -> None:
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed == 0


@pytest.mark.parametrize("name", ["x", "status"])
def test_resume_completes_an_output_whose_creation_was_cut_short(batch: Stored, name: str) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    expected = files(batch.out)
    shutil.rmtree(Path(batch.out) / name)
    solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert files(batch.out) == expected


@pytest.mark.usefixtures("many_blocks")
def test_a_damaged_status_is_solved_again(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    expected = files(batch.out)
    chunk = Path(batch.out) / "status/c/2"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert report.blocks_resumed == 9
    assert files(batch.out) == expected


@pytest.mark.usefixtures("many_blocks")
def test_a_status_that_there_is_not_is_solved_again(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    expected = files(batch.out)
    zarr.open_array(batch.out + "/status")[[250, 251]] = 77, 127
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed == 9
    assert files(batch.out) == expected


@pytest.mark.usefixtures("many_blocks")
def test_an_x_that_a_power_cut_left_empty_is_solved_again(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    expected = files(batch.out)
    Path(batch.out, "x/c/4/0").write_bytes(b"")
    assert solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True).blocks_resumed == 9
    assert files(batch.out) == expected


def test_an_output_that_was_deleted_under_the_job_is_an_error(batch: Stored) -> None:
    with pytest.raises(FileNotFoundError, match=r"out\.zarr was deleted while the job ran"):
        solve_zarr(
            batch.a_path, batch.b_path, batch.out, progress=lambda _: shutil.rmtree(batch.out)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"shape": (1, 5, 5)}, r"a\.shape was \[1000, 5, 5\]", id="shape"),
        pytest.param({"dtype": "f4"}, "a.dtype was 'float64', is now 'float32'", id="dtype"),
        pytest.param({"chunks": (30, 5, 5)}, r"a\.chunks was \[100, 5, 5\]", id="chunks"),
        pytest.param({"fill_value": 7.0}, "a.fill_value was '0.0', is now '7.0'", id="fill value"),
        pytest.param({"on_singular": "lstsq"}, "options.on_singular was 'nan'", id="option"),
        pytest.param({"b": "a moved b"}, "b.location was", id="another b"),
    ],
)
def test_resume_refuses_a_changed_job_and_names_the_change(
    batch: Stored, change: dict[str, Any], message: str
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    before = files(batch.out)
    options = {k: change.pop(k) for k in ("on_singular",) if k in change}
    b_path = batch.b_path
    if "b" in change:
        b_path = shutil.copytree(batch.b_path, batch.b_path + "2")
    elif change:
        made = {"shape": (1000, 5, 5), "dtype": "f8", "chunks": (100, 5, 5)} | change
        zarr.create_array(batch.a_path, overwrite=True, **made)
    with pytest.raises(ValueError, match=message):
        solve_zarr(batch.a_path, b_path, batch.out, resume=True, **options)
    assert files(batch.out) == before


@pytest.mark.skipif(sys.platform == "win32", reason="links take rights there")
def test_inputs_that_were_moved_are_known_again_by_a_link_where_they_were(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    moved = Path(batch.b_path).rename(batch.b_path + "_moved")
    with pytest.raises(ValueError, match="same data, moved, make a link to it where it was"):
        solve_zarr(batch.a_path, moved, batch.out, resume=True)
    Path(batch.b_path).symlink_to(moved)
    for b_path in (moved, batch.b_path):
        report = solve_zarr(batch.a_path, b_path, batch.out, resume=True)
        assert report.blocks_resumed == report.blocks


def test_where_no_thread_can_be_started_it_is_said_what_to_do(
    batch: Stored, no_threads: Callable[[], AbstractContextManager[None]]
) -> None:
    message = r"start new thread \(.*ulimit -u .* fewer workers\)$"
    with no_threads(), pytest.raises(RuntimeError, match=message):
        solve_zarr(batch.a_path, batch.b_path, batch.out)
    assert not Path(batch.out).exists()


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        pytest.param('{"version": 99}', "journal version 99", id="another version"),
        pytest.param('{"version": 1}', "is damaged: it does not say what a was", id="no inputs"),
    ],
)
def test_a_journal_that_was_tampered_with_is_refused(
    batch: Stored, attribute: str, message: str
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    zarr.open_group(batch.out, use_consolidated=False).attrs["dasksolve"] = attribute
    with pytest.raises(ValueError, match=message):
        solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)


@pytest.mark.parametrize(
    "block_shape", [[0], "x", [9, 9], [10**9], [1.5], None], ids=lambda value: str(value)
)
def test_a_journal_with_impossible_blocks_is_refused(batch: Stored, block_shape: Any) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    attributes = zarr.open_group(batch.out, use_consolidated=False).attrs
    journal = {**json.loads(attributes["dasksolve"]), "block_shape": block_shape}
    attributes["dasksolve"] = json.dumps(journal)
    with pytest.raises(ValueError, match="is damaged: its blocks have shape"):
        solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)


def test_an_output_array_that_is_not_what_the_journal_says_is_refused(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    shutil.rmtree(Path(batch.out) / "x")
    zarr.create_array(batch.out + "/x", shape=(999, 5), dtype="f8")
    with pytest.raises(ValueError, match=r"its shape is \(999, 5\), not \(1000, 5\)"):
        solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
