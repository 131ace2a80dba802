"""The kernels of structured systems: accuracy, verdicts, containment, bits, and what is read."""

from functools import partial

import numpy as np
import pytest
from families import BACKWARD_C, DTYPES, backward_error, numbers, same_bits
from scipy import linalg

from dasksolve.batch.options import Options
from dasksolve.batch.structure import meant
from dasksolve.kernels import pick
from dasksolve.kernels.diagnostics.verdicts import UNBOUNDED
from dasksolve.status import Status

MANY = 10**6
FLOAT, COMPLEX = np.dtype(np.float64), np.dtype(np.complex64)


def definite(n, dtype, rng, m=5):
    a = numbers(rng, dtype, m, n, n)
    return a @ a.conj().swapaxes(-1, -2) / n + np.eye(n, dtype=dtype) / 4


def dominant(n, dtype, rng, m=5):
    """Triangles of these do not grow beyond measure."""
    return numbers(rng, dtype, m, n, n) / dtype.type(n) + 2 * np.eye(n, dtype=dtype)


def general(n, dtype, rng, m=5):
    return numbers(rng, dtype, m, n, n)


MATRICES = {
    "pos": definite,
    "sym": general,
    "her": general,
    "upper triangular": dominant,
    "lower triangular": dominant,
    "diagonal": general,
    "tridiagonal": general,
}
# Orders of each kernel: unrolled, in a tile, with a remainder, one system at a time. Compiling is
# what takes long, so the default tests meet every kernel, and the slow ones every combination.
ORDERS = {"pos": (5, 18, 170), "sym": (5, 19), "her": (5, 19), "diagonal": (5, 18)}
MORE_ORDERS = {"pos": (1, 2, 8, 12, 16, 33, 171), "sym": (1, 12, 33), "her": (1, 12, 33)}
PAIRS = ((FLOAT, False), (COMPLEX, True))


def case(word, lower, dtype, n, *marks):
    name = f"{word}-{'lower' if lower else 'upper'}-{dtype}-{n}"
    return pytest.param(word, lower, dtype, n, id=name, marks=marks)


CASES = [
    case(word, lower, dtype, n, *([pytest.mark.slow] if dtype == COMPLEX and n > 5 else []))
    for word in MATRICES
    for dtype, lower in PAIRS
    for n in ORDERS.get(word, (5, 18))
]
CASES += [
    case(word, lower, dtype, n, pytest.mark.slow)
    for word in MATRICES
    for dtype in DTYPES
    for lower in ((False, True) if word in ("pos", "sym", "her") else (False,))
    for n in MORE_ORDERS.get(word, (1, 2, 7, 8, 9, 16, 40, 70))
]


def posed(assume_a, lower, n, dtype, m=5, seed=0):
    """(what is stored, what is meant): NaN stands wherever nothing is to be read."""
    rng = np.random.default_rng([seed, n])
    a = MATRICES[assume_a](n, dtype, rng, m)
    read = meant(np.ones((n, n)), Options(assume_a, lower))
    if assume_a in ("pos", "sym", "her"):
        read = np.tril(read) if lower else np.triu(read)
    stored = np.where(read, a, a.dtype.type(np.nan))
    if assume_a in ("pos", "her") and dtype.kind == "c":
        stored.imag[:, np.arange(n), np.arange(n)] = np.inf
    return stored, meant(stored, Options(assume_a, lower))


def solve(assume_a, lower, a, b, systems=MANY):
    n, k = b.shape[1:]
    x, status = np.full_like(b, 7), np.full(len(a), Status.PENDING, np.int8)
    pick(assume_a, n, k, systems, a.dtype, lower=lower)(a, b, x, status)
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


