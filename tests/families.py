"""The matrices that tests and benchmarks share, with the bound that every solution must keep."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs, hilbert

from dasksolve.kernels.language.lanes import VECTOR_BYTES

Array = NDArray[Any]

DTYPES = tuple(map(np.dtype, (np.float32, np.float64, np.complex64, np.complex128)))
# For what is compiled anew for every dtype: all of them, two in the tests that run by default.
SOME_DTYPES = [
    pytest.param(dtype, id=str(dtype), marks=[] if dtype.char in "dF" else pytest.mark.slow)
    for dtype in DTYPES
]
_SHARED_ORDERS = (1, 2, 3, 5, 8, 12)
BACKWARD_C = 1.0
"""c of the bound ``2 * (LAPACK's backward error) + c * N * eps``."""


def orders(*tested: int) -> list[Any]:
    """Orders to test: up to 16 each has kernels of its own, so default tests share a few of them.

    The others are left to the slow tests.
    """
    return [pytest.param(n, marks=_marks(n)) for n in tested]


def grid(*tested: int, complex_up_to: int, slow: tuple[int, ...] = ()) -> list[Any]:
    """Pairs (N, dtype) to test: `slow` orders, and larger complex ones, in the slow tests alone.

    It is for kernels that take longest to compile: those of factors, and of diagnostics.
    """
    return [
        pytest.param(n, dtype, id=f"{n}-{dtype}", marks=pytest.mark.slow if left_out else [])
        for n in (*tested, *slow)
        for dtype in DTYPES
        for left_out in [n in slow or (dtype.kind == "c" and n > complex_up_to)]
    ]


def _marks(n: int) -> list[Any]:
    return [] if n > 16 or n in _SHARED_ORDERS else [pytest.mark.slow]


class Family(NamedTuple):
    """Matrices of one kind."""

    name: str
    make: Callable[[int, np.dtype[Any], np.random.Generator], Array]
    """(N, dtype, generator) to a (M, N, N)."""
    orders: tuple[int, ...]
    """Every order that is tested."""


def numbers(rng: np.random.Generator, dtype: Any, *shape: int) -> Array:
    """Normal numbers of any of the four dtypes."""
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def random(dtype: Any, *shape: int, seed: int = 0) -> Array:
    """The same of a seed."""
    return numbers(np.random.default_rng([seed, *shape]), dtype, *shape)


def unaligned(values: Array) -> Array:
    """A copy that begins at an odd address."""
    copy = np.empty(values.nbytes + 1, np.uint8)[1:].view(values.dtype).reshape(values.shape)
    copy[...] = values
    assert not copy.flags.aligned
    return copy


def read_only(values: Array) -> Array:
    """A copy that may not be written to."""
    copy = values.copy()
    copy.flags.writeable = False
    return copy


def systems(
    n: int, *batch: int, dtype: Any = np.float64, k: int | None = None, seed: int = 0
) -> tuple[Array, Array]:
    """Random a (*batch, n, n) beside b (*batch, n), or (*batch, n, k)."""
    rng = np.random.default_rng([seed, n, *batch])
    core = (n,) if k is None else (n, k)
    return numbers(rng, dtype, *batch, n, n), numbers(rng, dtype, *batch, *core)


def row_scales(n: int, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """Powers of two from 1e-150 to 1e150 (1e±15 in single precision), shuffled."""
    top = 50 if np.finfo(dtype).bits == 32 else 498
    return np.ldexp(1.0, rng.permutation(np.linspace(-top, top, n).astype(int)))


def _random(n: int, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    return numbers(rng, dtype, 5, n, n)


def _graded(n: int, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    rows, columns = row_scales(n, dtype, rng), row_scales(n, dtype, rng)
    wide = np.result_type(dtype, np.float64)
    return (rows[:, None] * numbers(rng, wide, 5, n, n) * columns).astype(dtype)


def _hilbert(n: int, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    return _rotated(hilbert(n), dtype, rng)


def wilkinson(n: int) -> Array:
    """His matrix, whose pivots grow to 2^(N-1): Higham, Accuracy and Stability, 9.3."""
    a = np.eye(n) - np.tri(n, k=-1)
    a[:, -1] = 1
    return a


def _growth(n: int, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    return _rotated(wilkinson(n), dtype, rng)


def _permutation(n: int, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    return np.concatenate([_rotated(np.eye(n)[rng.permutation(n)], dtype, rng) for _ in range(5)])


def _triangular(n: int, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    a = numbers(rng, dtype, 6, n, n) / np.sqrt(n).astype(dtype) + 2 * np.eye(n, dtype=dtype)
    return np.concatenate([np.tril(a[:3]), np.triu(a[3:])])


def _rotated(a: Array, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """`a` as a batch of one, its rows and columns turned by powers of i where dtype is complex."""
    if dtype.kind == "c":
        a = 1j ** rng.integers(4, size=len(a))[:, None] * a * 1j ** rng.integers(4, size=len(a))
    return a.astype(dtype)[None]


FAMILIES = (
    Family("random", _random, (1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 31, 33, 64, 100)),
    Family("graded", _graded, (2, 5, 8, 24, 40)),
    Family("hilbert", _hilbert, (2, 3, 5, 8, 10)),
    Family("growth", _growth, (3, 8, 20, 40, 60)),
    Family("permutation", _permutation, (2, 5, 12, 16, 33)),
    Family("triangular", _triangular, (2, 5, 12, 16, 33)),
)
CASES = [
    pytest.param(family, n, dtype, id=f"{family.name}-{n}-{dtype}", marks=_marks(n))
    for family in FAMILIES
    for n in family.orders
    for dtype in DTYPES
]


def case(family: Family, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """a (M, N, N) of a family beside b (M, N, K), whose rows are scaled as those of a.

    The fewer the matrices, the more columns: where pivots grow, what one b loses is chance, and
    only the largest loss of many says how good a solver is.
    """
    rng = np.random.default_rng([n, dtype.num])
    a = family.make(n, dtype, rng)
    k = 600 // len(a) ** 2
    b = numbers(rng, np.result_type(dtype, np.float64), len(a), n, k)
    if family.name == "graded":  # x would overflow otherwise
        b *= np.abs(a).max(axis=-1, keepdims=True).astype(np.float64) / np.abs(a).max()
    return a, b.astype(dtype)


def backward_error(a: Array, b: Array, x: Array) -> NDArray[np.longdouble]:
    """‖Ax-b‖∞ / (‖A‖∞‖x‖∞ + ‖b‖∞) of each system, the largest over the columns of b (..., N, K).

    In long double, which neither overflows at 1e±150 nor rounds as coarsely as x.
    """
    wide = np.result_type(x.dtype, np.longdouble)
    a, b, x = a.astype(wide), b.astype(wide), x.astype(wide)
    residual = np.abs((a[..., None] * x[..., None, :, :]).sum(axis=-2) - b).max(axis=-2)
    norms = np.abs(a).sum(axis=-1).max(axis=-1)[..., None] * np.abs(x).max(axis=-2)
    norms = norms + np.abs(b).max(axis=-2)
    return np.divide(residual, norms, out=np.zeros_like(residual), where=residual != 0).max(-1)


# OpenBLAS for AVX-512 rounds small systems as we do; for older processors, in other orders.
LAPACK_ROUNDS_AS_WE_DO = VECTOR_BYTES == 64 and "OPENBLAS_CORETYPE" not in os.environ


def lapack(a: Array, b: Array) -> Array:
    """x by LAPACK's gesv in the precision of a (numpy.linalg.solve computes float32 in double)."""
    (gesv,) = get_lapack_funcs(("gesv",), (a, b))
    return np.stack([gesv(a[i], b[i])[2] for i in range(len(a))])


def getf2(a: Array, b: Array) -> Array:
    """x by the loops of LAPACK's own getf2, one pivot at a time, for any BLAS."""
    rows = np.concatenate([a, b], axis=-1)
    n = a.shape[-1]
    for m in rows:
        for k in range(n):
            pivot = k + np.abs(m[k:, k]).argmax()
            m[[k, pivot]] = m[[pivot, k]]
            m[k + 1 :, k] /= m[k, k]
            m[k + 1 :, k + 1 :] -= np.outer(m[k + 1 :, k], m[k, k + 1 :])
        for k in reversed(range(n)):
            m[k, n:] /= m[k, k]
            m[:k, n:] -= np.outer(m[:k, k], m[k, n:])
    return rows[..., n:]


def check_verdicts(a: Array, ours: Array) -> None:
    """Compare which matrices of small integers are said to be singular, by us and by LAPACK."""
    (getrf,) = get_lapack_funcs(("getrf",), (a,))
    lapacks = np.array([getrf(matrix)[2] > 0 for matrix in a])
    if LAPACK_ROUNDS_AS_WE_DO:
        np.testing.assert_array_equal(ours, lapacks)
    singular = np.abs(np.linalg.det(a)) < 0.5  # for it is an integer
    assert not ours[~singular].any()
    assert np.mean(ours[singular] == lapacks[singular]) > 0.9  # by rounding, not all are found


def bound(a: Array, b: Array) -> NDArray[np.longdouble]:
    """What the backward error of each system (M, N, N), (M, N, K) may be."""
    n, eps = a.shape[-1], np.finfo(a.dtype).eps
    error = backward_error(a, b, lapack(a, b))
    if not LAPACK_ROUNDS_AS_WE_DO:  # where pivots grow, what is lost is chance
        with np.errstate(all="ignore"):
            error = np.fmax(error, backward_error(a, b, getf2(a, b)))
    # fmax: where LAPACK overflows, it sets no example.
    return np.fmax(2 * error, 0) + BACKWARD_C * n * eps


def same_bits(x: Any, y: Any) -> bool:
    """Whether two arrays agree in dtype, shape and every bit, those of NaN included."""
    x, y = np.asarray(x), np.asarray(y)
    return (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
