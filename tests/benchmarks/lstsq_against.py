"""How much faster `lstsq` is than a loop of NumPy's, and than torch's batch if it is installed.

Medians of calls that take turns, in one thread each if OMP_NUM_THREADS=1 says so to NumPy.
"""

import argparse
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np

import dasksolve
from dasksolve.command.bench import timed

SIZES = ((120, 6, 20_000), (30, 3, 100_000))
FEW = 20
"""The others solve one in so many: they take long."""


def others(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """What is compared with, by name."""

    def loop() -> None:
        for one, side in zip(a, b, strict=True):
            np.linalg.lstsq(one, side, rcond=None)

    found = {"loop": loop}
    if find_spec("torch"):
        torch = import_module("torch")
        torch.set_num_threads(1)
        tensors = torch.from_numpy(a), torch.from_numpy(b[..., None])
        found["torch"] = lambda: torch.linalg.lstsq(*tensors)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for rows, n, count in SIZES:
        for dtype in ("float64", "float32"):
            rng = np.random.default_rng(0)
            a = rng.standard_normal((count, rows, n)).astype(dtype)
            b = rng.standard_normal((count, rows)).astype(dtype)
            rivals, few = others(a[: count // FEW], b[: count // FEW]), count // FEW
            turns = []
            for _ in range(options.rounds + 1):
                ours = timed(lambda a=a, b=b: dasksolve.lstsq(a, b), 1) / count
                turns.append([ours, *(timed(run, 1) / few for run in rivals.values())])
            ours, *_ = (median(times) for times in zip(*turns[1:], strict=True))
            ratios = [median(t[i] / t[0] for t in turns[1:]) for i in range(1, len(rivals) + 1)]
            text = (f"{name} {ratio:.1f}x" for name, ratio in zip(rivals, ratios, strict=True))
            print(f"{rows} x {n} {dtype}: {1e9 * ours:.0f} ns a system;", *text, flush=True)


if __name__ == "__main__":
    main()
