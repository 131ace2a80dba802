"""Middling systems of any order, one a lane: a tile after the other, whatever the method."""

from typing import Any, NamedTuple

from dasksolve.kernels.compiling.jit import named, part
from dasksolve.kernels.diagnostics.norms import doubt, measure, workspace
from dasksolve.kernels.diagnostics.verdicts import record
from dasksolve.kernels.language.lanes import magnitude, splat
from dasksolve.kernels.language.tiles import lane_count, put_numbers
from dasksolve.kernels.regimes.columns import AS_ROWS


@part
def as_it_was(a, first, last, held, flaw):
    """The `factor` of a method that reads a matrix only when it substitutes."""
    return flaw


class Method(NamedTuple):
    """How systems of a structure are solved; its functions are parts."""

    name: str
    """Unique."""
    hold: Any
    """(b, n, wide) to a tuple of what is held for all tiles: first a tile, then where in it
    right-hand sides begin, for `wide` of which there must be room. All others are given it."""
    substitute: Any
    """(a, first, last, held, wide, flaw, check) to flaw and check of each lane: overwrite `wide`
    right-hand sides of the systems first …; the last one of all is `last`."""
    reject: Any
    """(a, b, x, status) for a batch in which anything failed: see `verdicts.rejecting`."""
    factor: Any = as_it_was
    """(a, first, last, held, flaw) to the flaw of each lane: read and factor matrices."""
    columns: Any = AS_ROWS
    """How right-hand sides stand in the tile: see `columns`."""
    trials: int = 0
    """Right-hand sides more, which diagnostics ask for."""
    ask: Any = None
    """(held, wide): put them after `wide` others."""
    inverse_norm: Any = None
    """(held, wide) to ‖A⁻¹‖₁ of each lane, from what `substitute` made of them."""
    most: int = 16
    """Right-hand sides solved at a time, which bounds the tile."""


def driver(method):
    """What solves a batch by a method, to be compiled: as a kernel, or as a part of one."""
    _, hold, substitute, reject, factor, (read, write), trials, ask, inverse_norm, most = method

    def solve(a, b, x, status, rcond=None, backward_error=None):
        systems, n, columns = b.shape
        lanes, last = lane_count(b), systems - 1
        chunk = min(columns, most)
        more = 0 if rcond is None else trials
        held = hold(b, n, chunk + more)
        t, at = held[0], held[1]
        failed = False
        if rcond is not None:
            vectors, sums = workspace(a)
        for first in range(0, systems, lanes):
            check = magnitude(splat(0, t))
            flaw = factor(a, first, last, held, check)
            for left in range(0, columns, chunk):
                wide = min(chunk, columns - left)
                read(b, first, last, t, at, left, wide)
                if rcond is not None:
                    ask(held, wide)
                flaw, check = substitute(a, first, last, held, wide + more, flaw, check)
                check = write(x, first, last, t, at, left, wide, check)
            if record(status, first, last, flaw, check):
                failed = True
            if rcond is not None:
                put_numbers(rcond, first, last, inverse_norm(held, wide))
                stop = min(first + lanes, systems)
                measure(a, b, x, first, stop, rcond, backward_error, vectors, sums)
        if failed:
            reject(a, b, x, status)
        if rcond is not None:
            doubt(b, status, rcond, backward_error)

    return solve


def kernel(method):
    """The kernel of a method, for systems of any order."""
    return named(driver(method), method.name)
