"""`dasksolve bench`: `dasksolve.solve` against NumPy on this machine, as a table."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dasksolve.api import solve
from dasksolve.batch.options import STRUCTURES, short_word
from dasksolve.command import picture
from dasksolve.command.speech import say
from dasksolve.kernels.language.target import processor

T = TypeVar("T")
ORDERS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512)
DTYPES = ("float64", "float32", "complex128", "complex64")
BATCH = 32 << 20
"""Bytes of a in a batch: more than a cache holds."""
IN_CACHE = 256 << 10
"""The same of one that stays in the second level of the cache."""
MOST_IN_CACHE = 96
"""The largest order of which that holds two vectors' worth of systems."""
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Row:
    """One case, measured."""

    dtype: str
    n: int
    k: int
    systems: int
    nanoseconds: float
    """Of dasksolve, a system."""
    baseline_nanoseconds: float
    """Of what it is compared with, a system: NumPy, one worker, or the general kernel."""
    gigabytes: float
    """Of a (all of it), b and x, a second."""
    gigaflops: float
    """Real operations of LU a second: 2/3 N³ + 2 N² K, four times as many if complex."""
    bandwidth: float
    """Share of the rate at which one thread reads memory."""
    dot: float
    """Share of the rate of `numpy.dot` of matrices."""

    @property
    def ratio(self) -> float:
        """How many times faster than the baseline."""
        return self.baseline_nanoseconds / self.nanoseconds


def positive(word: str) -> int:
    """A positive number on the command line."""
    if not word.isdecimal() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"{word} is not a positive number")
    return int(word)


def columns(word: str) -> int | None:
    """The same; None for as many as there are unknowns."""
    return None if word == "N" else positive(word)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The words that `dasksolve bench` understands."""
    command.description = (
        f"{command.description} Times are in nanoseconds a\nsystem. Of limit: for N up to 8, the "
        "share of the rate at which one thread\nreads memory; from N = 64 on, and in the cache, "
        "of the rate of numpy.dot."
    )
    command.add_argument(
        "--n",
        type=positive,
        nargs="+",
        metavar="N",
        help="orders, one or several (default: 2 to 512; in the cache 2 to 96; with --regress 6)",
    )
    command.add_argument(
        "--dtype",
        nargs="+",
        default=DTYPES,
        choices=DTYPES,
        metavar="D",
        help=f"{', '.join(DTYPES)} (default: all four)",
    )
    command.add_argument(
        "--k",
        type=columns,
        default=1,
        metavar="K",
        help="right-hand sides; N: an inverse (default: 1)",
    )
    command.add_argument(
        "--assume-a",
        type=short_word,
        default="gen",
        choices=STRUCTURES,
        metavar="WORD",
        help=f"compare this structure with dasksolve's own general kernel: {', '.join(STRUCTURES)}",
    )
    size = command.add_mutually_exclusive_group()
    size.add_argument(
        "--systems", type=positive, metavar="M", help="in the batch (default: 32 MiB of them)"
    )
    size.add_argument(
        "--in-cache",
        action="store_true",
        help="256 KiB of them: how fast the kernels are, whatever the memory",
    )
    command.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="compare N threads with one"
    )
    command.add_argument(
        "--rounds",
        type=positive,
        default=5,
        metavar="R",
        help="runs, whose median counts (default: 5)",
    )
    command.add_argument("--json", action="store_true", help="print the rows as JSON")
    command.add_argument(
        "--regress",
        action="store_true",
        help="measure regressions on N columns, of 100,000 series (--systems), against normal "
        "equations by matrix products, a loop of numpy.linalg.lstsq, and xarray and torch if "
        "they are installed; times are then in nanoseconds a series",
    )
    command.add_argument(
        "--observations",
        type=positive,
        default=120,
        metavar="P",
        help="of each series, of which a fifth is missing (default: 120)",
    )
    command.add_argument(
        "--plot",
        type=os.path.expanduser,
        metavar="FILE.png",
        help="draw the ratios (needs matplotlib)",
    )
    command.set_defaults(default_of=command.get_default)


def refuse_unused(options: argparse.Namespace, what: str, unused: Iterable[str]) -> None:
    """Refuse what was asked for, and would not be done."""
    given = [name for name in unused if getattr(options, name) != options.default_of(name)]
    if given:
        words = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ValueError(f"{what} does nothing with {words}: leave it out")


def one_thread(options: argparse.Namespace) -> int | None:
    """Begin again in a process whose BLAS has one thread; None where this one's has."""
    if all(os.environ.get(name) == "1" for name in ONE_THREAD):
        return None
    # BLAS reads these once, when NumPy is imported.
    environment = {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}
    again = [sys.executable, "-m", "dasksolve.cli", *options.words]
    with subprocess.Popen(again, env=environment) as process:
        try:
            return process.wait()
        except KeyboardInterrupt as stop:
            if type(stop) is KeyboardInterrupt:  # and not what SIGTERM raises
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(10)  # Ctrl-C is for both, and that one says so
            process.terminate()  # a signal was for this process alone
            return process.wait()


def run(options: argparse.Namespace) -> int:
    """Measure and print the table, with one thread for BLAS too."""
    refuse_unused(options, "a bench without --regress", ["observations"])
    if options.plot is not None:
        picture.refuse(Path(options.plot))  # before minutes of measuring
    again = one_thread(options)
    if again is not None:
        return again
    line = partial(_line, in_cache=options.in_cache)
    rows = tabulated(
        measure(options),
        options.json,
        _head(_baseline(options)),
        line,
        lambda row: {**asdict(row), "ratio": row.ratio},
    )
    if rows is None:
        return 1
    if options.plot is not None:
        title = machine().split(";")[0]
        picture.draw(rows, options.plot, _baseline(options), title)
    return 0


