"""`solve_tridiagonal`: the shapes that it takes, and the bits of the dense matrices."""

import dask
import dask.array as da
import numpy as np
import pytest
from dask._task_spec import Task
from families import numbers, same_bits
from scipy.linalg import solve_banded

import dasksolve
from dasksolve.status import Status

SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 8)]


def bands(n, *batch, dtype=np.float64, seed=0):
    """Three diagonals, NaN where they are outside the matrix."""
    rng = np.random.default_rng([seed, n])
    lower, diagonal, upper = numbers(rng, dtype, 3, *batch, n)
    lower[..., 0] = upper[..., -1] = np.nan
    return lower, diagonal, upper


def dense(lower, diagonal, upper):
    n = diagonal.shape[-1]
    a = np.full((*diagonal.shape, n), np.nan, diagonal.dtype)  # nothing but the band is read
    at = np.arange(n)
    a[..., at, at] = diagonal
    a[..., at[1:], at[:-1]] = lower[..., 1:]
    a[..., at[:-1], at[1:]] = upper[..., :-1]
    return a


@pytest.mark.parametrize("dtype", [np.float64, np.complex64], ids=["float64", "complex64"])
@pytest.mark.parametrize("k", [None, 1, 11])
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.slow), 5, 13, *SLOW])
def test_the_bits_are_those_of_the_dense_matrices(n, k, dtype):
    given = bands(n, 19, dtype=dtype)
    b = numbers(np.random.default_rng(1), dtype, 19, n, *([] if k is None else [k]))
    x = dasksolve.solve_tridiagonal(*given, b)
    assert same_bits(x, dasksolve.solve(dense(*given), b, assume_a="tridiagonal"))
    alone = dasksolve.solve_tridiagonal(*(band[4] for band in given), b[4])
    assert same_bits(alone, x[4])


def test_real_diagonals_may_have_a_complex_b():
    given, b = bands(5, 19), np.random.default_rng(1).standard_normal((19, 5))
    x = dasksolve.solve_tridiagonal(*given, b * (1 + 2j))
    np.testing.assert_allclose(x, dasksolve.solve_tridiagonal(*given, b) * (1 + 2j), rtol=1e-9)


def test_a_large_order():
    lower, diagonal, upper = bands(10_000, 3)
    b = numbers(np.random.default_rng(0), np.float64, 3, 10_000)
    x = dasksolve.solve_tridiagonal(lower, diagonal, upper, b)
    for m in range(3):
        ab = np.stack([np.roll(upper[m], 1), diagonal[m], np.roll(lower[m], -1)])
        ab[0, 0] = ab[2, -1] = 0
        theirs = solve_banded((1, 1), ab, b[m])

        def residual(x, ab=ab, b=b[m]):
            product = ab[1] * x
            product[:-1] += ab[0, 1:] * x[1:]
            product[1:] += ab[2, :-1] * x[:-1]
            return abs(product - b).max()

        assert residual(x[m]) <= 2 * residual(theirs)


