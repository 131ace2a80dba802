"""How systems meet the vectors of the processor: a driver each, whatever the method."""

from dasksolve.kernels.compiling.jit import holder


def alone(solve):
    """What a driver makes, without diagnostics: numba takes 0.1 µs for an argument left away."""
    whole = holder(solve)

    def solve_alone(a, b, x, status):
        whole(a, b, x, status, None, None)

    return solve_alone
