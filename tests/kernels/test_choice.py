"""The choice of a kernel: by speed alone, since all give the same bits."""

from itertools import product

import numpy as np
import pytest
from families import DTYPES, grid, numbers, same_bits

from dasksolve.kernels import GENERAL, choice, compiled, factoring, factors, making, pick
from dasksolve.kernels.diagnostics.verdicts import UNBOUNDED
from dasksolve.kernels.diagonal import fixed as diagonal
from dasksolve.kernels.language.lanes import PANEL, width
from dasksolve.kernels.language.target import FEW_REGISTERS
from dasksolve.kernels.lu import (
    factor_fixed,
    factor_interleaved,
    fixed,
    interleaved,
    reuse,
    reuse_fixed,
    reuse_many,
    shared,
    single,
)
from dasksolve.status import Status

MANY = 10**6


def solve(kernel, a, b):
    x, status = np.empty_like(b), np.full(len(a), Status.PENDING, np.int8)
    kernel(a, b, x, status)
    return x, status


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("n", "k"),
    [
        pytest.param(n, k, marks=pytest.mark.slow if k == 1 and n in (8, 12) else [])
        for n in (3, 8, 12, 17, 64)
        for k in (1, 3, 20)
    ],
)
def test_all_kernels_give_the_same_bits(n, k, dtype):
    rng = np.random.default_rng([n, k])
    a, b = numbers(rng, dtype, 19, n, n), numbers(rng, dtype, 19, n, k)
    a[2] = 0
    a[3] = 1
    a[5, :, 1] = a[5, :, 0]
    a[7, 0, 2] = np.nan
    b[11, 1, 0] = np.inf
    a[13] *= np.finfo(dtype).tiny / 16
    b[15], b[16, :-1], b[17, 1:] = -0.0, 0, -0.0
    x, status = solve(compiled(single.kernel, 0, dtype), a, b)
    assert {Status.OK, Status.SINGULAR, Status.NONFINITE, UNBOUNDED} == set(status.tolist())
    assert status[[7, 11, 13]].tolist() == [Status.NONFINITE, Status.NONFINITE, UNBOUNDED]
    assert np.isnan(x[7]).all()
    assert np.isnan(x[11]).all(axis=0).tolist() == [True] + [False] * (k - 1)
    others = [compiled(interleaved.kernel, 0, dtype)] if n >= 8 else []
    if n <= GENERAL[dtype.char].unrolled:
        others += [compiled(fixed.kernel, n, dtype, False, alone) for alone in {False, k == 1}]
    if n <= PANEL:
        others.append(compiled(shared.kernel, n, dtype, False, False))
    for other in others:
        other_x, other_status = solve(other, a, b)
        assert other_status.tolist() == status.tolist()
        assert same_bits(other_x, x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_vectors_that_share_a_matrix_have_the_bits_of_those_that_do_not(n, dtype):
    rng, limits = np.random.default_rng(n), np.finfo(dtype)
    kernel = compiled(shared.kernel, n, dtype, False, True)
    for each in (1, 3, 32, 71):  # fewer than a vector has lanes; full ones; ones that overlap
        a, b = numbers(rng, dtype, 5, n, n), numbers(rng, dtype, 5 * each, n, 1)
        a[1], a[2, 0, 2], a[3] = 0, np.nan, a[3] * limits.tiny / 16
        b[4 * each], b[0, 1], b[-1] = -0.0, np.inf, limits.max
        expected, status = solve(compiled(fixed.kernel, n, dtype), np.repeat(a, each, axis=0), b)
        assert {Status.SINGULAR, Status.NONFINITE, UNBOUNDED} <= set(status.tolist())
        x, found = np.empty_like(b), np.full(len(b), Status.PENDING, np.int8)
        kernel(a, b, x, found)
        assert found.tolist() == status.tolist()
        assert same_bits(x, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [12, *(pytest.param(n, marks=pytest.mark.slow) for n in (9, 16))])
def test_systems_in_lanes_have_the_bits_of_diagnostics_in_a_loop(n, dtype):
    n = min(n, GENERAL[dtype.char].unrolled)
    limits, rng = np.finfo(dtype), np.random.default_rng(n)
    for k in (1, 3):
        a, b = numbers(rng, dtype, 203, n, n), numbers(rng, dtype, 203, n, k)
        a[:40] *= (2.0 ** np.linspace(limits.minexp, limits.maxexp - 3, 40))[:, None, None]
        b[:60] *= (2.0 ** np.linspace(limits.minexp, limits.maxexp - 3, 60))[::-1, None, None]
        a[60], b[61], b[62, :, 0], a[63], a[64, 1, 0], b[65, 0, 0] = 0, 0, 0, 1, np.nan, np.inf
        a[66], a[67] = np.eye(n)[::-1], 1 / (1 + np.arange(n) + np.arange(n)[:, None])
        found = []
        for kernel in (
            compiled(fixed.kernel, n, dtype, True, False),
            compiled(interleaved.kernel, 0, dtype, True),
        ):
            x, status, diagnostics = np.empty_like(b), np.empty(len(a), np.int8), np.empty((2, 203))
            kernel(a, b, x, status, *diagnostics)
            found.append((x, status, diagnostics))
        assert np.isnan(found[0][2][:, found[0][1] == Status.OK]).any()  # out of the kernels' range
        assert all(same_bits(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [1, 3])
def test_one_unknown_is_divided_for_with_the_bits_of_elimination(k, dtype):
    limits = np.finfo(dtype)
    real = [0.0, -0.0, limits.smallest_subnormal, 1.7 * limits.tiny, 1 / 3, -2.5, limits.max]
    real += [np.inf, -np.inf, np.nan]
    values = [complex(*pair) for pair in product(real, real)] if dtype.kind == "c" else real
    a, b = (grid.reshape(-1, 1, 1) for grid in np.meshgrid(*2 * [np.array(values, dtype)]))
    b = np.concatenate([np.roll(b, i, axis=0) for i in range(k)], axis=2)
    assert pick("gen", 1, k, len(a), dtype) is pick("diagonal", 1, k, len(a), dtype)
    x, status = solve(pick("gen", 1, k, len(a), dtype), a, b)
    expected, expected_status = solve(compiled(fixed.kernel, 1, dtype), a, b)
    assert status.tolist() == expected_status.tolist()
    assert same_bits(x, expected)


@pytest.mark.parametrize(
    ("n", "k", "systems", "dtype", "expected"),
    [
        pytest.param(8, 8, 1, "d", fixed, id="small, whatever their number"),
        pytest.param(8, 16, 1, "d", shared, id="columns that fill the lanes"),
        pytest.param(8, 112, 7, "f", shared, id="the same of each of several systems"),
        pytest.param(8, 111, 7, "f", fixed, id="several that are factored side by side"),
        pytest.param(8, 128, MANY, "d", shared, id="the same of each of many systems"),
        pytest.param(8, 127, MANY, "d", fixed, id="too few to factor a matrix alone"),
        pytest.param(2, 64, MANY, "D", shared, id="many columns of two unknowns"),
        pytest.param(2, 63, MANY, "D", fixed, id="fewer of two, which take little to factor"),
        pytest.param(1, 63, MANY, "d", diagonal, id="fewer of one, which is divided for"),
        pytest.param(12, 1, 1, "d", fixed, id="one system that takes little longer in a lane"),
        pytest.param(9, 3, 1, "d", fixed, id="the same with three right-hand sides"),
        pytest.param(16, 1, 1, "d", single, id="one system that takes longer in a lane"),
        pytest.param(16, 1, 2, "d", fixed, id="two that share a tile"),
        pytest.param(13, 1, 1, "D", single, id="one of complex numbers"),
        pytest.param(18, 1, 2, "F", interleaved, id="two of complex numbers"),
        pytest.param(17, 17, 2, "F", single, id="two with many right-hand sides"),
        pytest.param(16, 16, MANY, "d", fixed, id="small, whatever K"),
        pytest.param(16, 16, 1, "d", single, id="one inverse"),
        pytest.param(17, 1, 1, "d", single, id="one system"),
        pytest.param(64, 1, 3, "d", single, id="lanes that would idle"),
        pytest.param(64, 1, 8, "d", interleaved, id="lanes that are full"),
        pytest.param(100, 1, 9, "d", single, id="a second tile for one system"),
        pytest.param(64, 64, MANY, "d", single, id="many right-hand sides"),
        pytest.param(105, 1, MANY, "d", single, id="a tile that leaves the cache"),
        pytest.param(128, 1, MANY, "f", interleaved, id="a tile of smaller numbers"),
        pytest.param(16, 1, MANY, "D", interleaved, id="complex takes longer to compile"),
        pytest.param(2000, 1, 1, "D", single, id="as large as it gets"),
    ],
)
def test_the_fastest_is_picked(n, k, systems, dtype, expected, monkeypatch):
    monkeypatch.setattr(choice, "_lanes", lambda dtype: width(dtype, 64))  # what lanes are full
    monkeypatch.setattr(making, "compiled", lambda *which: which)
    order = n if expected in (diagonal, fixed, shared) else 0
    dtype = np.dtype(dtype)
    picked = pick.__wrapped__("gen", n, k, systems, dtype)  # which is not to be remembered
    assert picked[:4] == (expected.kernel, order, dtype, False)[: len(picked)]


@pytest.mark.parametrize("few_registers", [False, True])
def test_diagnostics_of_more_than_a_panel_are_unrolled_where_registers_are_few(
    few_registers, monkeypatch
):
    monkeypatch.setattr(making, "compiled", lambda *which: which)
    monkeypatch.setattr(choice, "FEW_REGISTERS", few_registers)
    expected = fixed if few_registers else interleaved
    picked = pick.__wrapped__("gen", 12, 1, MANY, np.dtype("d"), diagnostics=True)
    assert picked[0] is expected.kernel
    assert pick.__wrapped__("gen", 8, 1, MANY, np.dtype("d"), True)[0] is fixed.kernel


@pytest.mark.skipif(not FEW_REGISTERS, reason="elsewhere one kernel is as fast for any number")
@pytest.mark.parametrize("structure", ["gen", "pos", "tridiagonal"])
def test_one_right_hand_side_has_a_kernel_of_its_own(structure, monkeypatch):
    monkeypatch.setattr(making, "compiled", lambda *which: which)
    one, two = (pick.__wrapped__(structure, 3, k, MANY, np.dtype("d")) for k in (1, 2))
    assert (one[-1], two[-1]) == (True, False)
    assert one[:-1] == two[:-1]


@pytest.mark.parametrize(("n", "dtype"), grid(3, complex_up_to=0, slow=(1, 2, 8, 9, 12, 15, 16)))
@pytest.mark.parametrize("across", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_factors_in_lanes_give_the_bits_of_those_of_one_system(n, dtype, across, k):
    rng = np.random.default_rng([n, k])
    a, b = numbers(rng, dtype, 43, n, n), numbers(rng, dtype, 43, n, k)
    a[2], b[3, 0, 0], b[41], b[42] = 0, np.inf, np.finfo(dtype).max, -0.0
    lu, order = np.empty_like(a), np.empty((43, n), np.int32)
    factoring(n, dtype)(a, lu, order, np.empty(43, np.int8), np.empty(43))
    in_turn = across and n > PANEL and k == 5
    alone = factors._substituting((reuse_many if k == 5 else reuse).kernel, 0, dtype, across)
    lanes = factors._substituting(reuse_fixed.kernel, n, dtype, k == 1, across, in_turn)
    for systems in (43, 40, 1):
        expected, x = np.empty((2, systems, n, k), dtype)
        arrays = lu[:systems], order[:systems], b[:systems]
        assert lanes(*arrays, x) == alone(*arrays, expected)
        assert same_bits(x, expected)


@pytest.mark.parametrize(("n", "dtype"), grid(3, complex_up_to=3, slow=(1, 2, 7, 8, 9, 12, 16)))
def test_a_kernel_for_one_order_makes_the_factors_of_that_for_any(n, dtype):
    rng, big = np.random.default_rng(n), np.finfo(dtype).max
    a = numbers(rng, dtype, 43, n, n)
    a[1], a[2, 0, 0], a[3, -1, -1], a[4, :, 0], a[5] = 0, np.nan, np.inf, a[4, :, -1], a[5].round()
    with np.errstate(all="ignore"):
        a[6] *= big / 16
        a[7] *= np.finfo(dtype).tiny
        a[9, 0] *= big
    a[8] = big / 2 * (np.tri(n) - np.tri(n).T)
    a[41], a[42] = np.eye(n), -0.0
    for systems in (43, 40, 1):
        found = []
        for make, order in ((factor_fixed.kernel, n), (factor_interleaved.kernel, 0)):
            lu, rows = np.empty_like(a[:systems]), np.empty((systems, n), np.int32)
            others = np.empty(systems, np.int8), np.empty(systems)
            factors._factoring(make, order, dtype)(a[:systems], lu, rows, *others)
            found.append((lu, rows, *others))
        for one, other in zip(*found, strict=True):
            assert same_bits(one, other)


@pytest.mark.parametrize(
    ("n", "k", "systems", "dtype", "expected"),
    [
        pytest.param(8, 1, 1, "d", reuse_fixed, id="small, whatever their number"),
        pytest.param(16, 1, 8, "D", reuse_fixed, id="lanes that are full"),
        pytest.param(16, 1, 1, "d", reuse, id="lanes that would idle"),
        pytest.param(17, 1, MANY, "d", reuse, id="too much code"),
        pytest.param(13, 2, MANY, "D", reuse, id="complex takes longer to compile"),
        pytest.param(8, 8, MANY, "f", reuse_fixed, id="a few columns"),
        pytest.param(8, 9, MANY, "f", reuse_many, id="columns that fill the lanes"),
        pytest.param(4, 99, MANY, "f", reuse_fixed, id="the same of few unknowns"),
        pytest.param(4, 99, 1, "f", reuse_many, id="columns of one system"),
    ],
)
def test_the_fastest_solves_with_factors(n, k, systems, dtype, expected, monkeypatch):
    monkeypatch.setattr(factors, "_substituting", lambda *which: which)
    picked = factors.substituting.__wrapped__(n, k, systems, np.dtype(dtype), False)
    assert picked[0] is expected.kernel
