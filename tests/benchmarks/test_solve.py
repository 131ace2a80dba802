"""The cases of `dasksolve bench`: pytest tests/benchmarks -m slow --benchmark-enable."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dasksolve
from dasksolve.command.bench import DTYPES, ORDERS, batch

SOLVERS = {
    "dasksolve": lambda a, b: dasksolve.solve(a, b, on_singular="nan"),
    "numpy": lambda a, b: np.linalg.solve(a, b),
}


@pytest.mark.slow
@pytest.mark.parametrize("n", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_solve(benchmark: Callable[..., Any], solver: str, dtype: str, n: int) -> None:
    benchmark.group = f"{dtype}, N = {n}"
    a, b = batch(n, np.dtype(dtype))
    x = benchmark(SOLVERS[solver], a, b)
    assert np.isfinite(x).all()
