"""What holds for any batch, on examples that hypothesis chooses."""

import numpy as np
import pytest
from families import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import dasksolve

ORDERS = st.sampled_from([2, 5, 12])
SEEDS = st.integers(0, 2**32 - 1)
dtypes = pytest.mark.parametrize(
    "dtype",
    [np.dtype(np.float64), pytest.param(np.dtype(np.complex64), marks=pytest.mark.slow)],
    ids=str,
)
few = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def batch(seed, n, dtype, systems=9):
    rng = np.random.default_rng(seed)
    a, x = rng.standard_normal((2, systems, n, n)), rng.standard_normal((2, systems, n))
    a *= 10.0 ** rng.uniform(-2, 2, (2, systems, n, 1))
    if dtype.kind == "c":
        return (a[0] + 1j * a[1]).astype(dtype), (x[0] + 1j * x[1]).astype(dtype)
    return a[0].astype(dtype), x[0].astype(dtype)


def close(x, y, s):
    """Whether two answers differ by no more than their condition explains."""
    eps = np.finfo(x.dtype).eps
    far = np.abs(x - y).max(axis=-1) / np.abs(y).max(axis=-1)
    return (far <= 8 * x.shape[-1] * eps / s.rcond).all()


@dtypes
@few
@given(SEEDS, ORDERS, st.permutations(range(9)))
def test_permuting_systems_permutes_answers(dtype, seed, n, order):
    a, b = batch(seed, n, dtype)
    assert same_bits(dasksolve.solve(a[order], b[order]), dasksolve.solve(a, b)[order])


@dtypes
@few
@given(SEEDS, ORDERS, st.integers(-20, 20))
def test_scaling_an_equation_leaves_its_answer(dtype, seed, n, exponent):
    a, b = batch(seed, n, dtype)
    scale = np.ones(n, a.real.dtype)
    scale[seed % n] = 2.0**exponent
    s = dasksolve.solve_ex(a * scale[:, None], b * scale)
    assert close(s.x, dasksolve.solve(a, b), s._replace(rcond=np.minimum(s.rcond, rcond(a, b))))


def rcond(a, b):
    return dasksolve.solve_ex(a, b).rcond


@dtypes
@few
@given(SEEDS, ORDERS)
def test_the_solution_of_a_product_is_its_factor(dtype, seed, n):
    a, x = batch(seed, n, dtype)
    s = dasksolve.solve_ex(a, np.einsum("mij,mj->mi", a, x))
    assert close(s.x, x, s)


@dtypes
@few
@given(SEEDS, ORDERS)
def test_the_transposed_solution_is_that_of_the_transpose(dtype, seed, n):
    a, b = batch(seed, n, dtype)
    s = dasksolve.solve_ex(a.swapaxes(-1, -2), b)
    assert close(dasksolve.factor(a).solve(b, transposed=True), s.x, s)
