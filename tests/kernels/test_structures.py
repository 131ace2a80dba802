"""The kernels of structured systems: accuracy, verdicts, containment, bits, and what is read."""

from functools import partial

import numpy as np
import pytest
from families import BACKWARD_C, DTYPES, backward_error, numbers, same_bits
from scipy import linalg

from dasksolve.kernels import pick
from dasksolve.status import Status
from dasksolve.structure import meant

MANY = 10**6
FLOAT, COMPLEX = np.dtype(np.float64), np.dtype(np.complex128)


def definite(n, dtype, rng, m=5):
    a = numbers(rng, dtype, m, n, n)
    return a @ a.conj().swapaxes(-1, -2) / n + np.eye(n, dtype=dtype) / 4


MATRICES = {"pos": definite}
# Each dtype once, and each of the triangles in real and in complex numbers; orders that each
# kernel takes: unrolled, in a tile, with a remainder, and one system at a time.
CASES = [
    pytest.param("pos", lower, dtype, n, id=f"pos-{'lower' if lower else 'upper'}-{dtype}-{n}")
    for dtype, lower in zip(DTYPES, (False, True, True, False), strict=True)
    for n in (1, 5, 12, 18, 170)
]


def posed(assume_a, lower, n, dtype, m=5, seed=0):
    """(what is stored, what is meant): NaN stands wherever nothing is to be read."""
    rng = np.random.default_rng([seed, n])
    a = MATRICES[assume_a](n, dtype, rng, m)
    read = meant(np.ones((n, n)), assume_a, lower)
    if assume_a in ("pos", "sym", "her"):
        read = np.tril(read) if lower else np.triu(read)
    stored = np.where(read, a, a.dtype.type(np.nan))
    if assume_a in ("pos", "her") and dtype.kind == "c":
        stored.imag[:, np.arange(n), np.arange(n)] = np.inf
    return stored, meant(stored, assume_a, lower)


def solve(assume_a, lower, a, b, systems=MANY):
    n, k = b.shape[1:]
    x, status = np.full_like(b, 7), np.full(len(a), Status.PENDING, np.int8)
    pick(assume_a, n, k, systems, a.dtype, lower)(a, b, x, status)
    return x, status


@pytest.mark.parametrize("k", [1, 2, 19])
@pytest.mark.parametrize(("assume_a", "lower", "dtype", "n"), CASES)
def test_backward_error_is_near_lapacks(assume_a, lower, dtype, n, k):
    stored, a = posed(assume_a, lower, n, dtype)
    assert np.isfinite(a).all()
    b = numbers(np.random.default_rng(n), dtype, len(a), n, k)
    x, status = solve(assume_a, lower, stored, b)
    assert (status == Status.OK).all()
    reference = partial(linalg.solve, assume_a=assume_a, lower=lower)
    theirs = backward_error(a, b, np.stack([reference(*pair) for pair in zip(a, b, strict=True)]))
    assert (backward_error(a, b, x) <= 2 * theirs + BACKWARD_C * n * np.finfo(dtype).eps).all()


@pytest.mark.parametrize(("assume_a", "lower", "dtype", "n"), CASES)
def test_bits_depend_on_the_system_alone(assume_a, lower, dtype, n):
    stored, _ = posed(assume_a, lower, n, dtype, 21)
    b = numbers(np.random.default_rng(n), dtype, 21, n, 18)
    x, _ = solve(assume_a, lower, stored, b)
    order = np.random.default_rng(0).permutation(21)
    assert same_bits(solve(assume_a, lower, stored[order], b[order])[0], x[order])
    for m in (0, 20):
        one = stored[m : m + 1], b[m : m + 1]
        assert same_bits(solve(assume_a, lower, *one, systems=1)[0], x[m : m + 1])
    for columns in (slice(0, 1), slice(3, 6), slice(17, 18)):
        part = np.ascontiguousarray(b[..., columns])
        assert same_bits(solve(assume_a, lower, stored, part)[0], x[..., columns])
        one = stored[2:3], part[2:3]
        assert same_bits(solve(assume_a, lower, *one, systems=1)[0], x[2:3, :, columns])
