"""Picks the kernel that solves: from structure, N, K, dtype and number of systems, by a table."""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from dasksolve.kernels import making
from dasksolve.kernels.cholesky import fixed as cholesky_fixed
from dasksolve.kernels.cholesky import interleaved as cholesky_interleaved
from dasksolve.kernels.cholesky import single as cholesky_single
from dasksolve.kernels.diagonal import fixed as diagonal_fixed
from dasksolve.kernels.diagonal import interleaved as diagonal_interleaved
from dasksolve.kernels.language.lanes import PANEL, width
from dasksolve.kernels.language.target import FEW_REGISTERS
from dasksolve.kernels.lu import fixed as lu_fixed
from dasksolve.kernels.lu import interleaved as lu_interleaved
from dasksolve.kernels.lu import mirrored
from dasksolve.kernels.lu import shared as lu_shared
from dasksolve.kernels.lu import single as lu_single
from dasksolve.kernels.making import Kernel
from dasksolve.kernels.triangular import fixed as triangular_fixed
from dasksolve.kernels.triangular import interleaved as triangular_interleaved
from dasksolve.kernels.triangular import single as triangular_single
from dasksolve.kernels.tridiagonal import fixed as tridiagonal_fixed
from dasksolve.kernels.tridiagonal import interleaved as tridiagonal_interleaved


class Limits(NamedTuple):
    """The largest N for which a kernel is the fastest, or takes less than 5 s to compile."""

    unrolled: int
    """N is a constant; one system a lane."""
    interleaved: int
    """One system a lane; beyond, one system at a time."""
    interleaved_wide: int
    """The same for half as many right-hand sides as unknowns, or more."""
    vectors: int = 0
    """One right-hand side each has a kernel of its own, whose code has no others beside it."""


# By the character of the dtype; for positive definite matrices half the operations are left.
if FEW_REGISTERS:  # measured on Zen 3
    GENERAL = {
        "f": Limits(16, 128, 60, 6),
        "d": Limits(16, 96, 46, 6),
        "F": Limits(12, 144, 60, 6),
        "D": Limits(12, 96, 46, 6),
    }
    POSITIVE = {
        "f": Limits(16, 160, 110, 12),
        "d": Limits(16, 128, 80, 12),
        "F": Limits(12, 160, 56, 10),
        "D": Limits(12, 200, 200, 10),
    }
else:  # on Zen 4, with AVX-512
    GENERAL = {
        "f": Limits(16, 128, 40),
        "d": Limits(16, 104, 36),
        "F": Limits(12, 144, 56),
        "D": Limits(12, 144, 48),
    }
    POSITIVE = {
        "f": Limits(16, 160, 160),
        "d": Limits(16, 128, 128),
        "F": Limits(12, 160, 160),
        "D": Limits(12, 128, 128),
    }


# Right-hand sides from which on those of one system share a vector when factors are reused.
MANY = 4
# Those of a small system from which on they fill the lanes, and it is factored alone: N = 8 takes
# two thirds of the time then, in float32 half. Several systems, which are factored side by side
# else, want so many times as many; max(N, 4) times is enough for any number of them.
WIDE = 16


class Case(NamedTuple):
    """What a kernel is chosen by, beside the structure."""

    n: int
    k: int
    systems: int
    dtype: np.dtype[Any]
    diagnostics: bool
    lower: bool
    shared: bool = False
    """Whether vectors in sequence share a matrix."""

    @property
    def few(self) -> bool:
        """Whether the lanes would idle."""
        return is_few(self.systems, self.n, self.k, _lanes(self.dtype))


@lru_cache(maxsize=4096)  # a system of N = 2 takes 0.5 µs, and to choose its kernel 0.7
def pick(
    assume_a: str,
    n: int,
    k: int,
    systems: int,
    dtype: np.dtype[Any],
    diagnostics: bool = False,
    lower: bool = False,
) -> Kernel:
    """The compiled kernel for so many systems of order `n` with `k` right-hand sides.

    With diagnostics, for general matrices alone, it fills two more arrays (M,) of float64, rcond
    and backward_error: NaN for a system that is OK says that its norms are out of range for the
    kernel.
    """
    return STRUCTURES[assume_a](Case(n, k, systems, dtype, diagnostics, lower))


@cache
def pick_shared(assume_a: str, n: int, dtype: np.dtype[Any], lower: bool = False) -> Kernel:
    """The compiled kernel for a (P, N, N) and vectors b (P Q, N, 1), of which Q have each matrix.

    N is a panel at most, and the structure general, symmetric or Hermitian.
    """
    return STRUCTURES[assume_a](Case(n, 1, 1, dtype, False, lower, True))


