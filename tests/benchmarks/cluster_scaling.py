"""How much faster several worker processes finish a zarr job than one; a script.

The ratio is the median of rounds that take turns, on data that the page cache holds. The kernel is
cached, and the workers have started.
"""

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from dask.utils import parse_bytes
from distributed import Client, LocalCluster
from outputs import put_away
from zarr_throughput import CODECS, write

import dasksolve


def seconds(client: Client, paths: tuple[str, str], out: Path) -> float:
    """How long a job takes on a cluster."""
    started = time.perf_counter()
    dasksolve.solve_zarr(*paths, out, client=client)
    took = time.perf_counter() - started
    put_away(out)
    return took


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--codec", choices=CODECS, default="zstd")
    parser.add_argument("--size", default="2GiB", help="bytes of a")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", help="where the data go; default: that of temporary files")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        paths = write(folder / "data", options.n, parse_bytes(options.size), options.codec)
        clients = []
        for count in (1, options.processes):
            cluster = LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0")
            stack.enter_context(cluster)
            clients.append(stack.enter_context(Client(cluster, set_as_default=False)))
        rounds = [
            [seconds(client, paths, folder / "out") for client in clients]
            for _ in range(options.rounds + 1)
        ][1:]
    measured = {
        "n": options.n,
        "codec": options.codec,
        "processes": options.processes,
        "seconds_of_one": median(one for one, _ in rounds),
        "speedup": median(one / several for one, several in rounds),
    }
    if options.json:
        print(json.dumps(measured, indent=1))
    else:
        print("\n".join(f"{name:<15} {value}" for name, value in measured.items()))


if __name__ == "__main__":
    main()
