"""Calls of the kernel that solves systems, and once more for those that it lost."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch.options import Options
from dasksolve.batch.problem import Problem
from dasksolve.batch.structure import meant
from dasksolve.kernels.scaling import solve_lost


def kernel_for(problem: Problem, options: Options, diagnostics: bool = False) -> kernels.Kernel:
    """The kernel that solves a problem."""
    n, k, systems, dtype = problem.n, problem.k, problem.together, problem.dtype
    return kernels.pick(options.assume_a, n, k, systems, dtype, diagnostics, options.lower)


def run(kernel: kernels.Kernel, problem: Problem, options: Options, *arrays: NDArray[Any]) -> bool:
    """Call the kernel, and once more for what was out of range, which it does not diagnose.

    Each matrix may be that of several systems in sequence, if the kernel is one for shared ones.
    Returns whether any status is not OK.
    """
    kernel(*arrays)
    if not np.count_nonzero(arrays[3]):
        return False
    _solve_lost(kernel, problem, options, *arrays)
    return True


def _solve_lost(
    kernel: kernels.Kernel,
    problem: Problem,
    options: Options,
    a: NDArray[Any],
    b: NDArray[Any],
    x: NDArray[Any],
    status: NDArray[np.int8],
    *diagnostics: NDArray[np.float64],
) -> None:
    n, k, systems, dtype = problem.n, problem.k, problem.together, problem.dtype
    each = len(status) // len(a)

    def again(*arrays: NDArray[Any]) -> None:
        solve = kernel
        if each > 1 or options.assume_a in ("sym", "her"):  # scaled, they are so no more
            solve = kernels.pick("gen", n, k, systems, dtype)
        solve(*arrays, *np.empty((len(diagnostics), len(arrays[-1]))))

    definite = options.assume_a == "pos"
    solve_lost(again, lambda lost: [meant(a[lost // each], options)], b, x, status, definite)
