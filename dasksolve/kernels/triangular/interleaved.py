"""Substitution in triangular systems; a row of a is read when it is due.

Only the unknowns stand in a tile: t[c, i] is unknown i of column c, one system a lane. Or one
system is solved at a time, where `last` is None: then a lane is a column, and t[0, i] unknown i.
"""

from contextlib import contextmanager

from dasksolve.kernels.compiling.jit import holder, part
from dasksolve.kernels.diagnostics.verdicts import judge, rejecting_triangle
from dasksolve.kernels.language.control import loop
from dasksolve.kernels.language.lanes import fnma, magnitude, nothing, operation, reciprocal
from dasksolve.kernels.language.prefetching import ask
from dasksolve.kernels.language.tiles import lane_count, load, systems_of_lanes, tile
from dasksolve.kernels.language.transposition import deal
from dasksolve.kernels.regimes import interleaved

# Bytes of a tile's matrices up to which those of the next are asked for; beyond, the next rows.
EARLY = 256 << 10


def row(a, n, first, last, t, i, j, length, ahead=None):
    """Elements j … j + length - 1 of row i; those `ahead` of them are asked for."""
    at, alone = i * n + j, last is None
    systems = [first] if alone else systems_of_lanes(a, first, last)
    starts = [m * (n * n) + at for m in systems]
    if ahead is not None:
        for start in starts:
            ask(a, start + ahead, length)
    if alone:
        return [t.fill(load(a, starts[0] + e, 1).lane(0)) for e in range(length)]
    return deal(a, starts, length)


@contextmanager
def each(t, last, wide):
    """Emit a loop over the columns; where they share a vector, what runs once."""
    if last is None:
        yield 0
    else:
        with loop(t.builder, 0, wide) as c:
            yield c


@operation(nothing)
def reduce(a, n, first, last, t, i, rows, blocks, wide, ahead, lower):
    """Take the products with so many blocks of 8 unknowns from `rows` rows from i on."""
    count = rows if last is None else min(rows, 2)
    with loop(a.builder, 0, rows // count) as group, loop(a.builder, 0, blocks) as block:
        j = block * 8 if lower else n - 8 - block * 8
        top = i + group * count
        elements = [row(a, n, first, last, t, top + r, j, 8, ahead) for r in range(count)]
        with each(t, last, wide) as c:
            sums = [t[c, top + r] for r in range(count)]
            for e in range(8) if lower else reversed(range(8)):
                known = t[c, j + e]
                sums = [fnma(known, x[e], z) for x, z in zip(elements, sums, strict=True)]
            for r, total in enumerate(sums):
                t[c, top + r] = total


@operation(lambda a, n, first, last, t, i, flaw, wide, ahead, lower: flaw)
def solve_block(a, n, first, last, t, i, flaw, wide, ahead, lower):
    """Solve for the unknowns i … i + 7, from which all others have been taken."""
    for r in range(8) if lower else reversed(range(8)):
        x = row(a, n, first, last, t, i + r, i, 8, ahead)
        flaw = judge(flaw, magnitude(x[r]))
        inverse = reciprocal(x[r])
        with each(t, last, wide) as c:
            z = t[c, i + r]
            for e in range(r) if lower else reversed(range(r + 1, 8)):
                z = fnma(t[c, i + e], x[e], z)
            t[c, i + r] = z * inverse
    return flaw


@operation(lambda a, n, first, last, t, i, start, stop, flaw, wide, lower: flaw)
def solve_row(a, n, first, last, t, i, start, stop, flaw, wide, lower):
    """Solve for unknown i, from which those but start … stop - 1 have been taken."""
    with loop(a.builder, start, stop) as step:
        k = step if lower else start + stop + (step + 1) * -1
        (x,) = row(a, n, first, last, t, i, k, 1)
        with each(t, last, wide) as c:
            t[c, i] = fnma(t[c, k], x, t[c, i])
    (pivot,) = row(a, n, first, last, t, i, i, 1)
    inverse = reciprocal(pivot)
    with each(t, last, wide) as c:
        t[c, i] = t[c, i] * inverse
    return judge(flaw, magnitude(pivot))


@part
def forward_rows(a, n, first, last, t, flaw, wide, ahead):
    """Solve with the lower triangle, eight rows at a time and then the few that are left."""
    left = n - n % 8
    for i in range(0, left, 8):
        reduce(a, n, first, last, t, i, 8, i // 8, wide, ahead, True)
        flaw = solve_block(a, n, first, last, t, i, flaw, wide, ahead, True)
    for i in range(left, n):
        reduce(a, n, first, last, t, i, 1, left // 8, wide, ahead, True)
        flaw = solve_row(a, n, first, last, t, i, left, i, flaw, wide, True)
    return flaw


@part
def backward_rows(a, n, first, last, t, flaw, wide, ahead):
    """Solve with the upper triangle, eight rows at a time and then the few that are left."""
    left = n % 8
    for i in range(n - 8, left - 1, -8):
        reduce(a, n, first, last, t, i, 8, (n - i) // 8 - 1, wide, ahead, False)
        flaw = solve_block(a, n, first, last, t, i, flaw, wide, ahead, False)
    for i in range(left - 1, -1, -1):
        reduce(a, n, first, last, t, i, 1, n // 8, wide, ahead, False)
        flaw = solve_row(a, n, first, last, t, i, i + 1, left, flaw, wide, False)
    return flaw


@holder
def hold(b, n, wide):
    return tile(wide, n, b.dtype, b), 0


def substituting(lower):
    """The part that substitutes, and how far ahead it may ask for the rows that come next."""
    solve_rows, rows = (forward_rows, 8) if lower else (backward_rows, -8)

    @part
    def substitute(a, first, last, held, wide, flaw, check):
        n, (t, _) = a.shape[1], held
        size = lane_count(a) * n * n
        ahead = size if size * a.itemsize <= EARLY else rows * n
        return solve_rows(a, n, first, last, t, flaw, wide, ahead), check

    return substitute


def kernel(_, lower):
    """The kernel for lower or upper triangles of any order from 8 on."""
    name, reject = f"triangular.{lower}", rejecting_triangle(lower)
    return interleaved.kernel(interleaved.Method(name, hold, substituting(lower), reject))
