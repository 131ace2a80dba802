"""Every operation on lanes against NumPy, bit for bit."""

from fractions import Fraction

import numpy as np
import pytest
from families import random
from numba import njit

from dasksolve.kernels.language.lanes import (
    any_lane,
    fma,
    fnma,
    lane,
    magnitude,
    nothing,
    operation,
    product,
    reciprocal,
    splat,
    where,
    width,
)
from dasksolve.kernels.language.prefetching import prefetch
from dasksolve.kernels.language.tiles import load, store, tile
from dasksolve.kernels.language.transposition import collect, deal

REAL = [np.float32, np.float64]
DTYPES = [*REAL, np.complex64, np.complex128]


@pytest.fixture(params=DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request):
    return request.param


@np.vectorize
def real_fma(x, y, z):
    return float(Fraction(x) * Fraction(y) + Fraction(z))


def exact_fma(x, y, z):
    if not np.iscomplexobj(x):
        return real_fma(x.astype(float), y.astype(float), z.astype(float)).astype(x.dtype)
    real = exact_fma(x.real, y.real, exact_fma(-x.imag, y.imag, z.real))
    return real + 1j * exact_fma(x.real, y.imag, exact_fma(x.imag, y.real, z.imag))


def plain_product(x, y):
    """NumPy contracts complex products where its build has fma."""
    if not np.iscomplexobj(x):
        return x * y
    real = x.real * y.real - x.imag * y.imag
    return real + 1j * (x.real * y.imag + x.imag * y.real)


def size(x):
    return abs(x.real) + abs(x.imag)


ELEMENTWISE = {
    "add": (lambda x, y, z: x + y, lambda x, y, z: x + y),
    "subtract": (lambda x, y, z: x - y, lambda x, y, z: x - y),
    "multiply": (lambda x, y, z: x * y, lambda x, y, z: plain_product(x, y)),
    "negative": (lambda x, y, z: -x, lambda x, y, z: -x),
    "product": (
        lambda x, y, z: product(x, y),
        lambda x, y, z: exact_fma(x, y, np.zeros_like(x)),
    ),
    "fma": (lambda x, y, z: fma(x, y, z), exact_fma),
    "fnma": (lambda x, y, z: fnma(x, y, z), lambda x, y, z: exact_fma(-x, y, z)),
    "not contracted": (lambda x, y, z: x * y + z, lambda x, y, z: plain_product(x, y) + z),
    "splat": (lambda x, y, z: splat(2, x) + x, lambda x, y, z: 2 + x),
    "lane": (lambda x, y, z: splat(lane(x, 1), y), lambda x, y, z: np.full_like(x, x[1])),
    "equal": (lambda x, y, z: where(x == y, x, z), lambda x, y, z: np.where(x == y, x, z)),
    "unequal": (lambda x, y, z: where(x != y, x, z), lambda x, y, z: np.where(x != y, x, z)),
    "magnitude": (
        lambda x, y, z: where(magnitude(x) > magnitude(y), x, y),
        lambda x, y, z: np.where(size(x) > size(y), x, y),
    ),
    "and": (
        lambda x, y, z: where((magnitude(x) < magnitude(y)) & (magnitude(y) <= magnitude(z)), x, z),
        lambda x, y, z: np.where((size(x) < size(y)) & (size(y) <= size(z)), x, z),
    ),
    "or": (
        lambda x, y, z: where((magnitude(x) >= magnitude(y)) | (magnitude(y) > magnitude(z)), x, z),
        lambda x, y, z: np.where((size(x) >= size(y)) | (size(y) > size(z)), x, z),
    ),
    "not": (lambda x, y, z: where(~(x == y), x, z), lambda x, y, z: np.where(x == y, z, x)),
}


def applied(function, x, y, z, count):
    inner = njit(function)

    @njit
    def run(x, y, z, out):
        store(out, 0, inner(load(x, 0, count), load(y, 0, count), load(z, 0, count)))

    out = np.empty_like(x)
    run(x, y, z, out)
    return out


