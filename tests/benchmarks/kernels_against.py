"""How fast `dasksolve.solve` is beside another version of the package, in one run; a script.

`python tests/benchmarks/kernels_against.py FOLDER` compares the package in FOLDER, for instance a
git worktree of the release before, with the one beside this file. Each has a process, and the two
take turns, so that noise hits both alike: the ratio is the median over the turns, and what is above
1 is faster than before. Whether x has the same bits is told too.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parents[2]
DTYPES = "float64", "float32", "complex128", "complex64"
TURN = 3e-3
"""Seconds at least that a version is measured in one turn."""


class Case(NamedTuple):
    """What is measured."""

    dtype: str
    n: int
    k: int
    structure: str
    kib: int
    """Of a."""


def solver(case: Case) -> tuple[Callable[[], Any], int]:
    """What solves the systems of a case, and how many they are."""
    import numpy as np

    import dasksolve

    dtype, n = np.dtype(case.dtype), case.n
    systems = max(8, (case.kib << 10) // (n * n * dtype.itemsize))
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((systems, n, n)), rng.standard_normal((systems, n, case.k))
    if dtype.kind == "c":
        a = a + 1j * rng.standard_normal(a.shape)
    if case.structure != "gen":  # definite, and no triangle that overflows
        a = (a + a.swapaxes(-1, -2).conj()) / (2 * n) + 2 * np.eye(n)
    a, b = a.astype(dtype), b.astype(dtype)
    return lambda: dasksolve.solve(a, b, assume_a=case.structure), systems


def work() -> None:
    """Measure the cases that standard input names, as often as it does: nanoseconds a system."""
    known: dict[str, tuple[Callable[[], Any], int, int, str]] = {}
    for line in sys.stdin:
        if line not in known:
            run, systems = solver(Case(*json.loads(line)))
            digest = hashlib.sha256(run().tobytes()).hexdigest()
            started = time.perf_counter()
            run()
            loops = max(1, int(TURN / (time.perf_counter() - started)))
            known = {line: (run, systems, loops, digest)}  # one case at a time is held
        run, systems, loops, digest = known[line]
        started = time.perf_counter()
        for _ in range(loops):
            run()
        print(json.dumps([(time.perf_counter() - started) / loops / systems * 1e9, digest]))
        sys.stdout.flush()


def version(folder: Path) -> Callable[[Case], tuple[float, str]]:
    """Measures a case once, in a process that imports the package of a folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    questions, replies = process.stdin, process.stdout
    assert questions is not None
    assert replies is not None

    def ask(case: Case) -> tuple[float, str]:
        questions.write(json.dumps(case) + "\n")
        questions.flush()
        nanoseconds, digest = json.loads(replies.readline())
        return nanoseconds, digest

    return ask


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """All that were asked for."""
    for structure in options.assume_a:
        for kib in options.kib:
            for dtype in options.dtype:
                for n in options.n:
                    yield Case(dtype, n, options.k, structure, kib)


def main() -> None:
    """Print a line a case."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("before", type=Path, metavar="FOLDER", help="that has the other package")
    words.add_argument("--now", type=Path, default=HERE, metavar="FOLDER")
    words.add_argument("--n", type=int, nargs="+", default=[8, 12, 16, 24, 32, 48, 64, 96])
    words.add_argument("--dtype", nargs="+", default=["float64", "float32"], choices=DTYPES)
    words.add_argument("--k", type=int, default=1, help="right-hand sides")
    words.add_argument("--assume-a", nargs="+", default=["gen"], metavar="WORD")
    words.add_argument("--kib", type=int, nargs="+", default=[256], help="of a (default: 256)")
    words.add_argument("--turns", type=int, default=15)
    options = words.parse_args()
    before, now = version(options.before.resolve()), version(options.now.resolve())
    print("structure         dtype         N     KiB  before, ns     now, ns  ratio  bits")
    for case in cases(options):
        (_, old), (_, new) = before(case), now(case)
        turns = [(before(case)[0], now(case)[0]) for _ in range(options.turns)]
        times = [median(times) for times in zip(*turns, strict=True)]
        ratio = median(one / other for one, other in turns)
        print(
            f"{case.structure:16}  {case.dtype:10}  {case.n:3}  {case.kib:6}  {times[0]:10.1f}  "
            f"{times[1]:10.1f}  {ratio:5.3f}  {'same' if old == new else 'other'}",
            flush=True,
        )


if __name__ == "__main__":
    work() if sys.argv[1:] == ["--worker"] else main()
