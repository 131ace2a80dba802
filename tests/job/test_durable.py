"""What a power cut spares: which files and folders a job waits for, and in which order."""

import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from families import same_bits
from stored import Stored

import dasksolve
from dasksolve import solve_zarr
from dasksolve.cli import main

Events = list[tuple[str, str]]


@pytest.fixture
def events(batch: Stored, monkeypatch: pytest.MonkeyPatch) -> Events:
    """What is named and what is waited for within the output, as it happens."""
    seen: Events = []
    fsync, replace = os.fsync, os.replace

    def note(what: str, path: str) -> None:
        if path.startswith(batch.out):
            seen.append((what, os.path.relpath(path, batch.out)))

    def waiting(file: int) -> None:
        fsync(file)
        note("waited", os.readlink(f"/proc/self/fd/{file}"))

    def naming(source: str | Path, target: str | Path) -> None:
        replace(source, target)
        note("named", str(target))

    monkeypatch.setattr(os, "fsync", waiting)
    monkeypatch.setattr(os, "replace", naming)
    return seen


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks /proc what it is")


def waited(events: Events, path: str, since: int, until: int) -> bool:
    """Whether a file or folder was waited for between two events."""
    return ("waited", path) in events[since:until]


@needs_proc
@pytest.mark.parametrize("compressors", [None, ()], ids=["checksums", "none"])
@pytest.mark.usefixtures("many_blocks")
def test_x_is_on_the_disk_before_the_status_that_speaks_of_it(
    batch: Stored, events: Events, compressors: tuple[()] | None
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True, compressors=compressors)
    for i in range(10):
        told = events.index(("named", f"status/c/{i}"))
        chunks = [f"x/c/{i}/0", f"rcond/c/{i}", f"backward_error/c/{i}"]
        if compressors is not None:
            chunks.append(f"status/sums/{i}")
        for chunk in chunks:
            named = events.index(("named", chunk))
            for path in (Path(chunk), *list(Path(chunk).parents)[:-1]):
                assert waited(events, str(path), named, told), path


@needs_proc
@pytest.mark.usefixtures("many_blocks")
def test_metadata_are_on_the_disk_before_the_first_block(batch: Stored, events: Events) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    begun = events.index(("named", "x/c/0/0"))
    mark = events.index(("named", "zarr.json"))
    member = events.index(("named", "x/zarr.json"))
    whole = events.index(("named", "zarr.json"), mark + 1)
    assert waited(events, "zarr.json", mark, member)
    assert waited(events, ".", mark, member)
    for name in ("x", "status"):
        written = events.index(("named", f"{name}/zarr.json"))
        assert waited(events, f"{name}/zarr.json", written, whole)
        assert waited(events, name, written, whole)
    assert waited(events, "zarr.json", whole, begun)
    assert waited(events, ".", whole, begun)


@needs_proc
@pytest.mark.parametrize("option", ["", "resume", "overwrite"])
@pytest.mark.usefixtures("many_blocks")
def test_all_that_is_there_at_the_end_was_waited_for(
    batch: Stored, events: Events, option: str
) -> None:
    if option:
        solve_zarr(batch.a_path, batch.b_path, batch.out, durable=False)
        assert not [path for what, path in events if what == "waited"]
    solve_zarr(batch.a_path, batch.b_path, batch.out, **({option: True} if option else {}))
    out = Path(batch.out)
    for path in (out, *out.rglob("*")):
        name = os.path.relpath(path, out)
        named = [i for i, event in enumerate(events) if event == ("named", name)]
        within = [
            i for i, e in enumerate(events) if e[0] == "named" and Path(e[1]).parent == Path(name)
        ]
        assert waited(events, name, max([*named, *within, 0]), len(events)), name


@needs_proc
def test_the_command_line_need_not_wait(batch: Stored, events: Events) -> None:
    assert main(["solve", *batch[2:], "--no-durable", "--quiet"]) == 3
    assert {what for what, _ in events} == {"named"}


@pytest.mark.parametrize("dtype", ["f8", pytest.param("c16", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("many_blocks")
def test_zeros_in_the_place_of_x_are_not_believed(batch: Stored, dtype: str) -> None:
    a = zarr.create_array(batch.out + "a", data=batch.a.astype(dtype), chunks=(100, 5, 5))
    solve_zarr(a, batch.b_path, batch.out, compressors=())
    assert solve_zarr(a, batch.b_path, batch.out, resume=True).blocks_resumed == 10
    chunk = Path(batch.out, "x/c/3/0")
    chunk.write_bytes(bytes(chunk.stat().st_size))
    assert solve_zarr(a, batch.b_path, batch.out, resume=True).blocks_resumed == 9
    assert same_bits(batch.x, dasksolve.solve(batch.a.astype(dtype), batch.b, on_singular="nan"))


def test_a_checksum_beside_the_status_is_kept_only_where_x_has_none(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    assert not Path(batch.out, "status/sums").exists()
    solve_zarr(batch.a_path, batch.b_path, batch.out, overwrite=True, compressors=())
    assert Path(batch.out, "status/sums").is_dir()
    solve_zarr(batch.a_path, batch.b_path, batch.out, overwrite=True)
    assert not Path(batch.out, "status/sums").exists()
    assert np.isfinite(batch.x[0]).all()
