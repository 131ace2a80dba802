"""Kernels beside np.linalg.solve, on batches larger than the caches: pytest tests/benchmarks."""

import numpy as np
import pytest

from dasksolve.kernels import pick

CASES = [
    *[(n, "d", 1) for n in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)],
    *[(n, dtype, 1) for n in (4, 12, 32, 64) for dtype in "fFD"],
    *[(n, "d", n) for n in (4, 16, 64)],
]


@pytest.fixture(params=CASES, ids=lambda case: f"N={case[0]}-{np.dtype(case[1])}-K={case[2]}")
def systems(request):
    n, dtype, k = request.param
    rng = np.random.default_rng(0)
    count = 1 + 40_000_000 // (n * (n + 2 * k) * np.dtype(dtype).itemsize)
    a, b = (rng.standard_normal((count, n, columns)).astype(dtype) for columns in (n, k))
    return a, b


def test_kernel(benchmark, systems):
    a, b = systems
    x, status = np.empty_like(b), np.empty(len(a), np.int8)
    benchmark(pick("gen", a.shape[1], a.dtype), a, b, x, status)
    assert not status.any()


def test_numpy(benchmark, systems):
    benchmark(np.linalg.solve, *systems)
