"""What diagnostics, kept factors and mixed precision cost beside `solve`; a script.

Each figure is a ratio of the times of two that take turns: medians, on one thread.

- ``solve_ex``: `dasksolve.solve_ex` over `dasksolve.solve`.
- ``factor``: `dasksolve.factor` over `dasksolve.solve`.
- ``slogdet``: `numpy.linalg.slogdet` over `factor(a).slogdet()`.
- ``reuse``: `dasksolve.solve` over `Factorization.solve` of a new b.
- ``mixed``: `dasksolve.solve` over LU in float32, refined with residuals in float64 until no
  backward error is above 4 eps; above 1 it would be faster.
"""

import argparse
import json
from itertools import product
from typing import Any

import numpy as np

import dasksolve
from dasksolve import kernels
from dasksolve.batch import pieces
from dasksolve.batch.refinement import ENOUGH
from dasksolve.command.bench import DTYPES, batch, interleaved

ORDERS = 2, 4, 8, 16, 32, 64, 96, 128, 256, 512
RATIOS = "solve_ex", "factor", "slogdet", "reuse", "mixed"
STEPS = 10


def mixed(a: Any, b: Any) -> Any:
    """x to the backward error of float64, by factors in float32."""
    n, eps = a.shape[-1], np.finfo(float).eps
    x = np.zeros_like(b)
    float32 = np.dtype(np.float32)
    factor = kernels.factoring(n, float32)
    substitute = kernels.substituting(n, 1, len(b), float32, False)
    for _, part in pieces.pieces(a.shape[:1], pieces.piece_size(n, 1, 8)):
        low, rest = a[part].astype(float32), b[part]
        lu, order = np.empty_like(low), np.empty(low.shape[:2], np.int32)
        factor(low, lu, order, np.empty(len(low), np.int8), np.empty(len(low)))
        step = np.empty((*rest.shape, 1), float32)
        norms = np.linalg.norm(a[part], np.inf, (-2, -1)), np.abs(rest).max(-1)
        for _ in range(STEPS):
            substitute(lu, order, rest[..., None].astype(float32), step)
            x[part] += step[..., 0]
            rest = b[part] - np.matmul(a[part], x[part][..., None])[..., 0]
            scale = norms[0] * np.abs(x[part]).max(-1) + norms[1]
            if (np.abs(rest).max(-1) <= ENOUGH * eps * scale).all():
                break
    return x


def measure(n: int, dtype: str, rounds: int, size: int) -> dict[str, Any]:
    """The ratios at one N; `mixed` of float64 alone."""
    systems = max(8, size // (np.dtype(dtype).itemsize * n * n))
    a, b = batch(n, np.dtype(dtype), systems=systems)
    b = b[..., 0]
    f = dasksolve.factor(a)
    row: dict[str, Any] = {"dtype": dtype, "n": n}
    more = {"solve_ex": lambda: dasksolve.solve_ex(a, b), "factor": lambda: dasksolve.factor(a)}
    for name, run in more.items():
        ours, theirs = interleaved(rounds, run, lambda: dasksolve.solve(a, b))
        row[name] = ours / theirs
    ours, theirs = interleaved(
        rounds, lambda: dasksolve.factor(a).slogdet(), lambda: np.linalg.slogdet(a)
    )
    row["slogdet"] = theirs / ours
    work = {"reuse": lambda: f.solve(b), "mixed": lambda: mixed(a, b)}
    for name in work if dtype == "float64" else ("reuse",):
        run = work[name]
        ours, theirs = interleaved(rounds, run, lambda: dasksolve.solve(a, b))
        row[name] = theirs / ours
    return row


def main() -> None:
    """Print a table, or lines of JSON."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--n", type=int, nargs="+", default=ORDERS)
    words.add_argument("--dtype", nargs="+", default=["float64"], choices=DTYPES)
    words.add_argument("--rounds", type=int, default=9)
    words.add_argument("--mib", type=int, default=32, help="size of a (default: 32 MiB)")
    words.add_argument("--json", action="store_true")
    options = words.parse_args()
    if not options.json:
        print("dtype          N  " + "  ".join(f"{name:>8}" for name in RATIOS))
    for dtype, n in product(options.dtype, options.n):
        row = measure(n, dtype, options.rounds, options.mib << 20)
        if options.json:
            print(json.dumps(row))
        else:
            ratios = "  ".join(f"{row.get(name, np.nan):8.2f}" for name in RATIOS)
            print(f"{dtype:10}  {n:4}  {ratios}")


if __name__ == "__main__":
    main()
