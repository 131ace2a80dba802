"""The backward errors of any answers, as `norms` has them."""

import numpy as np

from dasksolve.kernels.compiling.jit import jit
from dasksolve.kernels.diagnostics.norms import gather, measurable, norms, workspace, worst_error


def errors(a, b, x, backward_error):
    """Fill in the backward error of every x[m], of all of its columns the largest."""
    vectors, sums = workspace(a)
    low, high = measurable(a)
    for m in range(len(a)):
        gather(x, m, 0, vectors, 0)
        _, infinity = norms(a, m, vectors, sums)
        worst = worst_error(a, b, x, m, infinity, vectors)
        backward_error[m] = worst if low <= infinity <= high else np.nan


def kernel(_):
    """The kernel ``errors(a, b, x, backward_error)``, for systems of any order."""
    return jit(errors)
