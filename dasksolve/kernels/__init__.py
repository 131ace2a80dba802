"""Picks a kernel from (structure, N, dtype) by a table.

Every kernel is called as ``kernel(a, b, x, status)`` with C-contiguous, native arrays: a (M, N, N)
and b (M, N, K) are read, x (M, N, K) and status (M,) int8 are written, N ≥ 1, M ≥ 0, K ≥ 1, all
of one dtype. It runs serially without the GIL, never raises, and gives the same bits for a system
wherever that stands in the batch. x is NaN where the status is not OK; but of a system that is
NONFINITE for some columns of its b alone, the others are solved. The status `UNBOUNDED` asks the
caller to try once more: `scaling` does.

The arithmetic is fixed, so that every kernel for general matrices gives the same bits. Pivots are
the first of the largest |re| + |im| in their column, and are taken in panels of 8 (the last panel
may be smaller). Rows are swapped in the panel and to its right. Then, with (·) as the sum of
products over k in ascending order, or in descending order where that is said, begun by
`lanes.product` and continued by `lanes.fma`, and r_k = `lanes.reciprocal` of u_kk:

    in a panel that starts at s     u_ij = a_ij - (l_ik u_kj : s ≤ k < i)
                                    l_ij = (a_ij - (l_ik u_kj : s ≤ k < j)) r_j
    after it, right and below       a_ij ← a_ij - (l_ik u_kj : k in the panel)
    b                               as further columns of a, which give y
    x, panels from the last one     x_i = (y_i - (u_ik x_k : i < k in the panel, descending)) r_i
    after each, above               y_i ← y_i - (u_ik x_k : k in the panel)

For real N ≤ 5 and complex N = 2 these are the operations of OpenBLAS's getrf, hence the same
verdicts on singularity.
"""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numba import from_dtype, types
from numpy.typing import NDArray

from dasksolve.kernels import unpacking as unpack
from dasksolve.kernels.cholesky import fixed as cholesky_fixed
from dasksolve.kernels.cholesky import interleaved as cholesky_interleaved
from dasksolve.kernels.cholesky import single as cholesky_single
from dasksolve.kernels.compiling import forking
from dasksolve.kernels.compiling.child import compile_apart, compiling_apart
from dasksolve.kernels.compiling.jit import compilation, has_cache, jit, named, warn_without_fma
from dasksolve.kernels.diagnostics import errors, structured
from dasksolve.kernels.diagnostics import residuals as extended_residuals
from dasksolve.kernels.diagonal import fixed as diagonal_fixed
from dasksolve.kernels.diagonal import interleaved as diagonal_interleaved
from dasksolve.kernels.language.lanes import PANEL, width
from dasksolve.kernels.language.target import FMA
from dasksolve.kernels.lu import factor_interleaved, factor_single, mirrored, reuse, reuse_many
from dasksolve.kernels.lu import fixed as lu_fixed
from dasksolve.kernels.lu import interleaved as lu_interleaved
from dasksolve.kernels.lu import single as lu_single
from dasksolve.kernels.regimes import alone
from dasksolve.kernels.regression import parts, separate, shared
from dasksolve.kernels.triangular import fixed as triangular_fixed
from dasksolve.kernels.triangular import interleaved as triangular_interleaved
from dasksolve.kernels.triangular import single as triangular_single
from dasksolve.kernels.tridiagonal import fixed as tridiagonal_fixed
from dasksolve.kernels.tridiagonal import interleaved as tridiagonal_interleaved

__all__ = [
    "ARITHMETIC",
    "adding",
    "backward_errors",
    "compiled",
    "compiling_apart",
    "factoring",
    "has_cache",
    "least_squares",
    "pick",
    "pivots",
    "regressing",
    "residuals",
    "substituting",
    "tridiagonal_bands",
    "unpacking",
]

Kernel = Callable[..., None]
ARITHMETIC = "2" if FMA else "2 without fma"
"""Counted up when any answer changes by a bit: `check_zarr` then compares within bounds."""
forking.register()
STATUS = types.Array(types.int8, 1, "C")


class Limits(NamedTuple):
    """The largest N for which a kernel is the fastest, or takes less than 5 s to compile."""

    unrolled: int
    """N is a constant; one system a lane."""
    interleaved: int
    """One system a lane; beyond, one system at a time."""
    interleaved_wide: int
    """The same for half as many right-hand sides as unknowns, or more."""


