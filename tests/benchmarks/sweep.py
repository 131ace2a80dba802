"""Where `numpy.linalg.solve` is faster than `dasksolve.solve`, if anywhere; a script.

Each ratio is NumPy's time over ours within one run: of the medians of rounds that take turns, on
one thread. What comes out below 1 is measured again with ten times the rounds before it is listed.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

import dasksolve
from dasksolve.command import bench

ORDERS = *range(1, 71), 81, 96, 100, 127, 128, 150, 200, 255, 256, 333, 400, 512, 555, 600
SYSTEMS = 1, 2, 3, 4, 7, 16, 100
COLUMNS = "1", "3", "N"
MOST = 64 << 20
"""Bytes of a, and of b, in the largest batch."""


class Case(NamedTuple):
    """What is measured."""

    dtype: str
    n: int
    systems: int
    k: int


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """All that were asked for and are not too large, without repetition."""
    for dtype in options.dtype:
        for n in options.n:
            for k in sorted({n if word == "N" else int(word) for word in options.k}):
                size = n * max(n, k) * np.dtype(dtype).itemsize
                yield from (Case(dtype, n, m, k) for m in options.systems if m * size <= MOST)


def ratio(case: Case, rounds: int) -> float:
    """How many times faster than NumPy."""
    a, b = bench.batch(case.n, np.dtype(case.dtype), case.k, case.systems)
    run = partial(dasksolve.solve, a, b, on_singular="nan")
    ours, theirs = bench.interleaved(rounds, run, partial(np.linalg.solve, a, b))
    return theirs / ours


def sweep(options: argparse.Namespace) -> dict[Case, float]:
    """The ratios that are below 1 twice; a line for each order says how it goes."""
    slower, worst, last = [], np.inf, None
    for case in cases(options):
        found = ratio(case, options.rounds)
        if found < 1:
            slower.append(case)
        if (case.dtype, case.n) != last:
            last, worst = (case.dtype, case.n), np.inf
            print(f"\n{case.dtype:<10} N = {case.n:3}: ", end="")
        if found < worst:
            worst = found
            print(f" {found:.2f} (M = {case.systems}, K = {case.k})", end="", flush=True)
    again = {case: ratio(case, 10 * options.rounds) for case in slower}
    return {case: found for case, found in again.items() if found < 1}


def main() -> int:
    """Print the progress, and then what is slower."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--n", type=int, nargs="+", default=ORDERS, metavar="N")
    words.add_argument("--systems", type=int, nargs="+", default=SYSTEMS, metavar="M")
    words.add_argument("--k", nargs="+", default=COLUMNS, metavar="K", help="N: an inverse")
    words.add_argument("--dtype", nargs="+", default=bench.DTYPES, choices=bench.DTYPES)
    words.add_argument("--rounds", type=int, default=5)
    options = words.parse_args()
    if any(os.environ.get(name) != "1" for name in bench.ONE_THREAD):
        environment = {**os.environ, **dict.fromkeys(bench.ONE_THREAD, "1")}
        return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode
    print(bench.machine(), end="")
    slower = sweep(options)
    print(f"\n\nslower than NumPy: {len(slower)} of {sum(1 for _ in cases(options))}")
    for case, found in sorted(slower.items()):
        print(f"{case.dtype:<10} N = {case.n:3}  M = {case.systems:7}  K = {case.k:3}  {found:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
