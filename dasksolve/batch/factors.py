"""Factors of the blocks of a batch: made, solved with, and their determinants."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch import eager, pieces, settling
from dasksolve.batch.arrays import as_array
from dasksolve.batch.options import Options
from dasksolve.batch.problem import describe, undefined
from dasksolve.batch.structure import meant
from dasksolve.kernels.diagnostics.verdicts import UNBOUNDED
from dasksolve.kernels.lu.reuse import DAMAGED, SPOILT
from dasksolve.kernels.scaling import Attempt, equilibrated, solve_again
from dasksolve.status import Status, is_singular

LOST = int(np.iinfo(np.int16).min)
"""An exponent that no factors have: of a chunk that was lost."""
_DAMAGED = (
    "the factors are damaged or incomplete: they name rows that a matrix does not have; factor "
    "and write them again"
)


def factor_block(
    a: NDArray[Any], dtype: np.dtype[Any], options: Options
) -> tuple[NDArray[Any], ...]:
    """The factors, the order of rows, status, rcond and scales of a block."""
    a = as_array("a", a)
    n, shape = a.shape[-1], a.shape[:-2]
    lu, order = np.empty(a.shape, dtype), np.empty(a.shape[:-1], np.int32)
    status, rcond = np.zeros(shape, np.int8), np.ones(shape)
    # As a rule, no memory; and np.broadcast_to takes 20 µs.
    scales: Any = np.ndarray((*shape, n, 2), np.int16, bytes(2), strides=(0,) * a.ndim)
    if not a.size:
        return lu, order, status, rcond, scales
    given = np.require(a, dtype, ["C", "A"]).reshape(-1, n, n)
    whole = np.ascontiguousarray(meant(given, options))
    flat = lu.reshape(-1, n, n), order.reshape(-1, n), status.reshape(-1), rcond.reshape(-1)
    kernels.factoring(n, dtype)(whole, *flat)
    lost = np.flatnonzero(flat[2] == UNBOUNDED)
    if lost.size:
        scales = np.zeros((*shape, n, 2), np.int16)
        scales.reshape(-1, n, 2)[lost] = _factor_scaled(whole, lost, flat)
    if options.assume_a == "lower triangular":
        _keep_order(whole, lost, flat)
    unknown = (flat[2] == Status.OK) & np.isnan(flat[3])
    if unknown.any():
        with np.errstate(all="ignore"):
            flat[3][unknown] = settling.scaled_rconds(whole[unknown])
    if options.assume_a in ("pos", "lower triangular"):
        # Rows are not exchanged where `solve` goes by structure: it meets other pivots.
        b = np.zeros((len(given), n), dtype)
        problem = describe(given.shape, dtype, b.shape, dtype)
        verdict = eager.solve_with_status(given, b, problem, options)[1]
        if options.assume_a == "pos":
            flat[2][flat[2] == Status.SINGULAR] = Status.NOT_POSITIVE_DEFINITE
        np.copyto(flat[2], verdict, where=is_singular(verdict))
        flat[0][is_singular(flat[2])] = undefined(dtype)
        flat[3][is_singular(flat[2])] = 0
    return lu, order, status, rcond, scales


def _factor_scaled(
    a: NDArray[Any], lost: NDArray[np.intp], factors: tuple[NDArray[Any], ...]
) -> NDArray[np.int32]:
    """Factor the `lost` ones of a, scaled by powers of two; the exponents of rows and columns."""
    with np.errstate(all="ignore"):
        scaled, rows, columns = equilibrated(a[lost])
        some = tuple(np.ascontiguousarray(values[lost]) for values in factors)
        kernels.factoring(a.shape[-1], a.dtype)(np.ascontiguousarray(scaled), *some)
    status, rcond = some[2:]
    status[status == UNBOUNDED] = Status.NONFINITE
    rcond[status == Status.OK] = np.nan  # that of the scaled matrix
    for values, found in zip(factors, some, strict=True):
        values[lost] = found
    return np.stack([rows, columns], axis=-1)


@np.errstate(all="ignore")
def _keep_order(a: NDArray[Any], lost: NDArray[np.intp], factors: tuple[NDArray[Any], ...]) -> None:
    """Factors of lower triangles without exchanges, L = a D⁻¹ and U = D, where these are in range.

    They are as exact as substitution; and det D is the determinant, of which exchanges can leave
    no digit, and another sign.
    """
    lu, order, status, rcond = factors
    n = a.shape[-1]
    diagonal, places = np.arange(n), kernels.elements(n).ravel()
    wanted = (status == Status.OK) | (status == Status.SINGULAR)
    wanted[lost] = False
    size = max(1, pieces.PIECE // (n * n * a.itemsize))
    for start in range(0, len(a), size):
        some = slice(start, start + size)
        reciprocals = _reciprocals(a[some, diagonal, diagonal])
        found = _products(a[some], reciprocals[:, None, :])
        found[:, diagonal, diagonal] = reciprocals
        sound = wanted[some] & np.isfinite(found).all(axis=(-2, -1))
        which = start + np.flatnonzero(sound)
        lu.reshape(-1, n * n)[which[:, None], places] = found[sound].reshape(-1, n * n)
        rcond[which[status[which] == Status.SINGULAR]] = np.nan
        order[which], status[which] = diagonal, Status.OK


def _reciprocals(x: NDArray[Any]) -> NDArray[Any]:
    """1 / x, with the same bits on every processor, which complex division has not."""
    if x.dtype.kind != "c":
        return np.asarray(1 / x)
    power = np.frexp(np.maximum(abs(x.real), abs(x.imag)))[1]
    real, imag = np.ldexp(x.real, -power), np.ldexp(x.imag, -power)
    square = real * real + imag * imag
    found = np.empty_like(x)
    found.real, found.imag = np.ldexp(real / square, -power), np.ldexp(-imag / square, -power)
    return found


def _products(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """x y, likewise."""
    if x.dtype.kind != "c":
        return np.asarray(x * y)
    found = np.empty(np.broadcast_shapes(x.shape, y.shape), x.dtype)
    found.real = x.real * y.real - x.imag * y.imag
    found.imag = x.real * y.imag + x.imag * y.real
    return found


def solve_block(
    lu: NDArray[Any],
    order: NDArray[np.int32],
    scales: NDArray[np.int16],
    b: NDArray[Any],
    dtype: Any,
    transposed: bool,
) -> NDArray[Any]:
    """Solve for the matrices b with the factors of a block; `order` is of one column."""
    b = as_array("b", b)
    n, k, shape = lu.shape[-1], b.shape[-1], lu.shape[:-2]
    if b.shape[:-2] != shape:
        shape = np.broadcast_shapes(shape, b.shape[:-2])
    x = np.empty((*shape, n, k), dtype)
    if not x.size:
        return x
    # Of what was kept, and so is there for each system: any() takes four times as long.
    scaled = any(scales.strides) and bool(scales.min() | scales.max())
    kernel = kernels.substituting(n, k, math.prod(shape), dtype, transposed)

    def substitute(
        lu: NDArray[Any], rows: NDArray[Any], b: NDArray[Any], *others: NDArray[Any]
    ) -> None:
        *powers, x = others
        found = kernel(lu, rows, b, x)
        if found == DAMAGED or (scaled and (powers[0] == LOST).any()):
            raise ValueError(_DAMAGED)
        if found == SPOILT or scaled:
            exponents = powers[0] if scaled else np.zeros((len(lu), n, 2), np.int16)
            _solve_scaled(kernel, lu, rows, exponents[..., :: -1 if transposed else 1], b, x)

    ready = lu.dtype == b.dtype == dtype and pieces.is_plain(lu) and pieces.is_plain(b)
    piece = 16 * pieces.PIECE if ready else pieces.PIECE  # a copy shall stay in the cache
    size = max(1, piece // (n * max(n, k) * x.itemsize))
    rows = order[..., 0]
    if ready and not scaled and lu.shape[:-2] == b.shape[:-2] and x.size <= size * n * k:
        rows = pieces.plain(rows, (-1, n), order.dtype)
        substitute(lu.reshape(-1, n, n), rows, b.reshape(-1, n, k), x.reshape(-1, n, k))
        return x
    given = [pieces.Given(lu, 2, dtype), pieces.Given(rows, 1, order.dtype)]
    given.append(pieces.Given(b, 2, dtype))
    if scaled:  # else they are all 0, and one for all systems would be copied for each
        given.append(pieces.Given(scales, 2, scales.dtype))
    pieces.call(substitute, shape, size, given, [x])
    return x


def _solve_scaled(
    kernel: Any,
    lu: NDArray[Any],
    order: NDArray[np.int32],
    scales: NDArray[np.int16],
    b: NDArray[Any],
    x: NDArray[Any],
) -> None:
    """Solve again with factors of scaled matrices, and for what was out of range."""
    scaled = scales.any(axis=(-2, -1))
    x[scaled] = undefined(x.dtype)
    lost = np.flatnonzero(np.isnan(x).any(axis=(-2, -1)))
    lost = lost[np.isfinite(lu[lost]).all(axis=(-2, -1))]
    factors, rows = np.ascontiguousarray(lu[lost]), np.ascontiguousarray(order[lost])

    def solve(right: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int8]]:
        y = np.empty(right.shape, right.dtype)
        kernel(factors, rows, np.ascontiguousarray(right), y)
        return y, np.zeros(len(y), np.int8)

    if lost.size:
        found, powers = x[lost], scales[lost].astype(np.int32)
        solve_again([Attempt(solve, powers[..., 0], powers[..., 1])], b[lost], found)
        x[lost] = found


def slogdet_block(
    lu: NDArray[Any],
    order: NDArray[np.int32],
    status: NDArray[np.int8],
    scales: NDArray[np.int16],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sign and logarithm of the absolute value of the determinants of a block."""
    scaled = any(scales.strides) and scales.size
    status, n = status[..., 0, 0], lu.shape[-1]
    sign, logabsdet = np.ones(status.shape, lu.dtype), np.zeros(status.shape)
    if lu.size:
        flat = lu.reshape(-1, 1, n * n), order.reshape(-1, n)
        given = map(np.ascontiguousarray, flat)
        determine, room = kernels.determining(lu.dtype), np.full(n, -1, np.int64)
        if not determine(*given, kernels.pivots(n), room, sign.reshape(-1), logabsdet.reshape(-1)):
            raise ValueError(_DAMAGED)
    if scaled and scales.min() == LOST:
        raise ValueError(_DAMAGED)
    if scaled:
        logabsdet -= math.log(2) * scales.sum(axis=(-2, -1))
    singular = status == Status.SINGULAR
    sign[singular], logabsdet[singular] = 0, -np.inf
    return sign, logabsdet.astype(lu.real.dtype)
