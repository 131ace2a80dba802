"""An output that is far away: what is asked of it, and in which order, until it is there."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from itertools import combinations
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from families import same_bits
from stored import Stored
from turnstile import Together, Turnstile, gated
from zarr.storage import LocalStore, MemoryStore, WrapperStore
from zarr.testing.store import LatencyStore

import dasksolve
from dasksolve import BlockErrors, SingularSystemError, check_zarr, regress_zarr, solve_zarr
from dasksolve.storage.source import Source


class Documents(WrapperStore):
    """A store that counts requests for documents, where all of a new output go together."""

    def __init__(self, path: Path) -> None:
        super().__init__(LocalStore(path))
        self.requests: Counter[str] = Counter()
        self.all_three = Turnstile(3)

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        self.requests[f"get {key}"] += key.endswith("zarr.json")
        return await super().get(key, *arguments, **options)

    async def set(self, key: str, *arguments: Any, **options: Any) -> None:
        self.requests[f"set {key}"] += key.endswith("zarr.json")
        if key.endswith("zarr.json"):
            await self.all_three.passed()
        await super().set(key, *arguments, **options)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        self.requests["list"] += 1
        async for name in super().list_dir(prefix):
            yield name


def test_metadata_are_written_once_and_together(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.storage.marks.LOOK_EVERY", 3600.0)  # longer than the job takes
    out = Documents(Path(batch.out))
    solve_zarr(batch.a_path, batch.b_path, out)
    names = ("zarr.json", "x/zarr.json", "status/zarr.json")
    expected = {f"{what} {name}": 1 for what in ("get", "set") for name in names}
    # Listed before anything is done, and for the marks of others; created, and told how it went.
    assert +out.requests == {**expected, "list": 2, "set zarr.json": 2}
    out.requests.clear()
    solve_zarr(batch.a_path, batch.b_path, out, resume=True)
    # Looked at before anything is done, once it is this job's, and in the end; nothing is changed
    # but the history. Listed for the marks of others, too.
    looks = {"get zarr.json": 3, "get status/zarr.json": 3, "get x/zarr.json": 2, "list": 3}
    assert +out.requests == {**looks, "set zarr.json": 1}


@pytest.mark.parametrize("how", [None, "resume", "overwrite"])
def test_coordinates_are_looked_for_and_copied_at_the_same_time(
    tmp_path: Path, how: str | None
) -> None:
    rng, names = np.random.default_rng(0), ("t", "site", "height", "slope")
    given = xr.Dataset(
        {"y": (("time", "t", "site"), rng.random((4, 6, 3)))},
        coords={name: (("t", "site"), rng.random((6, 3))) for name in names[2:]}
        | {"t": np.arange(6.0), "site": [3, 1, 2]},
    )
    given.to_zarr(tmp_path / "in", zarr_format=3, consolidated=False)
    design = np.stack([np.ones(4), np.arange(4)], axis=1)
    options = {} if how is None else {how: True}
    if how is not None:
        regress_zarr(tmp_path / "in/y", design, tmp_path / "out")
        for name in names:
            zarr.open_array(tmp_path / "out" / name)[...] = 7
    looks = [f"get {name}/zarr.json" for name in names]
    y = zarr.open_array(
        Together(LocalStore(tmp_path / "in", read_only=True), looks), path="y", mode="r"
    )
    copies = [[f"{what} {name}/c/" for name in names] for what in ("set", "get")]
    out = Together(LocalStore(tmp_path / "out"), *copies[: 2 if how == "resume" else 1])
    regress_zarr(y, design, out, **options)
    with xr.open_zarr(tmp_path / "out", chunks=None, consolidated=True) as found:
        for name in names:
            xr.testing.assert_equal(found[name], given[name])


@pytest.mark.parametrize(
    "opened",
    [
        pytest.param(lambda _: MemoryStore(), id="in memory"),
        pytest.param(lambda path: LocalStore(path / "out"), id="on a disk"),
        pytest.param(lambda path: zarr.create_group(path / "g").create_group("out"), id="a group"),
        pytest.param(lambda path: LatencyStore(LocalStore(path / "out")), id="wrapped"),
    ],
)
def test_any_store_takes_an_output(
    batch: Stored, tmp_path: Path, opened: Callable[[Path], Any]
) -> None:
    out = opened(tmp_path)
    report = solve_zarr(batch.a_path, batch.b_path, out)
    assert report.flagged == (123, 456, 789)
    assert solve_zarr(batch.a_path, batch.b_path, out, resume=True).blocks_resumed == report.blocks
    group = out if isinstance(out, zarr.Group) else zarr.open_group(out, mode="r")
    assert same_bits(group["x"][:], dasksolve.solve(batch.a, batch.b, on_singular="nan"))
    assert check_zarr(batch.a_path, batch.b_path, out).flagged == report.flagged


class Published(WrapperStore):
    """What a web server shows, which cannot be written to."""

    error: type[Exception]

    async def set(self, key: str, *_arguments: Any, **_options: Any) -> None:
        raise self.error(f"501, Unsupported method ('PUT'), http://me:secret@host/{key}")


@pytest.mark.parametrize(
    ("error", "kind"), [(RuntimeError, OSError), (PermissionError, PermissionError)]
)
def test_a_store_that_takes_nothing_is_named(
    batch: Stored, tmp_path: Path, error: type[Exception], kind: type[OSError]
) -> None:
    out = Published(LocalStore(tmp_path / "out"))
    out.error = error
    message = rf"cannot write to .*out: {error.__name__}: 501, Uns"
    with pytest.raises(kind, match=message) as caught:
        solve_zarr(batch.a_path, batch.b_path, out)
    assert type(caught.value) is kind
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_refused(batch: Stored, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="open for reading alone"):
        solve_zarr(batch.a_path, batch.b_path, LocalStore(tmp_path, read_only=True))
    inside = zarr.create_group(MemoryStore()).create_group("inside")
    with pytest.raises(ValueError, match="give the store of a group of its own"):
        solve_zarr(batch.a_path, batch.b_path, inside)


class Ordered(WrapperStore):
    """A store that keeps in which order it was written, and perhaps has a document wait, or none.

    full: says of these keys that there is no room.
    """

    def __init__(
        self, path: Path, turnstile: Turnstile | None = None, full: Collection[str] = ()
    ) -> None:
        super().__init__(LocalStore(path))
        self.turnstile, self.full, self.written = turnstile, full, list[str]()
        self.chunks_before = dict[str, int]()

    async def set(self, key: str, *arguments: Any, **options: Any) -> None:
        if self.turnstile is not None:
            self.chunks_before.setdefault(key, self.turnstile.chunks)
        if key == "status/zarr.json" and self.turnstile is not None:
            await self.turnstile.passed()
        if key in self.full:
            raise OSError(28, "No space left on device")
        await super().set(key, *arguments, **options)
        self.written.append(key)


def test_blocks_are_read_while_the_output_is_created_and_written_after_it(
    store: Callable[..., Stored], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 5, 5)), rng.standard_normal((50, 5))
    stored, all_three = store(a, b, a.shape, b.shape), Turnstile(3)
    out = Ordered(tmp_path / "out", all_three)
    solve_zarr(gated(stored.a_path, all_three), gated(stored.b_path, all_three), out)
    first, last = (sorted(out.written[part]) for part in (slice(1, 4), slice(4, None)))
    assert first == ["status/zarr.json", "x/zarr.json", "zarr.json"]  # after the mark
    assert not any(out.chunks_before[key] for key in first)  # behind which they would wait
    assert last == ["status/c/0", "x/c/0/0", "zarr.json"]
    assert same_bits(zarr.open_array(tmp_path / "out/x")[:], dasksolve.solve(a, b))


@pytest.mark.usefixtures("many_blocks")
def test_no_block_is_written_where_the_output_cannot_be_created(
    batch: Stored, tmp_path: Path
) -> None:
    out = Ordered(tmp_path / "out", full={"x/zarr.json"})
    with pytest.raises(OSError, match=r"No space left on device.*out") as caught:
        solve_zarr(batch.a_path, batch.b_path, out)
    assert not isinstance(caught.value, BlockErrors)
    assert not [key for key in out.written if "/c/" in key]
    out.full = ()
    assert solve_zarr(batch.a_path, batch.b_path, out, resume=True).blocks_resumed == 0
    assert same_bits(
        zarr.open_array(tmp_path / "out/x")[:], dasksolve.solve(batch.a, batch.b, on_singular="nan")
    )


DOCUMENTS = ("x/zarr.json", "status/zarr.json", "zarr.json")


@pytest.mark.parametrize("how", ["resume", "overwrite"])
@pytest.mark.parametrize(
    "there", [some for n in (1, 2) for some in combinations(DOCUMENTS, n)], ids=" and ".join
)
def test_a_creation_that_was_stopped_after_any_documents_is_resumed_and_overwritten(
    batch: Stored, tmp_path: Path, there: tuple[str, ...], how: str
) -> None:
    out = Ordered(tmp_path / "out", full={*DOCUMENTS} - {*there})
    with pytest.raises(OSError, match="No space left on device"):
        solve_zarr(batch.a_path, batch.b_path, out)
    assert sorted(key for key in out.written if key.endswith("zarr.json")) == sorted(there)
    out.full = ()
    with pytest.raises(FileExistsError, match=r"exists; resume=True"):
        solve_zarr(batch.a_path, batch.b_path, out)
    solve_zarr(batch.a_path, batch.b_path, out, **{how: True})
    assert same_bits(
        zarr.open_array(tmp_path / "out/x")[:], dasksolve.solve(batch.a, batch.b, on_singular="nan")
    )


class LookedAt(LatencyStore):
    """A store that is listed once an input is being opened."""

    listed, opened = Event(), Event()

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        self.listed.set()
        assert await asyncio.to_thread(self.opened.wait, 60)
        async for name in super().list_dir(prefix):
            yield name


def test_an_output_is_looked_at_while_the_inputs_are_opened(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, out = Source.open, LookedAt(LocalStore(batch.out))

    def opening(*arguments: Any) -> Source:
        out.opened.set()
        assert out.listed.wait(60)
        return opened(*arguments)

    monkeypatch.setattr(Source, "open", opening)
    solve_zarr(batch.a_path, batch.b_path, out)
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


@pytest.mark.usefixtures("many_blocks")
def test_which_systems_are_singular_is_asked_for_many_blocks_at_once(batch: Stored) -> None:
    out = Together(LocalStore(batch.out), [f"get status/c/{i}" for i in range(10)])
    with pytest.raises(SingularSystemError) as info:
        solve_zarr(batch.a_path, batch.b_path, out, on_singular="raise")
    assert info.value.indices.tolist() == [123]
