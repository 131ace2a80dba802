"""Storage that is far away from the workers of a cluster."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import zarr
from distributed import Client
from families import same_bits
from stored import Stored
from turnstile import Turnstile
from zarr.storage import LocalStore, WrapperStore
from zarr.testing.store import LatencyStore

import dasksolve
from dasksolve import solve_zarr


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
