"""Systems whose elimination or x over- or underflows, solved once more with numbers near 1.

R A C y = R b and x = C y, where R and C are diagonal matrices of powers of two that bring the
largest element of every row and column of A near 1, as LAPACK's geequ does; of positive definite
matrices the diagonal, as poequ. Each column of b is scaled by one power more. The powers are kept
as exponents, since many of them are no floating-point numbers. Nothing is rounded on the way to y,
but for what is too small to count beside the largest element of its row.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasksolve.kernels.diagnostics.verdicts import UNBOUNDED
from dasksolve.status import Status

# The exponent of zero: below any other, whatever is added.
_OF_ZERO = -(1 << 20)

Exponents = NDArray[np.int32]


class Attempt(NamedTuple):
    """A way to solve R A C y = b."""

    solve: Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[np.int8]]]
    """b (M, N, K) to y and the status of every system."""
    rows: Exponents
    """R (M, N)."""
    columns: Exponents
    """C (M, N)."""


def exponents(values: NDArray[Any]) -> Exponents:
    """e with 2ᵉ⁻¹ ≤ |v| < 2ᵉ, of the larger part of a complex number."""
    sizes = np.abs(values.real)
    if values.dtype.kind == "c":
        sizes = np.maximum(sizes, np.abs(values.imag))
    return np.where(sizes == 0, np.int32(_OF_ZERO), np.frexp(sizes)[1])


def largest(sizes: Exponents, axis: int | tuple[int, ...]) -> Exponents:
    """The largest exponents along an axis, which is kept; 0 where there are but zeros."""
    found = sizes.max(axis=axis, keepdims=True, initial=_OF_ZERO)
    return np.where(found < _OF_ZERO // 2, np.int32(0), found)


def shifted(values: NDArray[Any], by: Any) -> NDArray[Any]:
    """values · 2ᵇʸ: exact, unless the result over- or underflows."""
    if values.dtype.kind != "c":
        return np.ldexp(values, by)
    result = np.empty(np.broadcast_shapes(values.shape, np.shape(by)), values.dtype)
    result.real, result.imag = np.ldexp(values.real, by), np.ldexp(values.imag, by)
    return result


def equilibrated(
    a: NDArray[Any], definite: bool = False
) -> tuple[NDArray[Any], Exponents, Exponents]:
    """R A C, R and C of matrices (M, N, N)."""
    sizes = exponents(a)
    if definite:
        diagonal = largest(np.diagonal(sizes, axis1=-2, axis2=-1)[..., None], -1)[..., 0]
        rows = columns = -(diagonal // 2)
    else:
        rows = -largest(sizes, -1)[..., 0]
        columns = -largest(sizes + rows[..., None], -2)[..., 0, :]
    return shifted(a, rows[..., None] + columns[..., None, :]), rows, columns


def _equilibrated_bands(
    bands: list[NDArray[Any]],
) -> tuple[list[NDArray[Any]], Exponents, Exponents]:
    """`equilibrated` for the three diagonals, each (M, N), of tridiagonal matrices."""
    sizes = np.stack([exponents(band) for band in bands])
    sizes[0, :, :1] = sizes[2, :, -1:] = _OF_ZERO  # outside the matrix
    rows = -largest(sizes, 0)[0]
    low, middle, high = sizes + rows
    middle[:, :-1] = np.maximum(middle[:, :-1], low[:, 1:])
    middle[:, 1:] = np.maximum(middle[:, 1:], high[:, :-1])
    columns = -largest(middle[..., None], -1)[..., 0]
    sides = np.roll(columns, 1, -1), columns, np.roll(columns, -1, -1)
    scaled = [shifted(band, rows + side) for band, side in zip(bands, sides, strict=True)]
    return scaled, rows, columns


def attempts(
    kernel: Callable[..., None], *arrays: NDArray[Any], definite: bool = False
) -> Iterator[Attempt]:
    """The matrices as they are, since x alone may be out of range; then scaled themselves.

    The kernel is called as ``kernel(*arrays, b, x, status)``, with matrices (M, N, N) that are
    complete, or three diagonals (M, N).
    """

    def attempt(arrays: Iterable[NDArray[Any]], rows: Exponents, columns: Exponents) -> Attempt:
        def solve(b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int8]]:
            y, status = np.empty(b.shape, b.dtype), np.empty(len(b), np.int8)
            kernel(*map(np.ascontiguousarray, (*arrays, b)), y, status)
            return y, status

        return Attempt(solve, rows, columns)

    none = np.zeros(arrays[0].shape[:2], np.int32)
    yield attempt(arrays, none, none)
    if len(arrays) == 1:
        scaled, *exponents = equilibrated(arrays[0], definite)
        yield attempt([scaled], *exponents)
    else:
        several, *exponents = _equilibrated_bands(list(arrays))
        yield attempt(several, *exponents)


def solve_again(attempts: Iterable[Attempt], b: NDArray[Any], x: NDArray[Any]) -> NDArray[np.int8]:
    """Fill in the columns of x (M, N, K) that are NaN though those of b are finite; the status."""
    with np.errstate(all="ignore"):
        finite = np.isfinite(b).all(axis=1)
        lost = finite & np.isnan(x).any(axis=1)
        status = np.full(len(b), Status.NONFINITE, np.int8)
        sizes = exponents(b)
        for solve, rows, columns in attempts:
            by = -largest(sizes + rows[..., None], 1)
            y, verdict = solve(shifted(b, rows[..., None] + by))
            y = shifted(y, columns[..., None] - by)
            found = lost & np.isfinite(y).all(axis=1)
            np.copyto(x, y + 0, where=found[:, None])  # no zero has a sign
            lost &= ~found
            if not lost.any():
                break
        status[finite.all(axis=1) & ~lost.any(axis=1)] = Status.OK
        rejected = (verdict == Status.SINGULAR) | (verdict == Status.NOT_POSITIVE_DEFINITE)
        rejected &= np.isnan(x).any(axis=1).all(axis=1)
        status[rejected] = verdict[rejected]
    return status


def solve_lost(
    kernel: Callable[..., None],
    matrices: Callable[[NDArray[np.intp]], list[NDArray[Any]]],
    b: NDArray[Any],
    x: NDArray[Any],
    status: NDArray[np.int8],
    definite: bool = False,
) -> None:
    """Solve again what a kernel called `UNBOUNDED`; `matrices` of these are as in `attempts`."""
    if np.count_nonzero(status) == 0:  # a tenth of the time of what follows
        return
    lost = np.flatnonzero(status == UNBOUNDED)
    if lost.size:
        ways, found = attempts(kernel, *matrices(lost), definite=definite), x[lost]
        status[lost] = solve_again(ways, b[lost], found)
        x[lost] = found
