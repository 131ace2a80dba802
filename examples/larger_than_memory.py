"""A batch in zarr: solved block by block under a memory limit, into a group that xarray reads.

Needs: pip install dasksolve
"""

import tempfile
from pathlib import Path

import numpy as np
import zarr

import dasksolve

SYSTEMS, N, CHUNK = 400_000, 8, 10_000

with tempfile.TemporaryDirectory() as folder:
    data, out = Path(folder, "data.zarr"), Path(folder, "solved.zarr")
    group = zarr.create_group(data)
    a = group.create_array("a", shape=(SYSTEMS, N, N), chunks=(CHUNK, N, N), dtype="f8")
    b = group.create_array("b", shape=(SYSTEMS, N), chunks=(CHUNK, N), dtype="f8")
    rng = np.random.default_rng(0)
    for start in range(0, SYSTEMS, CHUNK):
        a[start : start + CHUNK] = rng.standard_normal((CHUNK, N, N))
        b[start : start + CHUNK] = rng.standard_normal((CHUNK, N))

    report = dasksolve.solve_zarr(data / "a", data / "b", out, memory_limit="256MiB")
    print(report)
    # Run it again with resume=True after an interruption: what is done is not solved again.
    again = dasksolve.solve_zarr(data / "a", data / "b", out, memory_limit="256MiB", resume=True)
    print(f"resumed: {again.blocks_resumed} of {again.blocks} blocks were done")
    checked = dasksolve.check_zarr(data / "a", data / "b", out)
    print(f"worst backward error {checked.worst_backward_error:.1e}")