def tabulated(
    rows: Iterable[T],
    as_json: bool,
    head: str,
    line: Callable[[T], str],
    record: Callable[[T], dict[str, Any]],
) -> list[T] | None:
    """Print each row as it is measured, or all at the end; None: nobody reads on."""
    if not as_json and not say(f"{machine()}\n{head}"):
        return None
    measured = []
    for row in rows:
        measured.append(row)
        if not as_json and not say(line(row)):
            return None  # no reason to measure for minutes
    if as_json and not say(json.dumps({"machine": machine(), "rows": [*map(record, measured)]})):
        return None
    return measured


def _baseline(options: argparse.Namespace) -> str:
    if options.workers > 1:
        return "one worker"
    return "NumPy" if options.assume_a == "gen" else "gen"


def _head(baseline: str) -> str:
    return (
        f"{'dtype':<10} {'N':>4} {'ns/system':>11} {baseline:>11} {'ratio':>6} {'GB/s':>6} "
        f"{'GFLOP/s':>8} {'of limit':>9}"
    )


def _line(row: Row, in_cache: bool) -> str:
    limit = ""
    if in_cache or row.n >= 64:
        limit = f"{row.dot:.0%} dot"
    elif row.n <= 8:
        limit = f"{row.bandwidth:.0%} mem"
    return (
        f"{row.dtype:<10} {row.n:>4} {row.nanoseconds:>11,.1f} {row.baseline_nanoseconds:>11,.1f} "
        f"{row.ratio:>6.1f} {row.gigabytes:>6.1f} {row.gigaflops:>8.1f} {limit:>9}"
    )


def machine() -> str:
    """What was measured: the processor and the versions."""
    names = [line for line in _processor_lines() if line.startswith("model name")]
    named = names[0].split(":")[1].strip() if names else processor()
    packages = ", ".join(f"{name} {version(name)}" for name in ("dasksolve", "numba", "numpy"))
    return f"{named}; {packages}, Python {platform.python_version()}"


def _processor_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Measure every case: medians of runs that take turns."""
    bandwidth = memory_bandwidth()
    most, size = (MOST_IN_CACHE, IN_CACHE) if options.in_cache else (max(ORDERS), BATCH)
    for dtype in map(np.dtype, options.dtype):
        dot = dot_rate(dtype)
        for n in options.n or [order for order in ORDERS if order <= most]:
            a, b = batch(n, dtype, options.k or n, options.systems, size)
            if options.assume_a != "gen":  # definite, and no triangle that overflows
                a = (a + a.swapaxes(-1, -2).conj()) / (2 * n) + 2 * np.eye(n, dtype=dtype)
            yield measure_case(a, b, options, bandwidth, dot)


def batch(
    n: int, dtype: np.dtype[Any], k: int = 1, systems: int | None = None, size: int = BATCH
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Random systems; by default as many as fill `size` bytes, a multiple of 16."""
    count = systems or max(16, size // (n * n * dtype.itemsize) // 16 * 16)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((count, n, n)), rng.standard_normal((count, n, k))
    if dtype.kind == "c":
        return (a + 1j * rng.standard_normal(a.shape)).astype(dtype), b.astype(dtype)
    return a.astype(dtype), b.astype(dtype)


def measure_case(
    a: NDArray[Any], b: NDArray[Any], options: argparse.Namespace, bandwidth: float, dot: float
) -> Row:
    """Measure one batch."""
    run = partial(solve, a, b, on_singular="nan")
    baseline = {
        "NumPy": partial(np.linalg.solve, a, b),
        "one worker": partial(run, assume_a=options.assume_a),
        "gen": run,
    }[_baseline(options)]
    measured = partial(run, assume_a=options.assume_a, workers=options.workers)
    ours, theirs = interleaved(options.rounds, measured, baseline)
    systems, n, k = b.shape
    gigabytes = (a.nbytes + 2 * b.nbytes) / ours / 1e9
    operations = (2 / 3 * n**3 + 2 * n**2 * k) * (4 if a.dtype.kind == "c" else 1)
    gigaflops = operations * systems / ours / 1e9
    return Row(
        dtype=a.dtype.name,
        n=n,
        k=k,
        systems=systems,
        nanoseconds=ours / systems * 1e9,
        baseline_nanoseconds=theirs / systems * 1e9,
        gigabytes=gigabytes,
        gigaflops=gigaflops,
        bandwidth=gigabytes / bandwidth,
        dot=gigaflops / dot,
    )


def interleaved(rounds: int, *runs: Callable[[], Any]) -> list[float]:
    """Median seconds of each, taking turns, so that noise hits all alike; one turn to warm up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    loops = [max(1, int(1e-3 / timed(run, 1))) for run in runs]
    for _ in range(rounds):
        for run, times, count in zip(runs, seconds, loops, strict=True):
            times.append(timed(run, count))
    return [statistics.median(times) for times in seconds]


def timed(run: Callable[[], Any], loops: int) -> float:
    """Seconds of one run, the mean of so many."""
    started = time.perf_counter()
    for _ in range(loops):
        run()
    return (time.perf_counter() - started) / loops


def memory_bandwidth() -> float:
    """GB/s at which one thread reads memory."""
    values = np.ones(1 << 25)
    (seconds,) = interleaved(5, lambda: np.dot(values, values))
    return values.nbytes / seconds / 1e9


def dot_rate(dtype: np.dtype[Any]) -> float:
    """GFLOP/s of `numpy.dot` of two matrices of order 1,024."""
    values = np.ones((1024, 1024), dtype)
    (seconds,) = interleaved(5, lambda: np.dot(values, values))
    return 2 * 1024**3 * (4 if dtype.kind == "c" else 1) / seconds / 1e9