def unrolled(limits: Limits, diagnostics: bool) -> int:
    """The largest N that is a constant: with diagnostics beyond a panel where that was measured."""
    return limits.unrolled if FEW_REGISTERS or not diagnostics else PANEL


def _by_size(
    case: Case, limits: Limits, regimes: tuple[Any, Any, Any], diagnostics: bool, *options: bool
) -> Kernel:
    """The fixed, the interleaved or the single kernel of a method."""
    fixed, interleaved, single = regimes
    n, dtype = case.n, case.dtype
    if n <= unrolled(limits, diagnostics) and (n <= PANEL or not case.few):
        vectors = case.k == 1 and n <= limits.vectors and not diagnostics
        return making.compiled(fixed.kernel, n, dtype, diagnostics, *options, vectors)
    tiled = limits.interleaved_wide if 2 * case.k >= n else limits.interleaved
    method = single if n > tiled or case.few else interleaved
    return making.compiled(method.kernel, 0, dtype, diagnostics, *options)


def _general(case: Case) -> Kernel:
    wide = is_wide(case.systems, case.n, case.k) and not case.diagnostics
    if case.shared or wide:
        return making.compiled(lu_shared.kernel, case.n, case.dtype, False, case.shared)
    if case.n == 1 and not case.diagnostics:  # the same bits, in two thirds of the time in float64
        return _diagonal(case)
    regimes = lu_fixed, lu_interleaved, lu_single
    return _by_size(case, GENERAL[case.dtype.char], regimes, case.diagnostics)


def _positive(case: Case) -> Kernel:
    regimes = cholesky_fixed, cholesky_interleaved, cholesky_single
    return _by_size(case, POSITIVE[case.dtype.char], regimes, False, case.lower)


def _triangular(case: Case, lower: bool) -> Kernel:
    n, k, systems, dtype, *_ = case
    if n <= PANEL:
        return making.compiled(triangular_fixed.kernel, n, dtype, False, lower)
    # Where lanes would idle, or the columns fill them: N = 512, given one at a time, takes 70 µs
    # instead of 160.
    alone = 2 * systems <= _lanes(dtype) or (n > 64 and k >= MANY)
    method = triangular_single if alone else triangular_interleaved
    return making.compiled(method.kernel, 0, dtype, False, lower)


def _diagonal(case: Case) -> Kernel:
    if case.n <= PANEL:
        return making.compiled(diagonal_fixed.kernel, case.n, case.dtype)
    return making.compiled(diagonal_interleaved.kernel, 0, case.dtype)


def _tridiagonal(case: Case) -> Kernel:
    if case.n <= tridiagonal_fixed.MOST:
        vectors = FEW_REGISTERS and case.k == 1
        return making.compiled(tridiagonal_fixed.kernel, case.n, case.dtype, False, vectors)
    return making.compiled(tridiagonal_interleaved.kernel, 0, case.dtype)


def _symmetric(case: Case, hermitian: bool) -> Kernel:
    order = case.n if case.n <= PANEL else 0  # where it is worth a copy of its own
    hermitian &= case.dtype.kind == "c"
    return mirrored.kernel(_copying(order, case.dtype, case.lower, hermitian), _general(case))


STRUCTURES: dict[str, Callable[[Case], Kernel]] = {
    "gen": _general,
    "pos": _positive,
    "sym": partial(_symmetric, hermitian=False),
    "her": partial(_symmetric, hermitian=True),
    "upper triangular": partial(_triangular, lower=False),
    "lower triangular": partial(_triangular, lower=True),
    "diagonal": _diagonal,
    "tridiagonal": _tridiagonal,
}


def is_wide(systems: int, n: int, k: int) -> bool:
    """Whether the columns of small systems fill the lanes, and each matrix is factored alone."""
    return n <= PANEL and k >= WIDE * min(systems, max(n, 4))


def is_few(systems: int, n: int, k: int, lanes: int) -> bool:
    """Whether idle lanes cost more than solving one at a time.

    Measured for N = 9 … 100 on Zen 5: a tile takes (size - 13) / (size / lanes + 10) times as long
    as one system alone, where size = 2 N + K.
    """
    tiles, size = -(-systems // lanes), 2 * n + k
    return systems * (size + 10 * lanes) <= tiles * lanes * (size - 13)


@cache  # 3 µs saved of the 10 that one system of N = 20 takes
def _lanes(dtype: np.dtype[Any]) -> int:
    return width(dtype)


@cache
def _copying(n: int, dtype: np.dtype[Any], lower: bool, hermitian: bool) -> Kernel:
    """The kernel ``copy(a, whole)`` that mirrors the triangle which is read."""
    dispatcher, signature = mirrored.copy(n, lower, hermitian), making.arrays(dtype)
    return making.ready(dispatcher, signature, _copying, n, dtype, lower, hermitian)
