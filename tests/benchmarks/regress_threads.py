"""How much faster several threads fit series than one; a script.

Medians of calls that take turns. A call takes milliseconds: what else runs on the machine counts.
"""

import argparse
from functools import partial
from statistics import median

import numpy as np

from dasksolve import regress
from dasksolve.command.bench import timed
from dasksolve.command.bench_regress import series


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    for dtype in ("float64", "float32"):
        design, y = series(6, 120, options.series, np.dtype(dtype))
        for axis, layout in enumerate(("time first", "time last")):
            given = np.ascontiguousarray(y.T if axis else y)
            one = partial(regress, given, design, axis=axis)
            several = partial(one, workers=options.workers)
            turns = [(timed(one, 1), timed(several, 1)) for _ in range(options.rounds + 1)][1:]
            print(
                f"{dtype} {layout}: {median(a / b for a, b in turns):.2f} times as fast, "
                f"{1e3 * median(b for _, b in turns):.1f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
