"""Determinants: exact signs, logarithms to the last place, the same bits on every processor."""

import hashlib
import itertools
import math
from decimal import Decimal

import numpy as np
import pytest
from families import DTYPES

import dasksolve
from dasksolve.batch import determinant


def test_the_logarithm_is_right_to_the_last_place():
    rng = np.random.default_rng(0)
    mantissas = np.concatenate([1 - rng.random(2000), 1 - rng.random(2000) ** 8, [1, 0.5, 2**-500]])
    exponents = rng.integers(-5000, 5000, mantissas.size) * rng.integers(0, 2, mantissas.size)
    found = determinant._log(mantissas, exponents)
    two = Decimal(2).ln()
    pairs = zip(mantissas.tolist(), exponents.tolist(), strict=True)
    wanted = np.array([float(Decimal(m).ln() + k * two) for m, k in pairs])
    assert (np.abs(found - wanted) <= np.spacing(np.abs(wanted))).all()
    assert determinant._log(np.ones(1), np.zeros(1, np.int64)) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_which_permutations_are_odd(n):
    if n <= 6:
        orders = list(itertools.permutations(range(n)))
    else:
        orders = [np.random.default_rng(i).permutation(n) for i in range(50)]
    found = determinant._is_odd(np.array(orders, np.int32))
    assert found.tolist() == [round(np.linalg.det(np.eye(n)[list(o)])) == -1 for o in orders]


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
    order = np.tile(np.arange(4, dtype=np.int32), (250, 1))
    found = [*determinant.slogdet(numbers, order)]
    found += determinant.slogdet(numbers + 1j * numbers[::-1], order)
    digest = hashlib.sha256(b"".join(values.tobytes() for values in found)).hexdigest()
    assert digest[:16] == "f189736f9be47137"
