"""Larger systems of any order, one at a time, several right-hand sides in the lanes of a vector."""

from typing import Any, NamedTuple

from dasksolve.kernels.compiling.jit import named, part
from dasksolve.kernels.diagnostics.norms import doubt, measure, workspace
from dasksolve.kernels.diagnostics.verdicts import OK, UNBOUNDED
from dasksolve.kernels.language.blocks import block_lanes
from dasksolve.kernels.language.lanes import any_lane, lane, magnitude, splat


@part
def as_it_was(a, m, held, flaw):
    """The `factor` of a method that reads a matrix only when it substitutes."""
    return flaw


class Method(NamedTuple):
    """How systems of a structure are solved; its functions are parts."""

    name: str
    """Unique."""
    hold: Any
    """(b, n) to a tuple of what is held for all systems: first a tile. All others are given it."""
    substitute: Any
    """(a, b, x, m, j, held, flaw, check) to flaw and check: find column j of x[m], and as many
    after it as a vector has lanes more. A flaw is the same in all lanes."""
    reject: Any
    """(a, b, x, status) for a batch in which anything failed: see `verdicts.rejecting`."""
    factor: Any = as_it_was
    """(a, m, held, flaw) to the flaw of a[m]: read and factor it."""
    inverse_norm: Any = None
    """(n, held) to ‖A⁻¹‖₁, where diagnostics may be asked for."""


def driver(method):
    """What solves a batch by a method, to be compiled: as a kernel, or as a part of one."""
    _, hold, substitute, reject, factor, inverse_norm = method

    def solve(a, b, x, status, rcond=None, backward_error=None):
        systems, n, columns = b.shape
        held, failed = hold(b, n), False
        if rcond is not None:
            vectors, sums = workspace(a)
        sound = magnitude(splat(0, held[0]))
        for m in range(systems):
            check = sound
            flaw = factor(a, m, held, sound)
            for j in range(0, columns, block_lanes(b)):
                if lane(flaw, 0) == OK:
                    flaw, check = substitute(a, b, x, m, j, held, flaw, check)
            status[m] = int(lane(flaw, 0))
            if status[m] == OK and any_lane(check != sound):
                status[m] = UNBOUNDED
            if status[m] != OK:
                failed = True
            elif rcond is not None:
                rcond[m] = inverse_norm(n, held)
                measure(a, b, x, m, m + 1, rcond, backward_error, vectors, sums)
        if failed:
            reject(a, b, x, status)
        if rcond is not None:
            doubt(b, status, rcond, backward_error)

    return solve


def kernel(method):
    """The kernel of a method, for systems of any order."""
    return named(driver(method), method.name)
