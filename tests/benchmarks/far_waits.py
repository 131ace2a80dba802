"""Counts how often a small job waits for far storage: begun anew, resumed, replaced and checked.

    python tests/benchmarks/far_waits.py --latency 0.1

Of a cube with four coordinates, as xarray writes it, every series is fitted. Each request waits,
also those that list, look and delete, which zarr's LatencyStore leaves out: the seconds that a job
takes, in latencies, are the requests that come one after the other, and its own time.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.storage import LocalStore, WrapperStore

import dasksolve


class Late(WrapperStore):
    """A store each of whose requests waits."""

    latency = 0.0

    async def get(self, *arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(self.latency)
        return await super().get(*arguments, **options)

    async def set(self, *arguments: Any, **options: Any) -> None:
        await asyncio.sleep(self.latency)
        await super().set(*arguments, **options)

    async def exists(self, key: str) -> bool:
        await asyncio.sleep(self.latency)
        return await super().exists(key)

    async def delete(self, key: str) -> None:
        await asyncio.sleep(self.latency)
        await super().delete(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        await asyncio.sleep(self.latency)
        async for name in super().list_dir(prefix):
            yield name


def main() -> None:
    """Print the waits of each kind of job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds")
    Late.latency = parser.parse_args().latency
    with tempfile.TemporaryDirectory() as folder:
        root, rng = Path(folder), np.random.default_rng(0)
        cube = xr.Dataset(
            {"y": (("time", "lat", "lon"), rng.random((24, 40, 60)))},
            coords={name: (("lat", "lon"), rng.random((40, 60))) for name in ("area", "height")}
            | {"lat": np.arange(40.0), "lon": np.arange(60.0)},
        )
        cube.to_zarr(root / "in", zarr_format=3, encoding={"y": {"chunks": (24, 20, 20)}})
        y = zarr.open_array(Late(LocalStore(root / "in", read_only=True)), path="y", mode="r")
        design = np.stack([np.ones(24), np.arange(24)], axis=1)
        dasksolve.regress_zarr(root / "in/y", design, root / "first")  # what is done once
        given = y, design, Late(LocalStore(root / "out"))
        jobs = {
            "new": partial(dasksolve.regress_zarr, *given),
            "resume": partial(dasksolve.regress_zarr, *given, resume=True),
            "overwrite": partial(dasksolve.regress_zarr, *given, overwrite=True),
            "check": partial(dasksolve.check_zarr, *given),
        }
        for what, job in jobs.items():
            began = time.perf_counter()
            job()
            waits = (time.perf_counter() - began) / Late.latency
            print(f"{what:>10} {waits:5.1f} waits", flush=True)


if __name__ == "__main__":
    main()
