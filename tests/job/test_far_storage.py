"""Storage that is far away: requests overlap, whatever the number of threads that solve."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from itertools import combinations, count
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client
from families import same_bits
from stored import Stored
from zarr.storage import LocalStore, MemoryStore, WrapperStore
from zarr.testing.store import LatencyStore

import dasksolve
from dasksolve import BlockErrors, Report, check_zarr, regress_zarr, solve_zarr
from dasksolve.batch.problem import describe
from dasksolve.job.plan import COMPILING, OVERHEAD
from dasksolve.job.planning import make_plan
from dasksolve.job.survey import survey
from dasksolve.job.systems import needs
from dasksolve.storage.layout import Layout
from dasksolve.storage.source import Source


class Turnstile:
    """Lets nobody pass until so many wait."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.waiting, self.opened = wanted, 0, asyncio.Event()
        self.chunks = 0
        """That came to it."""

    async def passed(self) -> None:
        self.waiting += 1
        if self.waiting >= self.wanted:
            self.opened.set()
        await asyncio.wait_for(self.opened.wait(), 60)


class Gate(WrapperStore):
    """A store whose chunks stand behind a turnstile."""

    def __init__(self, path: Path, turnstile: Turnstile) -> None:
        super().__init__(LocalStore(path, read_only=True))
        self.turnstile = turnstile

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        if "c/" in key:
            self.turnstile.chunks += 1
            await self.turnstile.passed()
        return await super().get(key, *arguments, **options)


def gated(path: str, turnstile: Turnstile) -> Any:
    return zarr.open_array(Gate(Path(path), turnstile), mode="r")


@pytest.mark.usefixtures("many_blocks")
def test_blocks_are_fetched_while_no_thread_is_free(batch: Stored) -> None:
    # Two threads solve; twelve requests, of six blocks, wait before the first is answered.
    turnstile = Turnstile(12)
    a, b = (gated(path, turnstile) for path in (batch.a_path, batch.b_path))
    report = solve_zarr(a, b, batch.out, workers=2)
    assert report.flagged == (123, 456, 789)
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


def test_a_and_b_of_a_block_are_asked_for_together(store: Callable[..., Stored]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 5, 5)), rng.standard_normal((50, 5))
    stored, both = store(a, b, a.shape, b.shape), Turnstile(2)
    solve_zarr(gated(stored.a_path, both), gated(stored.b_path, both), stored.out, workers=1)
    assert same_bits(stored.x, dasksolve.solve(a, b))


@pytest.mark.usefixtures("many_blocks")
def test_a_block_that_cannot_be_fetched_disturbs_no_other(batch: Stored) -> None:
    Path(batch.a_path, "c", "3", "0", "0").unlink()
    a = gated(batch.a_path, Turnstile(6))
    with pytest.raises(BlockErrors, match="1 of 10 blocks"):
        solve_zarr(a, batch.b_path, batch.out, workers=2)
    status = zarr.open_array(batch.out + "/status")[:]
    assert (status[300:400] == -1).all()
    assert (np.delete(status, np.s_[300:400]) >= 0).all()


