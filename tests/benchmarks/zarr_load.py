"""Whether memory stays flat over 100,000 blocks of 10 systems; a script.

One matrix for all and a b in chunks of 10 systems, so that every block is one small file to read
and two to write: the overhead of a job, and nothing else. The slope is that of a line through the
resident memory, sampled at every thousandth of the job but its first tenth.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import dasksolve
import dasksolve.job.planning
from dasksolve.job.memory import resident

N, SYSTEMS = 3, 10


def write(folder: Path, blocks: int) -> tuple[str, str]:
    """Store one matrix, and a b of so many chunks; return their paths."""
    zarr.create_array(folder / "a", data=np.eye(N) + 1)
    b = zarr.create_array(
        folder / "b",
        shape=(blocks * SYSTEMS, N, 1),
        chunks=(SYSTEMS, N, 1),
        dtype="f8",
        compressors=None,
    )
    chunk = np.ones((SYSTEMS, N)).tobytes()
    for i in range(blocks):  # zarr would take a minute for what these few lines do in seconds
        path = folder / "b" / b.metadata.encode_chunk_key((i, 0, 0))
        path.parent.mkdir(parents=True)
        path.write_bytes(chunk)
    return str(folder / "a"), str(folder / "b")


def run(folder: Path, blocks: int, workers: int) -> dict[str, Any]:
    """Solve, and fit the memory."""
    samples: list[tuple[int, int]] = []

    def progress(report: dasksolve.Report) -> None:
        done = report.blocks_done
        if done % max(1, blocks // 1000) == 0 and done >= blocks // 10:
            samples.append((done, resident()))

    report = dasksolve.solve_zarr(
        *write(folder, blocks), folder / "out", workers=workers, progress=progress
    )
    done, held = np.array(samples, float).T
    return {
        "blocks": report.blocks,
        "milliseconds_a_block": 1e3 * report.seconds / blocks,
        "bytes_a_block": float(np.polyfit(done, held, 1)[0]),
        "peak_mib": report.peak_memory / 2**20,
        "grown_mib": (held[-1] - held[0]) / 2**20,
    }


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where the data go; default: that of temporary files")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    dasksolve.job.planning._SMALL = 0  # the plan would join small chunks
    dasksolve.job.planning._BLOCKS_A_WORKER = options.blocks
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="dasksolve-load-") as folder:
        measured = run(Path(folder), options.blocks, options.workers)
    if options.json:
        print(json.dumps(measured, indent=1))
    else:
        print("\n".join(f"{name:<22} {value:,.2f}" for name, value in measured.items()))


if __name__ == "__main__":
    main()
