"""Division by the diagonal of matrices, one system a lane."""

from dasksolve.kernels.compiling.jit import part
from dasksolve.kernels.diagnostics.verdicts import judge, rejecting
from dasksolve.kernels.language.control import loop
from dasksolve.kernels.language.lanes import magnitude, operation, reciprocal
from dasksolve.kernels.language.tiles import systems_of_lanes
from dasksolve.kernels.language.transposition import deal
from dasksolve.kernels.regimes import interleaved
from dasksolve.kernels.triangular.interleaved import hold


@operation(lambda a, n, first, last, t, i, flaw, wide: flaw)
def divide(a, n, first, last, t, i, flaw, wide):
    """Divide unknown i of `wide` right-hand sides; the flaw of each lane."""
    at = i * n + i
    (pivot,) = deal(a, [s * (n * n) + at for s in systems_of_lanes(a, first, last)], 1)
    inverse = reciprocal(pivot)
    with loop(a.builder, 0, wide) as c:
        t[c, i] = t[c, i] * inverse
    return judge(flaw, magnitude(pivot))


@part
def substitute(a, first, last, held, wide, flaw, check):
    n, (t, _) = a.shape[1], held
    for i in range(n):
        flaw = divide(a, n, first, last, t, i, flaw, wide)
    return flaw, check


METHOD = interleaved.Method("diagonal", hold, substitute, rejecting(0, 0))


def kernel(_):
    """The kernel for systems of any order."""
    return interleaved.kernel(METHOD)
