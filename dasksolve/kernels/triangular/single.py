"""Substitution in triangular systems as `interleaved` has it, one at a time: a lane is a column."""

from dasksolve.kernels.compiling.jit import holder, part
from dasksolve.kernels.diagnostics.verdicts import rejecting_triangle, weigh
from dasksolve.kernels.language.blocks import block_tile, load_first, store_first
from dasksolve.kernels.language.lanes import unsigned_zero
from dasksolve.kernels.regimes import single
from dasksolve.kernels.triangular.interleaved import backward_rows, forward_rows


@holder
def hold(b, n):
    return (block_tile(1, n, b.dtype, b),)


def substituting(lower):
    """The part that substitutes."""
    solve_rows, rows = (forward_rows, 8) if lower else (backward_rows, -8)

    @part
    def substitute(a, b, x, m, j, held, flaw, check):
        (t,), (_, n, columns) = held, b.shape
        at, left = m * n * columns + j, columns - j
        for i in range(n):
            t[0, i] = load_first(b, at + i * columns, left, t)
        flaw = solve_rows(a, n, m, None, t, flaw, 1, rows * n)
        for i in range(n):
            check = weigh(check, t[0, i])
            store_first(x, at + i * columns, left, unsigned_zero(t[0, i]))
        return flaw, check

    return substitute


def kernel(_, lower):
    """The kernel for lower or upper triangles of any order from 8 on."""
    name, reject = f"triangular.{lower}", rejecting_triangle(lower)
    return single.kernel(single.Method(name, hold, substituting(lower), reject))
