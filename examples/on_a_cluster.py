"""The same job on a cluster: python on_a_cluster.py [tcp://scheduler:8786].

Needs: pip install dasksolve
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr
from distributed import Client, LocalCluster

import dasksolve


def main(address: str | None) -> None:
    """Solve a small batch on the scheduler at `address`, or on two worker processes here."""
    cluster = address or LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with Client(cluster) as client, tempfile.TemporaryDirectory() as folder:
        print(f"{len(client.nthreads())} workers")
        rng = np.random.default_rng(0)
        # The folder must be one that every worker sees.
        data, out = Path(folder, "data.zarr"), Path(folder, "solved.zarr")
        group = zarr.create_group(data)
        group.create_array("a", data=rng.standard_normal((50_000, 8, 8)), chunks=(5_000, 8, 8))
        group.create_array("b", data=rng.standard_normal((50_000, 8)), chunks=(5_000, 8))
        print(dasksolve.solve_zarr(data / "a", data / "b", out))  # the current client is used
    if address is None:
        cluster.close()


if __name__ == "__main__":  # worker processes import this file
    main(sys.argv[1] if len(sys.argv) > 1 else None)