@pytest.mark.parametrize(
    ("assume_a", "place", "singular"),
    [
        pytest.param("pos", (1, 1), Status.NOT_POSITIVE_DEFINITE, id="pos"),
        pytest.param("upper triangular", (1, 1), Status.SINGULAR, id="upper triangular"),
        pytest.param("lower triangular", (1, 1), Status.SINGULAR, id="lower triangular"),
        pytest.param("diagonal", (1, 1), Status.SINGULAR, id="diagonal"),
        pytest.param("tridiagonal", (1, slice(0, 3)), Status.SINGULAR, id="tridiagonal"),
        pytest.param("sym", (slice(None), slice(None)), Status.SINGULAR, id="sym"),
        pytest.param("her", (slice(None), slice(None)), Status.SINGULAR, id="her"),
    ],
)
@pytest.mark.parametrize("systems", [1, MANY], ids=["few", "many"])
@pytest.mark.parametrize(("dtype", "lower"), PAIRS, ids=["upper", "lower"])
@pytest.mark.parametrize("n", [5, pytest.param(18, marks=pytest.mark.slow)])
def test_each_trouble_is_named_and_kept_apart(assume_a, place, singular, n, dtype, lower, systems):
    stored, _ = posed(assume_a, lower, n, dtype, 21)
    b = numbers(np.random.default_rng(0), dtype, 21, n, 2)
    expected, _ = solve(assume_a, lower, stored, b, systems)
    info = np.finfo(dtype)
    tiny, least, huge = info.smallest_subnormal, 4 * info.tiny, info.max
    stored[3][place] = 0
    stored[5, n - 1, n - 1] = np.nan
    stored[8, 2, 2] = -np.inf
    b[11, 0, 1] = np.nan
    b[12, n - 1, 0] = np.inf
    stored[14] = np.where(np.isnan(stored[14].real), np.nan, np.diag([1] * (n - 1) + [tiny]))
    stored[17] = np.where(np.isnan(stored[17].real), np.nan, np.eye(n) * least)
    b[17] = huge / 4
    bad = {3: singular, **dict.fromkeys((5, 8, 11, 12), Status.NONFINITE)}
    bad |= {14: UNBOUNDED, 17: UNBOUNDED}
    x, status = solve(assume_a, lower, stored, b, systems)
    assert status.tolist() == [bad.get(m, Status.OK) for m in range(21)]
    for m, column in ((11, 0), (12, 1)):  # the column beside is as it was
        assert same_bits(x[m, :, column], expected[m, :, column])
        x[m, :, column] = x[m, :, 1 - column]
    assert np.isnan(x[list(bad)].real).all()
    assert dtype.kind == "f" or np.isnan(x[list(bad)].imag).all()
    sound = [m for m in range(21) if m not in bad]
    assert same_bits(x[sound], expected[sound])


@pytest.mark.parametrize(("dtype", "lower"), PAIRS, ids=["upper", "lower"])
@pytest.mark.parametrize("systems", [1, MANY], ids=["few", "many"])
@pytest.mark.parametrize("n", [5, pytest.param(18, marks=pytest.mark.slow)])
def test_a_pivot_that_is_not_positive_is_found_where_it_is(n, systems, dtype, lower):
    a = np.stack([np.eye(n, dtype=dtype)] * (2 * n + 2))
    for i in range(n):
        a[i, i, i] = 0
        a[n + i, i, i] = -1
    a[-2] = 1 + np.eye(n)
    a[-1] = 1 - np.eye(n) / 2  # indefinite, though its diagonal is positive
    _, status = solve("pos", lower, a, np.ones((len(a), n, 1), dtype), systems)
    bad = Status.NOT_POSITIVE_DEFINITE
    assert status.tolist() == [bad] * (2 * n) + [Status.OK, bad]


@pytest.mark.slow
def test_both_triangles_give_the_same_bits():
    a = meant(definite(18, COMPLEX, np.random.default_rng(0), 3), Options("pos"))
    b = numbers(np.random.default_rng(1), COMPLEX, 3, 18, 2)
    upper, lower = (solve("pos", word, a, b)[0] for word in (False, True))
    assert same_bits(upper, lower)


def test_no_systems():
    for word in MATRICES:
        for n in (5, 18):
            empty = np.empty((0, n, n)), np.empty((0, n, 1))
            assert solve(word, False, *empty)[0].shape == (0, n, 1)
