"""What the first call of a process takes, with and without the kernel on disk; a script.

Every call is the first of a new process. The cache on disk is empty for the one that compiles, and
is what that one left for those that load, whose median counts. ``--imports`` measures instead what
``import dasksolve`` takes beside numba, numpy, dask.array and zarr alone.
"""

import argparse
import json
import os
import subprocess
import sys
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

DTYPES = "float64", "float32", "complex128", "complex64"
CALLS = {
    "gen": "solve(a, b)",
    "few": "solve(a[:1], b[:1])",
    "ex": "solve_ex(a, b)",
    "factor": "factor(a)",
    "reuse": "factor(a).solve(b)",
    "pos": "solve(a, b, assume_a='pos')",
    "sym": "solve(a, b, assume_a='sym')",
    "upper": "solve(a, b, assume_a='upper triangular')",
    "lower": "solve(a, b, assume_a='lower triangular')",
    "diagonal": "solve(a, b, assume_a='diagonal')",
    "tridiagonal": "solve(a, b, assume_a='tridiagonal')",
}
FIRST_CALL = """
import time
import numpy as np
import dasksolve
a = np.eye({n}, dtype="{dtype}")[None].repeat(64, axis=0)
b = np.ones(a.shape[:2], a.dtype)
start = time.perf_counter()
dasksolve.{call}
print(time.perf_counter() - start)
"""
IMPORTS = {
    "others": "numba, numpy, dask.array, zarr",
    "dasksolve": "dasksolve",
}
IMPORT = """
import time
start = time.perf_counter()
import {modules}
print(time.perf_counter() - start)
"""


def seconds(program: str, **environment: str) -> float:
    """What a program in a process of its own measured."""
    command = [sys.executable, "-c", program]
    environment = {**os.environ, **environment}
    return float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


def measure(what: str, n: int, dtype: str, rounds: int) -> dict[str, Any]:
    """Seconds of one call, compiled and loaded."""
    program = FIRST_CALL.format(n=n, dtype=dtype, call=CALLS[what])
    with TemporaryDirectory() as folder:
        times = [seconds(program, NUMBA_CACHE_DIR=folder) for _ in range(rounds + 1)]
    return {
        "call": what,
        "n": n,
        "dtype": dtype,
        "compiled": times[0],
        "loaded": median(times[1:]) if rounds else None,
    }


def measure_imports(rounds: int) -> dict[str, float]:
    """Seconds of imports, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds + 1):  # the first reads the disk
        for name, modules in IMPORTS.items():
            times[name].append(seconds(IMPORT.format(modules=modules)))
    return {name: median(values[1:]) for name, values in times.items()}


def main() -> None:
    """Print a table, or lines of JSON."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--call", nargs="+", default=["gen"], choices=CALLS)
    words.add_argument("--n", type=int, nargs="+", default=[3, 32, 200])
    words.add_argument("--dtype", nargs="+", default=["float64", "complex128"], choices=DTYPES)
    words.add_argument("--rounds", type=int, default=5, help="processes that load")
    words.add_argument("--imports", action="store_true", help="measure imports instead")
    words.add_argument("--json", action="store_true")
    options = words.parse_args()
    if options.imports:
        found = measure_imports(options.rounds)
        print(json.dumps(found) if options.json else found)
        return
    if not options.json:
        print("call         N  dtype       compiled, s  loaded, s")
    for what in options.call:
        for n in options.n:
            for dtype in options.dtype:
                row = measure(what, n, dtype, options.rounds)
                if options.json:
                    print(json.dumps(row), flush=True)
                    continue
                loaded = "" if row["loaded"] is None else f"{row['loaded']:10.3f}"
                print(f"{what:11} {n:3}  {dtype:10}  {row['compiled']:11.2f} {loaded}", flush=True)


if __name__ == "__main__":
    main()
