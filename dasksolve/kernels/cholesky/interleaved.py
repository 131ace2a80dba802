"""Cholesky of middling systems, one system a lane.

The tile holds Uᵀ, so that row i of it is column i of U, and below it the columns of b as rows:
they become those of y = U⁻ᴴ b just as further columns of A become those of U, and then of x.
"""

from dasksolve.kernels.cholesky.fixed import factor_triangle
from dasksolve.kernels.compiling.jit import holder, part
from dasksolve.kernels.diagnostics.verdicts import rejecting_triangle
from dasksolve.kernels.language.control import Variable, loop, never_inline
from dasksolve.kernels.language.lanes import conjugate, nothing, operation, scaled
from dasksolve.kernels.language.tiles import systems_of_lanes, tile
from dasksolve.kernels.language.transposition import deal
from dasksolve.kernels.regimes import interleaved
from dasksolve.kernels.regimes.columns import read
from dasksolve.kernels.triangular.triangles import backward, forward, minus


@operation(nothing)
def read_conjugate(array, offset, stride, first, last, t, i, j):
    """t[i, j] … t[i, j + 7] from the conjugates of array.flat[system * stride + offset] …"""
    starts = [s * stride + offset for s in systems_of_lanes(array, first, last)]
    for e, x in enumerate(deal(array, starts, 8)):
        t[i, j + e] = conjugate(x)


def narrow(t, j, size):
    """Columns j … j + size - 1 a few at a time, so that sums for four rows stay in registers."""
    wide = t.columns_of_four
    return [(j + c, min(wide, size - c)) for c in range(0, size, wide)]


def rectangle(t, i, j, rows, size):
    """Variables that hold the elements of some rows and columns."""
    return {(r, c): Variable(t[i + r, j + c]) for r in range(rows) for c in range(size)}


def triangle(t, j, size):
    """The diagonal block at j."""
    return {(r, c): t[j + r, j + c] for r in range(size) for c in range(r + 1)}


def reduce(t, i, j, sums):
    """Take the products with the pivots before j from the elements at (i, j) + place."""
    with loop(t.builder, 0, j) as k:
        left = {r: t[i + r, k] for r, _ in sums}
        right = {c: t[j + c, k] for _, c in sums}
        for (r, c), total in sums.items():
            total.set(minus(total.get(), left[r], right[c]))


def finish(t, i, j, rows, size):
    """Columns j … j + size - 1 of U, or of y, from those of A or b."""
    for c, wide in narrow(t, j, size):
        sums, pivots = rectangle(t, i, c, rows, wide), triangle(t, c, wide)
        reduce(t, i, c, sums)
        for r in range(rows):
            row = {q: sums[r, q].get() for q in range(wide)}
            forward(row, pivots, wide, scaled)
            for q, x in row.items():
                t[i + r, c + q] = x


@operation(lambda t, j, size, flaw: flaw)
def eliminate(t, j, size, flaw):
    """Factor the diagonal block at j; the flaw of each lane."""
    never_inline(t.builder)
    columns = narrow(t, j, size)
    for c, wide in columns:
        block = {place: Variable(x) for place, x in triangle(t, c, wide).items()}
        reduce(t, c, c, block)
        pivots = {place: x.get() for place, x in block.items()}
        flaw = factor_triangle(pivots, wide, flaw)
        for (r, q), x in pivots.items():
            t[c + r, c + q] = x
        size -= wide
        if size:
            finish(t, c + wide, c, size, wide)
    return flaw


@operation(nothing)
def follow(t, i, j, rows, size):
    """`finish` as a function of its own."""
    never_inline(t.builder)
    finish(t, i, j, rows, size)


@operation(nothing)
def retreat(t, i, j, n, rows, size):
    """Solve for the unknowns j … j + size - 1 in rows i … i + rows - 1."""
    never_inline(t.builder)
    for c, wide in reversed(narrow(t, j, size)):
        sums, pivots = rectangle(t, i, c, rows, wide), triangle(t, c, wide)
        with loop(t.builder, 0, n + (c + wide) * -1) as done:
            k = n + (done + 1) * -1
            left = [t[i + r, k] for r in range(rows)]
            right = [conjugate(t[k, c + q]) for q in range(wide)]
            for (r, q), total in sums.items():
                total.set(minus(total.get(), left[r], right[q]))
        for r in range(rows):
            row = {q: sums[r, q].get() for q in range(wide)}
            backward(row, pivots, wide, scaled)
            for q, x in row.items():
                t[i + r, c + q] = x


@part
def forward_rows(t, top, bottom, n):
    """U⁻ᴴ of the rows from n on."""
    for j in range(0, n - 3, 4):
        for i in range(top, bottom - 3, 4):
            follow(t, i, j, 4, 4)
        for i in range(bottom - (bottom - top) % 4, bottom):
            follow(t, i, j, 1, 4)
    for j in range(n - n % 4, n):
        for i in range(top, bottom):
            follow(t, i, j, 1, 1)


@part
def factor_tile(t, n, flaw):
    for j in range(0, n - 3, 4):
        flaw = eliminate(t, j, 4, flaw)
        for i in range(j + 4, n - 3, 4):
            follow(t, i, j, 4, 4)
        for i in range(n - n % 4, n):
            follow(t, i, j, 1, 4)
    for j in range(n - n % 4, n):
        flaw = eliminate(t, j, 1, flaw)
        for i in range(j + 1, n):
            follow(t, i, j, 1, 1)
    return flaw


@part
def backward_rows(t, top, bottom, n):
    for j in range(n - 1, n - n % 4 - 1, -1):
        for i in range(top, bottom):
            retreat(t, i, j, n, 1, 1)
    for j in range(n - n % 4 - 4, -1, -4):
        for i in range(top, bottom - 3, 4):
            retreat(t, i, j, n, 4, 4)
        for i in range(bottom - (bottom - top) % 4, bottom):
            retreat(t, i, j, n, 1, 4)


@part
def read_upper(a, n, first, last, t):
    """Read the upper triangle, transposed, a row at a time."""
    for i in range(n):
        for j in range(i // 8 * 8, n, 8):
            e = min(j, n - 8)
            read(a, i * n + e, n * n, first, last, t, e, i, 8, True)


@part
def read_lower(a, n, first, last, t):
    """Read the lower triangle, conjugated, a row at a time."""
    for i in range(n):
        for j in range(0, i + 1, 8):
            e = min(j, n - 8)
            read_conjugate(a, i * n + e, n * n, first, last, t, i, e)


@holder
def hold(b, n, wide):
    # An odd number of vectors in a row spreads a column over all sets of the cache.
    return tile(n + wide, n | 1, b.dtype, b), n


def factoring(lower):
    """The part that reads and factors the systems of a tile."""
    read_triangle = read_lower if lower else read_upper

    @part
    def factor(a, first, last, held, flaw):
        t, n = held
        read_triangle(a, n, first, last, t)
        return factor_tile(t, n, flaw)

    return factor


@part
def substitute(a, first, last, held, wide, flaw, check):
    t, n = held
    forward_rows(t, n, n + wide, n)
    backward_rows(t, n, n + wide, n)
    return flaw, check


def kernel(_, lower):
    """The kernel for systems of any order from 8 on."""
    name, reject = f"cholesky.{lower}", rejecting_triangle(lower, True)
    return interleaved.kernel(interleaved.Method(name, hold, substitute, reject, factoring(lower)))
