"""Times zarr jobs whose storage is far away: against requests alone, and against another version.

    python tests/benchmarks/far_storage.py --latency 0.05 0.2 --blocks 256 --megabytes 4

A store is far by zarr's LatencyStore, which waits before each request (--through zarr), or is an
S3 server behind a proxy whose answers wait, and whose connections have so many bytes a second
(--through s3). The floor: every request of the blocks, with as many blocks at once as the memory
limit holds, and nothing solved. --against FOLDER: where another version of the package lies; the
best of its --workers counts. It may write to paths alone, so that with zarr's store both outputs
are near then.
"""

import argparse
import asyncio
import inspect
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from outputs import put_away
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore
from zarr.testing.store import LatencyStore

ROOT = Path(__file__).parents[2]
N = 8


def main() -> None:
    """Print a line for each latency."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--through", choices=["zarr", "s3"], default="zarr")
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.02, 0.05, 0.2])
    parser.add_argument("--bandwidth", type=float, default=50e6, help="bytes/s of a connection")
    parser.add_argument("--blocks", type=int, default=64)
    parser.add_argument("--megabytes", type=int, default=4)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[64, 32, 8, 2])
    parser.add_argument("--processes", type=int, default=0, help="a cluster of so many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", help="of S3; default: moto")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        obey(options.processes)
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = ""
        if options.through == "s3":
            server = options.server or stack.enter_context(running(serve))
            os.environ |= credentials(server)
        write(folder, server, options.blocks, options.megabytes)
        print(f"{'latency':>7} {'call':>6} {'blocks':>6} {'floor':>6} {'ratio':>5}", end="")
        print(f" {'here':>6} {'other':>6} {'workers':>7} {'ratio':>5}" if options.against else "")
        for latency in options.latency:
            measure(options, folder, server, latency)


def measure(options: argparse.Namespace, folder: Path, server: str, latency: float) -> None:
    """Time the job, the floor and the other version in turns; print the medians."""
    with ExitStack() as stack:
        url = server
        if server:
            url = stack.enter_context(running(stand_between, server, latency, options.bandwidth))
        asked = {"folder": str(folder), "url": url, "latency": latency}
        ours = stack.enter_context(version(ROOT, url, options.processes))
        ours.job(**asked)
        least = {"do": "floor", **asked}
        turns = [lambda: ours.job(**asked), lambda: ours.ask(**least)]
        best = 0
        if options.against:
            theirs = stack.enter_context(version(options.against, url, options.processes))
            times: dict[int, float] = {}
            for workers in options.workers:
                times[workers] = theirs.job(**asked, near=True, workers=workers)["call"]
                if times[workers] > 1.5 * min(times.values()):
                    break
            best = min(times, key=times.__getitem__)
            turns.append(lambda: ours.job(**asked, near=True))
            turns.append(lambda: theirs.job(**asked, near=True, workers=best))
        seen = [[turn() for turn in turns] for _ in range(options.rounds)]
    medians = [
        {what: statistics.median(times[what] for times in of_turn) for what in of_turn[0]}
        for of_turn in zip(*seen, strict=True)
    ]
    job, floor = medians[0], medians[1]["call"]
    print(f"{latency:7.3f} {job['call']:6.2f} {job['blocks']:6.2f} {floor:6.2f}", end=" ")
    print(f"{job['blocks'] / floor:5.2f}", end=" ")
    if best:
        near, other = medians[2]["call"], medians[3]["call"]
        print(f"{near:6.2f} {other:6.2f} {best:7} {near / other:5.2f}", end=" ")
    print(flush=True)


class Version:
    """A process that has imported the package from a folder, and does what it is told."""

    def __init__(self, process: Any) -> None:
        self.process = process

    def ask(self, **what: Any) -> dict[str, float]:
        """Have it done; return the seconds."""
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def job(self, **how: Any) -> dict[str, float]:
        """A job, and what it wrote put away."""
        return self.ask(do="job", **how)


@contextmanager
def version(folder: Path, url: str, processes: int) -> Iterator[Version]:
    """Start one."""
    words = [sys.executable, __file__, "--child", "--processes", str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    if url:
        environment["AWS_ENDPOINT_URL"] = url
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=environment, cwd=folder, **pipes) as process:
        yield Version(process)
        process.stdin.close()


def obey(processes: int) -> None:
    """Do what is asked, line by line."""
    with ExitStack() as stack:
        client = None
        if processes:
            from distributed import Client, LocalCluster

            cluster = LocalCluster(
                n_workers=processes, threads_per_worker=1, dashboard_address=":0"
            )
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        for line in sys.stdin:
            asked = json.loads(line)
            do = {"job": job, "floor": floor}[asked.pop("do")]
            print(json.dumps(do(client=client, **asked)), flush=True)


def job(
    folder: str,
    url: str,
    latency: float,
    client: Any,
    near: bool = False,
    workers: int | None = None,
) -> dict[str, float]:
    """Seconds of a job: of the call, and of its blocks alone."""
    import dasksolve

    a, b, out = places(folder, url, latency)
    how: dict[str, Any] = {"workers": workers, "client": client}
    if near and not url:
        out = Path(folder, "out")
        if "durable" in inspect.signature(dasksolve.solve_zarr).parameters:
            how["durable"] = False
    began = time.perf_counter()
    report = dasksolve.solve_zarr(a, b, out, **how)
    seconds = time.perf_counter() - began
    clear(folder, url)
    return {"call": seconds, "blocks": report.seconds}


def floor(folder: str, url: str, latency: float, client: Any) -> dict[str, float]:
    """Seconds of the same requests, as many blocks at once as the memory limit holds."""
    from dasksolve.batch.options import Options
    from dasksolve.job.prepare import JobOptions, prepare
    from dasksolve.job.systems import Systems
    from dasksolve.storage import internals

    *inputs, out = places(folder, url, latency)
    options = JobOptions(client=client)
    prepared = prepare(lambda: Systems.open(*inputs, Options("gen")), out, options)
    plan, store = prepared.plan, prepared.store
    a, b = (source.array for source in prepared.work.sources)
    prototype = default_buffer_prototype()
    systems = plan.block_shape[0]
    x, status = (prototype.buffer.from_bytes(bytes(n * systems)) for n in (8 * N, 1))
    held = (plan.memory_limit - plan.base_memory) // plan.block_memory
    turns = asyncio.Semaphore(held * prepared.scheduler.processes)

    async def block(number: int) -> None:
        async with turns:
            await asyncio.gather(
                a.store.get(internals.key(a, f"c/{number}/0/0"), prototype),
                b.store.get(internals.key(b, f"c/{number}/0"), prototype),
            )
            await store.set(f"x/c/{number}/0", x)
            await store.set(f"status/c/{number}", status)

    async def all_blocks() -> None:
        await asyncio.gather(*map(block, range(plan.blocks)))

    began = time.perf_counter()
    internals.run(all_blocks())
    seconds = time.perf_counter() - began
    clear(folder, url)
    return {"call": seconds, "blocks": seconds}


def places(folder: str, url: str, latency: float) -> tuple[Any, Any, Any]:
    """a, b and the output, far away."""
    if url:
        return tuple(f"s3://systems/{name}" for name in ("data.zarr/a", "data.zarr/b", "out.zarr"))
    wait = {"get_latency": latency, "set_latency": latency}
    a, b = (
        zarr.open_array(LatencyStore(LocalStore(f"{folder}/{name}", read_only=True), **wait))
        for name in "ab"
    )
    return a, b, LatencyStore(LocalStore(f"{folder}/out"), **wait)


def clear(folder: str, url: str) -> None:
    """Put away what was written."""
    if url:
        import s3fs

        s3fs.S3FileSystem(use_listings_cache=False).rm("s3://systems/out.zarr", recursive=True)
    else:
        put_away(Path(folder, "out"))


def write(folder: Path, server: str, blocks: int, megabytes: int) -> None:
    """A batch of so many chunks."""
    systems = (megabytes << 20) // (8 * N * N)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((systems, N, N)), rng.standard_normal((systems, N))
    root = str(folder)
    if server:
        import s3fs

        s3fs.S3FileSystem().mkdir("s3://systems")
        root = "s3://systems/data.zarr"
    for name, values in (("a", a), ("b", b)):
        shape = (systems * blocks, *values.shape[1:])
        array = zarr.create_array(
            f"{root}/{name}", shape=shape, chunks=values.shape, dtype="f8", compressors=None
        )
        for i in range(blocks):
            array[i * systems : (i + 1) * systems] = values


def credentials(server: str) -> dict[str, str]:
    """What programs find an S3 server by."""
    return {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testingtesting",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextmanager
def running(server: Any, *arguments: Any) -> Iterator[str]:
    """A server in a process of its own; its URL."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=server, args=(there, *arguments), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def serve(pipe: Any) -> None:
    """An S3 server."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    http = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), True)
    pipe.send(f"http://127.0.0.1:{http.server_port}")
    http.serve_forever()


def stand_between(pipe: Any, server: str, latency: float, bandwidth: float) -> None:
    """A proxy before it."""
    sys.path.insert(0, str(ROOT / "tests"))
    from proxy import Proxy

    with Proxy(server, latency, bandwidth) as proxy:
        pipe.send(proxy.url)
        proxy.thread.join()


if __name__ == "__main__":
    main()