@pytest.mark.usefixtures("many_blocks")
def test_an_interrupted_job_finishes_what_it_has_in_hand(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.job.planning._IN_HAND", 4)

    def interrupt(_: Report) -> None:
        raise KeyboardInterrupt

    out = LatencyStore(LocalStore(batch.out))
    with pytest.raises(KeyboardInterrupt):
        solve_zarr(batch.a_path, batch.b_path, out, progress=interrupt)
    x, status = (len([*Path(batch.out, name, "c").iterdir()]) for name in ("x", "status"))
    assert x == status >= 4
    assert solve_zarr(batch.a_path, batch.b_path, out, resume=True).blocks_resumed == status
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


class LateLooks(WrapperStore):
    """A store that answers whether a mark is there only once the last status is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(LocalStore(path))
        self.looks, self.left, self.ended = 0, 10, asyncio.Event()

    async def exists(self, key: str) -> bool:
        if key.endswith(".partial"):
            self.looks += 1
            await asyncio.wait_for(self.ended.wait(), 60)
        return await super().exists(key)

    async def set(self, key: str, *arguments: Any, **options: Any) -> None:
        await super().set(key, *arguments, **options)
        self.left -= key.startswith("status/c/")
        if not self.left:
            self.ended.set()


@pytest.mark.usefixtures("many_blocks")
def test_blocks_are_written_while_the_mark_is_looked_at(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.storage.marks.LOOK_EVERY", 0.0)
    monkeypatch.setattr("dasksolve.storage.marks.patience", lambda _: 60.0)
    out = LateLooks(Path(batch.out))
    report = solve_zarr(batch.a_path, batch.b_path, out, workers=1)
    assert report.blocks_done == 10
    assert out.looks == 1  # of all the blocks that would have


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


class Together(WrapperStore):
    """A store each of whose requests of a group passes once all of them wait.

    groups: of requests by "get" or "set" and the beginnings of their keys.
    """

    def __init__(self, store: LocalStore, *groups: Collection[str]) -> None:
        super().__init__(store)
        self.gates = {
            request: turnstile
            for group in groups
            for turnstile in [Turnstile(len(group))]
            for request in group
        }

    async def _pass(self, request: str) -> None:
        for beginning, turnstile in self.gates.items():
            if request.startswith(beginning):
                await turnstile.passed()

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        await self._pass(f"get {key}")
        return await super().get(key, *arguments, **options)

    async def set(self, key: str, *arguments: Any, **options: Any) -> None:
        await self._pass(f"set {key}")
        await super().set(key, *arguments, **options)


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


@pytest.mark.usefixtures("many_blocks")
def test_the_arrays_of_an_output_that_is_checked_are_opened_at_the_same_time(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out, diagnostics=True)
    looks = [f"get {name}/zarr.json" for name in ("x", "rcond", "backward_error")]
    out = Together(LocalStore(batch.out, read_only=True), looks)
    assert check_zarr(batch.a_path, batch.b_path, out).flagged == (123, 456, 789)


@pytest.mark.usefixtures("many_blocks")
def test_blocks_of_a_report_are_on_their_way_together(batch: Stored) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    reads = [f"get status/c/{i}" for i in range(10)]
    found = survey(Together(LocalStore(batch.out, read_only=True), reads))
    assert found.flagged == ((123,), (456,), (789,))
    assert found.counts == survey(batch.out).counts


class Pair(WrapperStore):
    """A store that reads a chunk of x once it is asked whether that is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(LocalStore(path))
        self.both = Turnstile(2)

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        if key.startswith("x/c/"):
            await self.both.passed()
        return await super().get(key, *arguments, **options)

    async def exists(self, key: str) -> bool:
        if key.startswith("x/c/"):
            await self.both.passed()
        return await super().exists(key)


def test_what_an_earlier_run_wrote_is_looked_for_while_it_is_read(
    store: Callable[..., Stored], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 5, 5)), rng.standard_normal((50, 5))
    stored, out = store(a, b, a.shape, b.shape), tmp_path / "out"
    solve_zarr(stored.a_path, stored.b_path, str(out))
    found = solve_zarr(stored.a_path, stored.b_path, Pair(out), resume=True)
    assert found.blocks_resumed == 1


@pytest.mark.usefixtures("many_blocks")
def test_what_is_deleted_far_away_while_the_job_runs_is_noticed(batch: Stored) -> None:
    def disturb(report: Report) -> None:
        if report.blocks_done == 1:
            Path(batch.out, "x/zarr.json").unlink()

    out = LatencyStore(LocalStore(batch.out))
    with pytest.raises(FileNotFoundError, match=r"was deleted while the job ran.*resume=True"):
        solve_zarr(batch.a_path, batch.b_path, out, workers=1, progress=disturb)
    solve_zarr(batch.a_path, batch.b_path, out, resume=True)
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


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


def cluster_here(threads: int) -> Client:
    """A cluster in this process."""
    return Client(
        processes=False,
        n_workers=1,
        threads_per_worker=threads,
        dashboard_address=":0",
        set_as_default=False,
    )


@pytest.fixture
def one_thread() -> Iterator[Client]:
    with cluster_here(1) as client:
        yield client


class LastStatus(WrapperStore):
    """A store where the last status is written while the document of x is read."""

    both = Turnstile(2)

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        if key == "x/zarr.json":
            await self.both.passed()
        return await super().get(key, *arguments, **options)

    async def set(self, key: str, *arguments: Any, **options: Any) -> None:
        if key == "status/c/9":
            await self.both.passed()
        await super().set(key, *arguments, **options)


@pytest.mark.usefixtures("many_blocks")
def test_a_worker_looks_at_the_output_while_it_writes_its_last_status(
    batch: Stored, one_thread: Client
) -> None:
    out = LastStatus(LocalStore(batch.out))
    report = solve_zarr(batch.a_path, batch.b_path, out, client=one_thread)
    assert report.blocks_done == 10
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


class Spoiling(WrapperStore):
    """An input who reads whose last chunk deletes a part of an output."""

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        if key == "c/9/0/0":
            Path(self._store.root).parent.parent.joinpath("out.zarr/x/zarr.json").unlink()
        return await super().get(key, *arguments, **options)