# Measured on Zen 4 with AVX-512, by the character of the dtype.
GENERAL = {
    "f": Limits(16, 128, 40),
    "d": Limits(16, 104, 36),
    "F": Limits(12, 144, 56),
    "D": Limits(12, 144, 48),
}


# The same where half the operations are left.
POSITIVE = {
    "f": Limits(16, 160, 160),
    "d": Limits(16, 128, 128),
    "F": Limits(12, 160, 160),
    "D": Limits(12, 128, 128),
}


# Right-hand sides from which on those of one system share a vector when factors are reused.
MANY = 4


class Case(NamedTuple):
    """What a kernel is chosen by, beside the structure."""

    n: int
    k: int
    systems: int
    dtype: np.dtype[Any]
    diagnostics: bool
    lower: bool

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


def _by_size(
    case: Case, limits: Limits, regimes: tuple[Any, Any, Any], diagnostics: bool, *options: bool
) -> Kernel:
    """The fixed, the interleaved or the single kernel of a method."""
    fixed, interleaved, single = regimes
    n, dtype = case.n, case.dtype
    if n <= (PANEL if diagnostics else limits.unrolled) and (n <= PANEL or not case.few):
        return compiled(fixed.kernel, n, dtype, diagnostics, *options)
    tiled = limits.interleaved_wide if 2 * case.k >= n else limits.interleaved
    method = single if n > tiled or case.few else interleaved
    return compiled(method.kernel, 0, dtype, diagnostics, *options)


def _general(case: Case) -> Kernel:
    regimes = lu_fixed, lu_interleaved, lu_single
    return _by_size(case, GENERAL[case.dtype.char], regimes, case.diagnostics)


def _positive(case: Case) -> Kernel:
    regimes = cholesky_fixed, cholesky_interleaved, cholesky_single
    return _by_size(case, POSITIVE[case.dtype.char], regimes, False, case.lower)


def _triangular(case: Case, lower: bool) -> Kernel:
    n, k, systems, dtype, _, _ = case
    if n <= PANEL:
        return compiled(triangular_fixed.kernel, n, dtype, False, lower)
    # Where lanes would idle, or the columns fill them: N = 512, given one at a time, takes 70 µs
    # instead of 160.
    alone = 2 * systems <= _lanes(dtype) or (n > 64 and k >= MANY)
    method = triangular_single if alone else triangular_interleaved
    return compiled(method.kernel, 0, dtype, False, lower)


def _diagonal(case: Case) -> Kernel:
    if case.n <= PANEL:
        return compiled(diagonal_fixed.kernel, case.n, case.dtype)
    return compiled(diagonal_interleaved.kernel, 0, case.dtype)


def _tridiagonal(case: Case) -> Kernel:
    if case.n <= tridiagonal_fixed.MOST:
        return compiled(tridiagonal_fixed.kernel, case.n, case.dtype)
    return compiled(tridiagonal_interleaved.kernel, 0, case.dtype)


def _symmetric(case: Case, hermitian: bool) -> Kernel:
    order = case.n if case.n <= PANEL else 0  # where it is worth a copy of its own
    hermitian &= case.dtype.kind == "c"
    return _mirrored(_general(case), order, case.dtype, case.lower, hermitian)


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
def _mirrored(
    general: Kernel, n: int, dtype: np.dtype[Any], lower: bool, hermitian: bool
) -> Kernel:
    read, write = _arrays(dtype)
    return mirrored.kernel(_ready(mirrored.copy(n, lower, hermitian), (read, write)), general)


@cache
def tridiagonal_bands(dtype: np.dtype[Any]) -> Kernel:
    """The kernel that is called as ``kernel(lower, diagonal, upper, b, x, status)``."""
    read, write = _arrays(dtype)
    band = types.Array(read.dtype, 2, "C", readonly=True)
    return _ready(tridiagonal_interleaved.band_kernel(0), (band, band, band, read, write, STATUS))


@cache
def factoring(n: int, dtype: np.dtype[Any]) -> Kernel:
    """The kernel ``factor(a, lu, order, status, rcond)``: order (M, N) int32, lu as a."""
    method = factor_interleaved if n <= GENERAL[dtype.char].interleaved else factor_single
    return _factoring(method.kernel, dtype)


