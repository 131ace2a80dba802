"""The backward errors of any answers, computed in float64."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch.options import Options
from dasksolve.batch.pieces import PIECE, Given, call, piece_size
from dasksolve.batch.structure import meant
from dasksolve.kernels.scaling import exponents, largest, shifted

_SMALLEST, _LARGEST = 1e-280, 1e300
"""Bounds of ‖A‖‖x‖ + ‖b‖: beyond them, a part of it may have been lost."""


def backward_errors(a: NDArray[Any], b: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float64]:
    """‖Ax-b‖∞ / (‖A‖∞‖x‖∞ + ‖b‖∞) of every system, the largest over the columns of b and x."""
    *batch_shape, n, k = x.shape
    errors = np.zeros(batch_shape)
    if x.size == 0:
        return errors
    wide = np.result_type(x, np.float64)
    kernel = kernels.backward_errors(wide)

    def measure(*arrays: NDArray[Any]) -> None:
        kernel(*arrays)
        *system, found = arrays
        unknown = np.isnan(found)
        if unknown.any():
            found[unknown] = _scaled_errors(kernel, *(values[unknown] for values in system))

    given = [Given(values, 2, wide) for values in (a, b, x)]
    call(measure, errors.shape, max(1, PIECE // (16 * n * max(n, k))), given, [errors])
    return errors


def errors_to_rounding(
    a: NDArray[Any], b: NDArray[Any], x: NDArray[Any], options: Options
) -> NDArray[np.float64]:
    """`backward_errors` of the matrices that are meant, with other last bits: quick."""
    if options.assume_a == "gen":
        return backward_errors(a, b, x)
    *batch_shape, n, k = x.shape
    errors = np.zeros(batch_shape)
    if x.size == 0:
        return errors
    wide = np.result_type(x, np.float64)
    mirrored = options.assume_a in ("pos", "sym", "her")
    hermitian = mirrored and options.assume_a != "sym" and wide.kind == "c"
    kernel = kernels.structured_errors(wide, mirrored, hermitian)
    below, above = _diagonals(options, n)

    def measure(a: NDArray[Any], b: NDArray[Any], x: NDArray[Any], found: NDArray[Any]) -> None:
        kernel(a, b, x, below, above, found)
        unknown = np.isnan(found)
        if unknown.any():  # or a NaN that is one
            found[unknown] = backward_errors(meant(a[unknown], options), b[unknown], x[unknown])

    given = [Given(values, 2, wide) for values in (a, b, x)]
    call(measure, errors.shape, piece_size(n, k, 16), given, [errors])
    return errors


def errors_of_one_matrix(
    a: NDArray[Any], b: NDArray[Any], x: NDArray[Any], options: Options
) -> NDArray[np.float64]:
    """`errors_to_rounding` of one matrix (1, N, N) and many b and x of one column, by a product."""
    full = meant(a[0], options).astype(np.result_type(x, np.float64))
    errors, step = np.empty(len(x)), max(1, PIECE // full[0].nbytes)
    with np.errstate(all="ignore"):
        of_a = abs(full).sum(axis=1).max(initial=0)
        for start in range(0, len(x), step):
            piece = slice(start, start + step)
            given, found = b[piece, :, 0].T, x[piece, :, 0].T
            of_r, of_b, of_x = (
                abs(v).max(axis=0, initial=0) for v in (given - full @ found, given, found)
            )
            whole = of_a * of_x.astype(float) + of_b
            sound = (whole > _SMALLEST) & (whole < _LARGEST)
            errors[piece] = np.where(sound, of_r / whole, np.nan)
    unknown = np.isnan(errors) & np.isfinite(x).all(axis=(1, 2))
    if unknown.any():
        errors[unknown] = errors_to_rounding(a, b[unknown], x[unknown], options)
    return errors


def _diagonals(options: Options, n: int) -> tuple[int, int]:
    """How many diagonals are read below and above."""
    lower, upper, diagonal, three = (n, 0), (0, n), (0, 0), (1, 1)
    triangle = lower if options.lower else upper
    return {
        "upper triangular": upper,
        "lower triangular": lower,
        "diagonal": diagonal,
        "tridiagonal": three,
    }.get(options.assume_a, triangle)


def _scaled_errors(
    kernel: kernels.Kernel, a: NDArray[Any], b: NDArray[Any], x: NDArray[Any]
) -> NDArray[np.float64]:
    """`backward_errors` where norms are out of range: scaled by powers of two, rounding nothing."""
    errors = np.empty(len(a))
    with np.errstate(all="ignore"):
        of_a = largest(exponents(a), (-2, -1)) + (2 * a.shape[-1]).bit_length()  # ‖A‖∞ < 1
        of_x = largest(np.concatenate([exponents(x), exponents(b) - of_a], axis=-2), -2)
        scaled = shifted(a, -of_a), shifted(b, -of_a - of_x), shifted(x, -of_x)
    kernel(*map(np.ascontiguousarray, scaled), errors)
    zero = ~a.any(axis=(-2, -1)) & ~np.isnan(x).any(axis=(-2, -1))
    errors[zero] = b[zero].any(axis=(-2, -1))
    return errors


def of_solved_columns(a: NDArray[Any], b: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float64]:
    """`backward_errors` over the columns of x that are finite; NaN where there are none."""
    solved = np.isfinite(x).all(axis=-2)
    if solved.all():
        return backward_errors(a, b, x)
    b, x = (np.where(solved[..., None, :], values, values.dtype.type(0)) for values in (b, x))
    return np.where(solved.any(axis=-1), backward_errors(a, b, x), np.nan)