@pytest.mark.parametrize(
    ("shapes", "x_shape"),
    [
        pytest.param(((5,), (5,), (5,), (5,)), (5,), id="one system"),
        pytest.param(((5,), (7, 5), (5,), (5,)), (7, 5), id="bands broadcast, one vector"),
        pytest.param(((7, 5), (7, 5), (7, 5), (7, 5)), (7, 5), id="vectors"),
        pytest.param(((5, 5), (5, 5), (5, 5), (5, 5)), (5, 5), id="vectors, though M == N"),
        pytest.param(((7, 5), (7, 5), (7, 5), (7, 5, 2)), (7, 5, 2), id="matrices"),
        pytest.param(((5,), (5,), (5,), (7, 5, 2)), (7, 5, 2), id="matrices for one a"),
        pytest.param(((2, 1, 5), (7, 5), (5,), (2, 7, 5)), (2, 7, 5), id="two batch axes"),
        pytest.param(((0, 5), (0, 5), (0, 5), (0, 5)), (0, 5), id="no systems"),
        pytest.param(((7, 5), (7, 5), (7, 5), (7, 5, 0)), (7, 5, 0), id="no columns"),
    ],
)
def test_shapes(shapes, x_shape):
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(shape) for shape in shapes]
    x = dasksolve.solve_tridiagonal(*given)
    assert x.shape == x_shape
    lazy = dasksolve.solve_tridiagonal(*map(da.from_array, given))
    assert lazy.shape == x_shape
    assert same_bits(lazy.compute(scheduler="sync"), x)


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        pytest.param(((5,), (6,), (5,), (5,)), r"same N.*\(5,\), \(6,\), \(5,\)", id="N"),
        pytest.param(((3, 5), (2, 5), (5,), (5,)), r"do not broadcast.*\(3, 5\)", id="batch"),
        pytest.param(((5,), (5,), (5,), ()), r"b has shape \(\)", id="b is a number"),
        pytest.param(((4, 3, 5),) * 3 + ((3, 5),), r"b has shape \(3, 5\)", id="neither"),
        pytest.param(
            ((5,), (5,), (5,), (6,)),
            r"N = 6 where the diagonals have 5: .* shape \(5,\), b has shape \(6,\)",
            id="b of another length",
        ),
        pytest.param(
            ((3, 5),) * 3 + ((3, 2, 5),), r"K\), has N = 2 where the diagonals", id="columns"
        ),
        pytest.param(
            ((3, 5),) * 3 + ((2, 5),),
            r"\(3,\) of the diagonals and \(2,\) of b do not broadcast: the diagonals have",
            id="batch of b",
        ),
    ],
)
def test_shapes_that_do_not_fit(shapes, text):
    for convert in (np.asarray, da.from_array):
        with pytest.raises(ValueError, match=text):
            dasksolve.solve_tridiagonal(*(convert(np.ones(shape)) for shape in shapes))


def test_dtypes_are_refused_by_the_name_of_the_argument():
    with pytest.raises(TypeError, match="upper has dtype float16"):
        dasksolve.solve_tridiagonal(np.ones(3), np.ones(3), np.ones(3, "f2"), np.ones(3))


def test_dask_is_lazy_and_makes_one_task_a_block():
    given = [da.from_array(band, chunks=(4, -1), inline_array=True) for band in bands(6, 12)]
    b = da.ones((12, 6), chunks=(4, 6))
    x = dasksolve.solve_tridiagonal(*given, b)
    assert x.chunks == ((4, 4, 4), (6,))
    (optimized,) = dask.optimize(x)
    assert sum(isinstance(node, Task) for node in dict(optimized.dask).values()) == 3
    assert same_bits(x.compute(), dasksolve.solve_tridiagonal(*bands(6, 12), np.ones(6)))


def test_troubles():
    lower, diagonal, upper = bands(6, 40)
    diagonal[4, 0] = lower[4, 1] = 0
    diagonal[9, 3] = np.nan
    lower[12, 5] = np.inf
    b = np.ones((40, 6))
    b[15, 2] = -np.inf
    with pytest.raises(dasksolve.SingularSystemError) as error:
        dasksolve.solve_tridiagonal(lower, diagonal, upper, b)
    assert error.value.indices.tolist() == [4]
    assert error.value.status.tolist() == [Status.SINGULAR]
    chunked = [da.from_array(v, chunks=(3, 6)) for v in (lower, diagonal, upper, b)]
    with pytest.raises(dasksolve.SingularSystemError) as error:
        dasksolve.solve_tridiagonal(*chunked).compute()
    assert error.value.indices.tolist() == [4]
    x = dasksolve.solve_tridiagonal(lower, diagonal, upper, b, on_singular="nan", workers=2)
    assert np.flatnonzero(np.isnan(x).all(1)).tolist() == [4, 9, 12, 15]
    assert np.isfinite(x[[0, 5, 39]]).all()
    solved = dasksolve.solve_tridiagonal(lower, diagonal, upper, b, on_singular="lstsq")
    a = np.nan_to_num(dense(lower[4], diagonal[4], upper[4]))
    np.testing.assert_allclose(solved[4], np.linalg.lstsq(a, b[4])[0], rtol=1e-10)
    assert same_bits(solved[:4], x[:4])
    shared = dasksolve.solve_tridiagonal(lower, diagonal, upper, b[4], on_singular="lstsq")
    assert same_bits(shared[4], solved[4])
    no_b = np.ones((40, 6, 0))
    none = dasksolve.solve_tridiagonal(lower, diagonal, upper, no_b, on_singular="lstsq")
    assert none.shape == (40, 6, 0)
