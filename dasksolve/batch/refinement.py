"""Iterative refinement of answers that are less exact than their dtype allows.

To factor in float32 and refine to float64 was measured and left out: with the three or four steps
that random matrices need it takes longer than `solve`, even at N = 512 (1.2 times as long;
tests/benchmarks/diagnostics.py).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels

ENOUGH = 4
"""Backward errors up to so many eps are left as they are: hardly a rounding more can be saved."""


def refined(a: NDArray[Any], b: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """Return x after one step: a (M, N, N), b and x (M, N, K), all of one dtype.

    The residual is computed in twice the precision (Higham, *Accuracy and Stability of Numerical
    Algorithms*, section 12.1).
    """
    a, b, x = (np.ascontiguousarray(values) for values in (a, b, x))
    lu, order = np.empty_like(a), np.empty(a.shape[:2], np.int32)
    status, rcond = np.empty(len(a), np.int8), np.empty(len(a))
    kernels.factoring(a.shape[-1], a.dtype)(a, lu, order, status, rcond)
    rest, step = np.empty_like(x), np.empty_like(x)
    kernels.residuals(a.dtype)(a, b, x, rest)
    systems, n, k = x.shape
    kernels.substituting(n, k, systems, a.dtype, False)(lu, order, rest, step)
    return x + step
