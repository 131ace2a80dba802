"""Storage that is far away and no longer answers: who interrupts a job does not wait for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, contextmanager
from threading import Event
from typing import Any

import numpy as np
import pytest
from families import same_bits
from stored import Stored
from zarr.storage import LocalStore, WrapperStore

import dasksolve
from dasksolve import Report, solve_zarr
from dasksolve.storage import backlog, internals
from dasksolve.storage.source import Source


class Silent(WrapperStore):
    """A store that answers none of the requests that begin like this, once it is silent."""

    def __init__(self, path: str, *kinds: str) -> None:
        super().__init__(LocalStore(path))
        self.kinds, self.silent, self.asked = kinds, False, Event()
        self.ended: list[bool] = []
        """Of each request that was not answered, whether it was given up."""

    async def _answer(self, request: str) -> None:
        if not (self.silent and request.startswith(self.kinds)):
            return
        self.asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.ended.append(True)
            raise
        self.ended.append(False)
        raise OSError("nobody answers")

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        await self._answer(f"get {key}")
        return await super().get(key, *arguments, **options)

    async def set(self, key: str, *arguments: Any, **options: Any) -> None:
        await self._answer(f"set {key}")
        await super().set(key, *arguments, **options)

    async def delete(self, key: str) -> None:
        await self._answer(f"delete {key}")
        await super().delete(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        await self._answer(f"list {prefix}")
        async for name in super().list_dir(prefix):
            yield name


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals, "PATIENCE", 0.2)


def resumed(batch: Stored) -> int:
    """How many blocks are done, of a job that is gone on with and comes to the right end."""
    report = solve_zarr(batch.a_path, batch.b_path, batch.out, resume=True)
    assert same_bits(batch.x, dasksolve.solve(batch.a, batch.b, on_singular="nan"))
    return report.blocks_resumed


@pytest.mark.parametrize("kinds", [("set x/", "set status/"), ("set ", "get ", "delete ")])
@pytest.mark.usefixtures("many_blocks")
def test_what_an_interrupted_job_has_in_hand_is_given_up(
    batch: Stored, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.job.planning._IN_HAND", 2)
    out = Silent(batch.out, *kinds)

    def interrupt(report: Report) -> None:
        out.silent = True
        if report.blocks_done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_zarr(batch.a_path, batch.b_path, out, workers=1, progress=interrupt)
    assert out.ended
    assert all(out.ended)
    assert 1 <= resumed(batch) < 10


@pytest.mark.usefixtures("many_blocks")
def test_what_an_interrupted_job_solves_is_kept_however_long_it_takes(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasksolve.job.planning._IN_HAND", 2)
    begun = []

    def slowly(*given: Any, solve: Any = backlog._solve) -> None:
        begun.append(given)
        time.sleep(0.5)  # longer than an interrupted job waits for a silent store
        solve(*given)

    def interrupt(report: Report) -> None:
        if report.blocks_done == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backlog, "_solve", slowly)
        far = WrapperStore(LocalStore(batch.out))
        with pytest.raises(KeyboardInterrupt):
            solve_zarr(batch.a_path, batch.b_path, far, workers=1, progress=interrupt)
    done = resumed(batch)
    assert done > 1
    assert (
        len(begun) == 3 * done
    )  # what is read is unpacked there, too, and what is found is packed


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager[None]]:
    """Within: Ctrl-C comes as an input is opened, once something else was asked for."""

    @contextmanager
    def within(asked: Event) -> Any:
        def opening(*_: Any) -> Source:
            assert asked.wait(60)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Source, "open", opening)
            yield

    return within


@pytest.mark.parametrize("kind", ["list ", "get "])
def test_what_is_looked_at_beside_what_is_interrupted_is_given_up(
    batch: Stored, kind: str, interrupted: Callable[..., AbstractContextManager[None]]
) -> None:
    solve_zarr(batch.a_path, batch.b_path, batch.out)
    out = Silent(batch.out, kind)
    out.silent = True
    with interrupted(out.asked), pytest.raises(KeyboardInterrupt):
        solve_zarr(batch.a_path, batch.b_path, out, resume=True)
    assert out.ended
    assert all(out.ended)


def test_an_output_that_cannot_be_created_is_given_up(
    batch: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Silent(batch.out, "set x/zarr.json")
    out.silent = True
    with monkeypatch.context() as patch:
        patch.setattr("dasksolve.job.write.run_job", lambda *_: _interrupt(out.asked))
        with pytest.raises(KeyboardInterrupt):
            solve_zarr(batch.a_path, batch.b_path, out)
    assert out.ended == [True]
    assert resumed(batch) == 0


def _interrupt(asked: Event) -> None:
    assert asked.wait(60)
    raise KeyboardInterrupt


def test_a_job_that_is_not_interrupted_waits_as_long_as_it_takes(batch: Stored) -> None:
    class Slow(WrapperStore):
        async def set(self, key: str, *arguments: Any, **options: Any) -> None:
            await asyncio.sleep(0.3)  # longer than an interrupted one is patient
            await super().set(key, *arguments, **options)

    report = solve_zarr(batch.a_path, batch.b_path, Slow(LocalStore(batch.out)))
    assert np.array_equal(report.flagged, (123, 456, 789))
