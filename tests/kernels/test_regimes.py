"""The drivers of the regimes take any method: here one for multiples of the identity."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from dasksolve.kernels import compiled
from dasksolve.kernels.compiling.jit import holder, part
from dasksolve.kernels.diagnostics.verdicts import judge, rejecting, weigh
from dasksolve.kernels.language.blocks import block_tile, load_first, store_first
from dasksolve.kernels.language.lanes import (
    magnitude,
    operation,
    reciprocal,
    splat,
    unsigned_zero,
)
from dasksolve.kernels.language.tiles import systems_of_lanes, tile
from dasksolve.kernels.language.transposition import deal
from dasksolve.kernels.regimes import fixed, interleaved, single
from dasksolve.status import Status

# What is cached on disk does not look at this file.
NAME = "test." + hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
REJECT = rejecting(0, 0)


def read(matrices, between):
    a, systems, t, n, *_ = matrices
    (t[0, 0],) = deal(a, [s * (n * n) for s in systems], 1)


def factor(matrices, flaw, between):
    number = matrices.t[0, 0]
    return judge(flaw, magnitude(number)), reciprocal(number)


def substitute(column, inverse, n):
    for i in range(n):
        column[i] = column[i] * inverse


def fixed_kernel(n):
    return fixed.kernel(fixed.Method(NAME, read, factor, substitute, REJECT), n)


@operation(lambda a, n, first, last, t: t.lanes)
def numbers(a, n, first, last, t):
    """The first number of each matrix of a tile."""
    return deal(a, [s * (n * n) for s in systems_of_lanes(a, first, last)], 1)[0]


@holder
def hold_tile(a, n, wide):
    return tile(1 + wide, n, a.dtype, a), 1


@part
def factor_tile(a, first, last, held, flaw):
    t, _ = held
    number = numbers(a, a.shape[1], first, last, t)
    t[0, 0] = reciprocal(number)
    return judge(flaw, magnitude(number))


@part
def substitute_tile(a, first, last, held, wide, flaw, check):
    t, _ = held
    for c in range(1, 1 + wide):
        for i in range(a.shape[1]):
            t[c, i] = t[c, i] * t[0, 0]
    return flaw, check


def interleaved_kernel(_):
    return interleaved.kernel(
        interleaved.Method(NAME, hold_tile, substitute_tile, REJECT, factor_tile)
    )


@holder
def hold_one(a, n):
    return (block_tile(1, 1, a.dtype, a),)


@part
def factor_one(a, m, held, flaw):
    (t,) = held
    number = splat(a[m, 0, 0], t)
    t[0, 0] = reciprocal(number)
    return judge(flaw, magnitude(number))


@part
def substitute_one(a, b, x, m, j, held, flaw, check):
    (t,), (_, n, columns) = held, b.shape
    for i in range(n):
        at, left = (m * n + i) * columns + j, columns - j
        found = load_first(b, at, left, t) * t[0, 0]
        check = weigh(check, found)
        store_first(x, at, left, unsigned_zero(found))
    return flaw, check


def single_kernel(_):
    return single.kernel(single.Method(NAME, hold_one, substitute_one, REJECT, factor_one))


@pytest.mark.parametrize(
    ("make", "n"),
    [
        pytest.param(fixed_kernel, 3, id="fixed"),
        pytest.param(interleaved_kernel, 0, id="interleaved"),
        pytest.param(single_kernel, 0, id="single"),
    ],
)
def test_a_method_is_a_few_functions(make, n):
    rng = np.random.default_rng(0)
    for k in (1, 2, 19):
        number, b = rng.standard_normal(21), rng.standard_normal((21, 3, k))
        expected = b * (1 / number)[:, None, None]
        number[4], number[9], b[17, 1, -1] = 0, np.nan, np.inf
        expected[[4, 9]], expected[17, :, -1] = np.nan, np.nan
        x, status = np.full_like(b, 7), np.full(21, Status.PENDING, np.int8)
        a = number[:, None, None] * np.eye(3)
        compiled(make, n, a.dtype)(a, b, x, status)
        bad = {4: Status.SINGULAR, 9: Status.NONFINITE, 17: Status.NONFINITE}
        assert status.tolist() == [bad.get(m, Status.OK) for m in range(21)]
        np.testing.assert_array_equal(x, expected)