@cache
def _factoring(make: Callable[..., Any], dtype: np.dtype[Any]) -> Kernel:
    read, write = _arrays(dtype)
    order, rcond = types.Array(types.int32, 2, "C"), types.Array(types.float64, 1, "C")
    return _ready(make(0), (read, write, order, STATUS, rcond))


def substituting(k: int, dtype: np.dtype[Any], transposed: bool) -> Callable[..., int]:
    """The kernel ``solve(lu, order, b, x)`` for k columns, with what `factoring` gives.

    It returns one of `reuse.DAMAGED`, `FINE` and `SPOILT`.
    """
    method = reuse if k < MANY else reuse_many
    return _substituting(method.kernel, dtype, transposed)


@cache
def _substituting(
    make: Callable[..., Any], dtype: np.dtype[Any], transposed: bool
) -> Callable[..., int]:
    read, write = _arrays(dtype)
    order = types.Array(types.int32, 2, "C", readonly=True)
    return _ready(make(0, transposed), (read, order, read, write))


def pivots(n: int) -> NDArray[np.intp]:
    """Where the reciprocals on the diagonal of U are among the N² numbers of a system's factors."""
    places: NDArray[np.intp] = reuse.diagonal(n)
    return places


@cache
def residuals(dtype: np.dtype[Any]) -> Kernel:
    """The kernel ``residuals(a, b, x, r)``: r = b - A x, rounded once."""
    read, write = _arrays(dtype)
    return _ready(extended_residuals.kernel(0), (read, read, read, write))


@cache
def backward_errors(dtype: np.dtype[Any]) -> Kernel:
    """The kernel ``errors(a, b, x, backward_error)``: NaN where norms are out of its range."""
    read, _ = _arrays(dtype)
    return _ready(errors.kernel(0), (read, read, read, types.Array(types.float64, 1, "C")))


@cache
def structured_errors(dtype: np.dtype[Any], mirrored: bool, hermitian: bool) -> Kernel:
    """The kernel ``errors(a, b, x, below, above, backward_error)`` of `diagnostics.structured`.

    For float64 and complex128, quick, for `check`.
    """
    read, _ = _arrays(dtype)
    found = types.Array(types.float64, 1, "C")
    dispatcher = structured.kernel(0, mirrored, hermitian)
    return _ready(dispatcher, (read, read, read, types.int64, types.int64, found))


@cache
def regressing(n: int, dtype: np.dtype[Any], stored: np.dtype[Any]) -> Kernel:
    """The kernel for regressions on n columns, of a real dtype; at least as many series as lanes.

    It is called as ``kernel(y, packing, w, own, along, table, basis, min_count, threshold, coef,
    stderr, rss, count, rcond, status, covariance, start, stop)``, all arrays flat: y (P, M), or
    (M, P) if `along`, `stored` in that dtype or in integers of 16 bits at most, of which three
    numbers of `packing` say which is missing, what they are multiplied by and what is added; w of
    y's shape if `own`, else (P,); `table` and `basis` as `batch.basis` makes them; coef and stderr
    (N, M), or (M, N) if `along`; covariance (M, N, N) or empty. It does the series start … stop.
    """
    numbers, doubles = (types.Array(e, 1, "C") for e in (from_dtype(dtype), types.float64))
    read, constants = (types.Array(v.dtype, 1, "C", readonly=True) for v in (numbers, doubles))
    index, number, counts = types.intp, types.float64, types.Array(types.int32, 1, "C")
    y = types.Array(from_dtype(stored), 1, "C", readonly=True)
    given = (y, types.UniTuple(number, 3), read, index, index, read, constants, number, number)
    found = (numbers, numbers, numbers, counts, doubles, STATUS, numbers)
    dispatcher, signature = shared.kernel(n), (*given, *found, index, index)
    compile_apart(dispatcher, signature, regressing, n, dtype, stored)
    return _ready(dispatcher, signature)


@cache
def unpacking(stored: np.dtype[Any], dtype: np.dtype[Any]) -> Kernel:
    """The kernel ``unpack(stored, meant, missing, number, scaled, scale, shifted, offset)``.

    Flat arrays; scale and offset of the dtype that is meant; three flags say what is to be done.
    """
    number, flag = from_dtype(dtype), types.boolean
    read = types.Array(from_dtype(stored), 1, "C", readonly=True)
    written = types.Array(number, 1, "C")
    signature = (read, written, flag, types.float64, flag, number, flag, number)
    dispatcher = unpack.kernel()
    compile_apart(dispatcher, signature, unpacking, stored, dtype)
    return _ready(dispatcher, signature)


