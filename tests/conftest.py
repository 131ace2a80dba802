"""What several test files start from: batches and series in zarr, and a cluster."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from dask._task_spec import Task
from distributed import Client
from numpy.typing import NDArray
from programs import two_workers
from stored import P, Stack, Stored, observations

_LEFT_OUT = re.compile(r"\b(float32|complex64|complex128)\b")
_WITH_COMPLEX = "test_structures.py", re.compile(r"\b(float32|complex128)\b")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave most dtypes to the slow tests: each has kernels of its own to compile."""
    for item in items:
        left_out = _left_out(item.path)
        if left_out and left_out.search(item.name):
            item.add_marker(pytest.mark.slow)


@cache
def _left_out(path: Path) -> re.Pattern[str] | None:
    """What a file's tests are named that are left to the slow ones."""
    compiling = {Path(__file__).with_name(wing) for wing in ("batch", "kernels")}
    file, few = _WITH_COMPLEX
    return (few if path.name == file else _LEFT_OUT) if compiling & {*path.parents} else None


def _stored(
    folder: Path,
    a: NDArray[Any],
    b: NDArray[Any],
    a_chunks: tuple[int, ...] | None = None,
    b_chunks: tuple[int, ...] | None = None,
    zarr_format: int = 3,
) -> Stored:
    group = zarr.create_group(folder / "data.zarr", zarr_format=zarr_format)
    for name, values, chunks in (("a", a, a_chunks), ("b", b, b_chunks)):
        whole = (max(1, values.shape[0] // 10), *(max(1, n) for n in values.shape[1:]))
        group.create_array(name, data=values, chunks=chunks or whole)
    return _beside(folder, a, b)


def _beside(folder: Path, a: NDArray[Any], b: NDArray[Any]) -> Stored:
    data = folder / "data.zarr"
    return Stored(a, b, str(data / "a"), str(data / "b"), str(folder / "out.zarr"))


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Stored]:
    """Store a and b as zarr arrays, chunked along the first axis by default."""
    return partial(_stored, tmp_path)


@pytest.fixture(scope="session")
def stored_batch(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """What `batch` is a copy of: to copy it takes a third of the time."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((1000, 5, 5)), rng.standard_normal((1000, 5))
    a[123] = 1
    a[456, 1, 1] = np.nan
    b[789, 4] = np.nan
    return _stored(tmp_path_factory.mktemp("batch"), a, b)


@pytest.fixture
def batch(stored_batch: Stored, tmp_path: Path) -> Stored:
    """1,000 systems of order 5 in 10 chunks: 123 singular, 456 with a NaN in a, 789 in b."""
    shutil.copytree(Path(stored_batch.out).with_name("data.zarr"), tmp_path / "data.zarr")
    return _beside(tmp_path, stored_batch.a.copy(), stored_batch.b.copy())


@pytest.fixture
def long(store: Callable[..., Stored]) -> Stored:
    """64 blocks, system 77 singular, that take long enough to be interrupted."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((64 * 40, 64, 64)), rng.standard_normal((64 * 40, 64))
    a[77] = 0
    return store(a, b, (40, 64, 64), (40, 64))


@pytest.fixture
def stack(tmp_path: Path) -> Callable[..., Stack]:
    """Store series as zarr."""

    def stored(y: NDArray[Any] | None = None, **how: Any) -> Stack:
        y = observations() if y is None else y
        how = {"chunks": (P, 6, 10), **how}
        zarr.create_array(tmp_path / "y", data=y, config={"write_empty_chunks": True}, **how)
        return Stack(y, tmp_path / "y", tmp_path / "out")

    return stored


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount], check=False
        ).returncode
    ):
        pytest.skip("mounting a tmpfs takes root")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


@contextmanager
def _no_threads() -> Iterator[None]:
    usual = threading.stack_size(1 << 46)
    try:
        yield
    finally:
        threading.stack_size(usual)


@pytest.fixture
def no_threads() -> Callable[[], AbstractContextManager[None]]:
    """Within: the system starts no thread, since none has room for the stack that is asked for."""
    return _no_threads


@pytest.fixture
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one stored chunk each, however small."""
    monkeypatch.setattr("dasksolve.job.planning._SMALL", 0)
    monkeypatch.setattr("dasksolve.job.planning._BLOCKS_A_WORKER", 1 << 30)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of two blocks, so that most of them are not begun while the first are done."""
    monkeypatch.setattr("dasksolve.job.run.WINDOW", 2)
    monkeypatch.setattr("dasksolve.job.cluster.WINDOW", 2)


_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "2s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}
"""A cluster that nobody uses takes a fiftieth of a processor then, instead of a sixth."""


@pytest.fixture(scope="session")
def two_processes() -> Iterator[Client]:
    """A client of two worker processes on this machine."""
    with ExitStack() as begun:
        with dask.config.set(_QUIET):  # for this cluster alone
            client = begun.enter_context(two_workers())
        yield client


class CountingScheduler:
    """dask's own threads, with a note of every graph that they were given."""

    def __init__(self) -> None:
        self.runs = 0
        self.tasks = 0

    def __call__(self, expression: Any, keys: Any, **options: Any) -> Any:
        self.runs += 1
        # Aliases and data are looked up; only a Task is run.
        graph = expression if isinstance(expression, Mapping) else expression.__dask_graph__()
        self.tasks += sum(isinstance(node, Task) for node in graph.values())
        return dask.threaded.get(expression, keys, **options)


@pytest.fixture
def scheduler() -> Iterator[CountingScheduler]:
    """dask's scheduler, which counts."""
    scheduler = CountingScheduler()
    with dask.config.set(scheduler=scheduler):
        yield scheduler