@pytest.mark.usefixtures("many_blocks")
def test_what_is_deleted_far_away_while_a_cluster_works_is_noticed(
    batch: Stored, one_thread: Client
) -> None:
    a = zarr.open_array(Spoiling(LocalStore(batch.a_path, read_only=True)), mode="r")
    out = LatencyStore(LocalStore(batch.out))
    with pytest.raises(FileNotFoundError, match=r"deleted while the job ran.*: x\. resume=True"):
        solve_zarr(a, batch.b_path, out, client=one_thread)
    assert Path(batch.out, "x/zarr.json").is_file()  # it is written again
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))


class SecondLook(WrapperStore):
    """A store where a second look at the output fails, and somebody writes to it meanwhile."""

    looks = count(1)

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        if key == "x/zarr.json" and next(SecondLook.looks) == 2:  # only a look reads it
            document = Path(self._store.root, "zarr.json")
            found = json.loads(document.read_text())
            found["attributes"]["note"] = "mine"
            document.write_text(json.dumps(found))
            raise OSError("no answer")
        return await super().get(key, *arguments, **options)


@pytest.mark.usefixtures("many_blocks")
def test_what_is_written_to_the_group_after_the_last_look_is_kept(batch: Stored) -> None:
    with cluster_here(2) as client:
        solve_zarr(batch.a_path, batch.b_path, SecondLook(LocalStore(batch.out)), client=client)
    assert next(SecondLook.looks) == 4  # a third came after the one that failed
    assert zarr.open_group(batch.out).attrs["note"] == "mine"


def planned(limit: int, **options: Any) -> Any:
    a = Layout((25_600, 8, 8), (100, 8, 8), 2, 8)
    b = Layout((25_600, 8), (100, 8), 1, 8)
    problem = describe(a.shape, np.dtype(float), b.shape, np.dtype(float))
    return make_plan(needs(problem, a, b), memory_limit=limit, workers=2, **options)


@pytest.mark.usefixtures("many_blocks")
def test_the_memory_limit_decides_how_many_are_in_hand() -> None:
    assert planned(1 << 30).in_hand == 2
    assert planned(1 << 30, far=True).in_hand == 256
    each = planned(1 << 30, far=True).block_memory
    tight = planned(OVERHEAD + COMPILING + 11 * each, far=True)
    assert (tight.in_hand, tight.workers) == (10, 2)
    assert tight.memory <= tight.memory_limit
    assert "10 in hand" in str(tight)


@pytest.mark.usefixtures("many_blocks")
def test_a_task_of_a_cluster_holds_as_many_as_are_in_hand() -> None:
    plan = planned(1 << 30, far=True, processes=2, task_cost=3000, fixed_workers=True)
    assert plan.in_hand == 128  # of 256 blocks
    assert plan.together == plan.in_hand // plan.workers
    tight = OVERHEAD + COMPILING + 4 * plan.block_memory
    plan = planned(tight, far=True, processes=2, task_cost=3000, fixed_workers=True)
    assert plan.in_hand == 4
    assert plan.together >= 4 * plan.in_hand // plan.workers
    assert plan.blocks // plan.together >= 2 * plan.workers * 2


_MEASURED = """
import sys
from pathlib import Path
import psutil, zarr, dasksolve
from zarr.storage import LocalStore
from zarr.testing.store import LatencyStore

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
a, b = (
    zarr.open_array(LatencyStore(store, get_latency=0.2), mode="r")
    for store in (LocalStore(folder / name, read_only=True) for name in "ab")
)
before = psutil.Process().memory_info().rss
dasksolve.solve_zarr(a, b, folder / "out", memory_limit=limit)
lines = open("/proc/self/status").read().splitlines()
print((next(int(n.split()[1]) << 10 for n in lines if n.startswith("VmHWM")) - before) >> 20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [256, 1024])
def test_reading_ahead_keeps_the_memory_limit(tmp_path: Path, limit: int) -> None:
    rng = np.random.default_rng(0)
    a = zarr.create_array(tmp_path / "a", shape=(64 * 8192, 8, 8), chunks=(8192, 8, 8), dtype="f8")
    b = zarr.create_array(tmp_path / "b", shape=(64 * 8192, 8), chunks=(8192, 8), dtype="f8")
    some, right = rng.standard_normal((8192, 8, 8)), rng.standard_normal((8192, 8))
    for i in range(64):
        place = slice(i * 8192, (i + 1) * 8192)
        a[place], b[place] = some, right
    run = subprocess.run(
        [sys.executable, "-c", _MEASURED, tmp_path, str(limit << 20)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) <= limit
