"""The backward errors of any answers, computed in float64."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch.pieces import PIECE, Given, call


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


def _scaled_errors(
    kernel: kernels.Kernel, a: NDArray[Any], b: NDArray[Any], x: NDArray[Any]
) -> NDArray[np.float64]:
    """The same of what has norms out of range: scaled by powers of two, which rounds nothing."""
    errors = np.empty(len(a))
    of_a = _exponent(a, (-2, -1)) + (2 * a.shape[-1]).bit_length()  # ‖A‖∞ < 1 then
    of_x = np.maximum(_exponent(x, -2), _exponent(b, -2) - of_a)
    with np.errstate(all="ignore"):
        scaled = _times_two_to(a, -of_a), _times_two_to(b, -of_a - of_x), _times_two_to(x, -of_x)
    kernel(*scaled, errors)
    zero = ~a.any(axis=(-2, -1)) & ~np.isnan(x).any(axis=(-2, -1))
    errors[zero] = np.sign(_largest(b[zero], (-2, -1))).reshape(-1)
    return errors


def _largest(values: NDArray[Any], axes: Any) -> NDArray[np.float64]:
    """The largest |re| and |im|: the modulus is not rounded the same on every machine."""
    sizes = np.maximum(np.abs(values.real), np.abs(values.imag))
    largest: NDArray[np.float64] = sizes.max(axis=axes, keepdims=True)
    return largest


def _exponent(values: NDArray[Any], axes: Any) -> NDArray[np.intc]:
    return np.frexp(_largest(values, axes))[1]


def _times_two_to(values: NDArray[Any], exponent: NDArray[np.intc]) -> NDArray[Any]:
    scaled = np.empty_like(values)
    scaled.real = np.ldexp(values.real, exponent)
    if values.dtype.kind == "c":
        scaled.imag = np.ldexp(values.imag, exponent)
    return scaled