class Adding(NamedTuple):
    """The kernels for regressions whose observations come a part after the other."""

    places: dict[Any, int]
    """What stands where in the state of a tile of series, each a vector."""
    lanes: int
    """Series in a tile; the last one may overlap the one before."""
    add: Kernel
    """``add(y, w, own, table, basis, state, series, residuals)``: y (P, M) of some observations."""
    turn: Kernel
    """``turn(basis, state, series, threshold)``, between sums and residuals."""
    answer: Kernel
    """``answer(basis, state, along, min_count, threshold, coef, …)``, as that of `regressing`."""


@cache
def adding(n: int, dtype: np.dtype[Any]) -> Adding:
    """The kernels for n columns, of a real dtype; all arrays are flat."""
    numbers, doubles = (types.Array(e, 1, "C") for e in (from_dtype(dtype), types.float64))
    read, constants = (types.Array(v.dtype, 1, "C", readonly=True) for v in (numbers, doubles))
    index, number, counts = types.intp, types.float64, types.Array(types.int32, 1, "C")
    found = (numbers, numbers, numbers, counts, doubles, STATUS, numbers)
    signatures = (
        (read, read, index, read, constants, numbers, index, index),
        (constants, numbers, index, number),
        (constants, numbers, index, number, number, *found),
    )
    made = []
    for make, signature in zip(
        (parts.adding, parts.turning, parts.answering), signatures, strict=True
    ):
        dispatcher = make(n)
        compile_apart(dispatcher, signature, adding, n, dtype)
        made.append(_ready(dispatcher, signature))
    return Adding(parts.places(n), width(dtype), *made)


@cache
def least_squares(dtype: np.dtype[Any]) -> Kernel:
    """The kernel ``kernel(a, b, roots, own, threshold, x, rss, variances, rcond, count, status)``.

    a (M, P, N) and b (M, P, K) are read, and `roots` of the weights, (M, P) if `own`, else (1, P);
    x (M, N, K), rss (M, K), variances (M, N), the diagonal of (aᴴ a)⁻¹, rcond and count (M,) of
    float64 are written. The status is PENDING where rcond is below the threshold, or out of range.
    """
    read, write = _arrays(dtype)
    real = from_dtype(np.zeros((), dtype).real.dtype)
    roots, numbers = types.Array(read.dtype, 2, "C", readonly=True), types.Array(real, 2, "C")
    doubles = types.Array(types.float64, 1, "C")
    found = (write, numbers, numbers, doubles, doubles, STATUS)
    dispatcher = separate.kernel(0)
    signature = (read, read, roots, types.intp, types.float64, *found)
    compile_apart(dispatcher, signature, least_squares, dtype)
    return _ready(dispatcher, signature)


@cache
def compiled(
    make: Callable[..., Any],
    n: int,
    dtype: np.dtype[Any],
    diagnostics: bool = False,
    *options: bool,
) -> Kernel:
    """The kernel that `make` makes, compiled for one dtype; n is 0 where it takes any order."""
    solve = make(n, *options)
    dispatcher = jit(solve if diagnostics else named(alone(solve), solve.unique_name))
    read, write = _arrays(dtype)
    number = types.Array(types.float64, 1, "C")
    signature = (read, read, write, STATUS, *([number, number] if diagnostics else []))
    compile_apart(dispatcher, signature, compiled, make, n, dtype, diagnostics, *options)
    return _ready(dispatcher, signature)


def _arrays(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The types of what is read and of what is written."""
    element = from_dtype(dtype)
    return types.Array(element, 3, "C", readonly=True), types.Array(element, 3, "C")


def _ready(dispatcher: Any, signature: tuple[Any, ...]) -> Any:
    warn_without_fma()
    with compilation():
        dispatcher.compile(signature)
        # Now: processes that compile apart give their kernels the same name, and asked for it later
        # numba finds the one that was loaded last.
        (found,) = dispatcher.overloads.values()
        name = found.fndesc.llvm_func_name
        dispatcher.address = found.library.get_pointer_to_function(name)
    dispatcher.disable_compile()  # numba would rather compile another one for writable a and b
    return dispatcher