@pytest.mark.parametrize(("ours", "expected"), ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_elementwise(dtype, ours, expected):
    count = width(dtype)
    x, y, z = random(dtype, 3, count)
    x[0] = y[0]
    np.testing.assert_array_equal(applied(ours, x, y, z, count), expected(x, y, z))


@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
def test_any_width(dtype, vector_bytes):
    count = width(dtype, vector_bytes)
    x, y, z = random(dtype, 3, count)
    np.testing.assert_array_equal(
        applied(lambda x, y, z: fma(x, y, z), x, y, z, count), exact_fma(x, y, z)
    )


@pytest.mark.parametrize("real", REAL)
def test_division(real):
    x, y, z = random(real, 3, width(real))
    np.testing.assert_array_equal(applied(lambda x, y, z: x / y, x, y, z, width(real)), x / y)


@pytest.mark.parametrize("name", ["equal", "and", "not"])
def test_masks_of_vectors_of_two_registers(name):
    ours, expected = ELEMENTWISE[name]
    count = 2 * width(np.float64)

    @njit
    def run(x, y, z, out):
        masked(x, y, z, out)

    @operation(nothing)
    def masked(x, y, z, out):
        vectors = [array.load(0, count) for array in (x, y, z)]
        out.store(0, ours(*vectors))

    x, y, z = random(np.float64, 3, count)
    x[::3] = y[::3]
    out = np.empty_like(x)
    run(x, y, z, out)
    np.testing.assert_array_equal(out, expected(x, y, z))


def test_nan_is_unequal_and_in_order_with_nothing():
    x = np.full(8, np.nan)
    y, z = np.ones((2, 8))
    for comparison in (
        lambda x, y, z: where(x > y, x, z),
        lambda x, y, z: where(x <= y, x, z),
        lambda x, y, z: where(x == x, x, z),
        lambda x, y, z: where(x != x, z, x),
    ):
        np.testing.assert_array_equal(applied(comparison, x, y, z, 8), z)


@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e150, 1e-300])
def test_reciprocal_of_any_size(scale):
    x = np.concatenate([random(np.complex128, 6), [1, 1j]]) * scale
    ours = applied(lambda x, y, z: reciprocal(x), x, x, x, 8)
    np.testing.assert_allclose(ours * x, 1, rtol=4 * np.finfo(float).eps)


def test_any_lane(dtype):
    count = width(dtype)

    @njit
    def ours(x, y):
        return any_lane(load(x, 0, count) == load(y, 0, count))

    x, y = random(dtype, 2, count)
    assert not ours(x, y)
    x[-1] = y[-1]
    assert ours(x, y)


def test_prefetching_past_the_end_changes_nothing(dtype):
    count = width(dtype)

    @njit
    def ours(x, out):
        prefetch(x, 10**6, 3)
        store(out, 1, load(x, 2, count))

    x = random(dtype, count + 2)
    out = np.zeros(count + 1, dtype)
    ours(x, out)
    np.testing.assert_array_equal(out, np.concatenate([[0], x[2:]]))


def test_tile_holds_lanes(dtype):
    count = width(dtype)

    @njit
    def ours(x, out):
        t = tile(2, 3, x.dtype, x)
        for i in range(2):
            for j in range(3):
                t[i, j] = load(x, (3 * i + j) * count, count)
        for i in range(2):
            for j in range(3):
                store(out, (2 * j + i) * count, t[i, j])

    x = random(dtype, 2, 3, count)
    out = np.empty((3, 2, count), dtype)
    ours(x.ravel(), out.ravel())
    np.testing.assert_array_equal(out, x.swapaxes(0, 1))


@pytest.mark.parametrize(("length", "registers"), [(1, 1), (2, 1), (3, 1), (9, 1), (22, 1), (9, 2)])
def test_deal_and_collect_move_runs_of_a_stack(dtype, length, registers):
    count = registers * width(dtype)

    @operation(nothing)
    def copy(x, out, start, stride):
        starts = [start + lane * stride for lane in range(count)]
        collect(deal(x, starts, length), out, starts)

    @njit
    def ours(x, out, start, stride):
        copy(x, out, start, stride)

    x = random(dtype, 30 * count)
    out = np.zeros_like(x)
    ours(x, out, 5, 25)
    expected = np.zeros_like(x)
    for start in range(5, 5 + 25 * count, 25):
        expected[start : start + length] = x[start : start + length]
    np.testing.assert_array_equal(out, expected)
