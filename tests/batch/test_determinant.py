"""Determinants: exact signs, logarithms to the last place, the same bits on every processor."""

import hashlib
import itertools
import math
from decimal import Decimal

import numpy as np
import pytest
from families import DTYPES

import dasksolve
from dasksolve import kernels
from dasksolve.batch.factors import slogdet_block


def slogdet(diagonal, order):
    """What factors give whose U has these reciprocals on its diagonal, of systems (M, N)."""
    m, n = diagonal.shape
    places = kernels.pivots(n)
    lu = np.zeros((m, n * n), diagonal.dtype)
    lu[:, places] = diagonal
    flat = lu.reshape(m, n, n), np.broadcast_to(order, (m, n))[..., None]
    return slogdet_block(*flat, np.zeros((m, 1, 1), np.int8), np.zeros((m, n, 2), np.int16))


def test_the_logarithm_is_right_to_the_last_place():
    rng = np.random.default_rng(0)
    numbers = np.concatenate([1 - rng.random(2000), 1 - rng.random(2000) ** 8, [1, 0.5, 2**-500]])
    numbers = np.concatenate([numbers, [5e-324, 2**-1060, 1 + 2**-52, np.finfo(float).max]])
    exponents = rng.integers(-1000, 1000, (numbers.size, 5)) * rng.integers(0, 2, (numbers.size, 1))
    diagonal = np.concatenate([numbers[:, None], np.exp2(exponents.astype(float))], axis=1)
    sign, found = slogdet(diagonal, np.arange(6, dtype=np.int32))
    two = Decimal(2).ln()
    pairs = zip(numbers.tolist(), exponents.sum(axis=1).tolist(), strict=True)
    wanted = -np.array([float(Decimal(m).ln() + k * two) for m, k in pairs])
    assert (np.abs(found - wanted) <= np.spacing(np.abs(wanted))).all()
    assert (sign == 1).all()


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_which_permutations_are_odd(n):
    if n <= 6:
        orders = list(itertools.permutations(range(n)))
    else:
        orders = [np.random.default_rng(i).permutation(n) for i in range(50)]
    sign, _ = slogdet(np.ones((len(orders), n)), np.array(orders, np.int32))
    assert sign.tolist() == [round(np.linalg.det(np.eye(n)[list(o)])) for o in orders]


@pytest.mark.parametrize("wrong", [[0, 2], [-1, 0], [0, -(1 << 31)]])
def test_rows_that_are_not_there_have_no_determinant(wrong):
    with pytest.raises(ValueError, match="the factors are damaged"):
        slogdet(np.ones((3, 2)), np.array([[0, 1], wrong, [1, 0]], np.int32))
    sign, log = slogdet(np.ones((2, 2)), np.array([[1, 1], [1, 0]], np.int32))  # it ends
    assert (sign[1], log[1]) == (-1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [600])
def test_a_determinant_may_be_out_of_the_range_of_its_dtype(n, dtype):
    a = np.diag(np.full(n, 3)).astype(dtype)
    a[0, 0] = -3
    sign, logabsdet = dasksolve.factor(a).slogdet()
    assert (sign, sign.dtype) == (-1, np.dtype(dtype))
    assert abs(logabsdet - n * math.log(3)) < n * np.finfo(dtype).eps * n


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_logarithm_of_one_has_no_sign(dtype):
    found = dasksolve.factor(np.eye(2, dtype=dtype)[::-1]).slogdet()
    assert found == (-1, 0)
    assert not np.signbit(found[1])


def test_the_bits_are_those_of_every_processor():
    numbers = np.arange(1, 4001, dtype=np.float64).reshape(250, 4, 4) % 97 + 0.25
    order, places = np.arange(4, dtype=np.int32), kernels.pivots(4)
    found = []
    for values in (numbers, numbers + 1j * numbers[::-1]):
        found += slogdet(values.reshape(250, 16)[:, places], order)
    digest = hashlib.sha256(b"".join(values.tobytes() for values in found)).hexdigest()
    assert digest[:16] == "f189736f9be47137"
