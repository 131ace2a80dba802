"""Right-hand sides and unknowns, which stand in a tile as rows: t[i, …] is one column of b or x."""

from dasksolve.kernels.compiling.jit import part
from dasksolve.kernels.diagnostics.verdicts import weigh
from dasksolve.kernels.language.lanes import nothing, operation
from dasksolve.kernels.language.tiles import collect, deal, systems_of_lanes

# Right-hand sides solved at a time, which bounds the tile.
CHUNK = 16


@operation(nothing)
def read(array, offset, stride, first, last, t, i, j, length, down):
    """t[i, j] … from array.flat[system * stride + offset] …, along a row or down a column."""
    starts = [s * stride + offset for s in systems_of_lanes(array, first, last)]
    for e, x in enumerate(deal(array, starts, length)):
        t[(i + e, j) if down else (i, j + e)] = x


@operation(nothing)
def write(array, offset, stride, first, last, t, i, j, length, down):
    """array.flat[system * stride + offset] … from t[i, j] …: `read` undone."""
    starts = [s * stride + offset for s in systems_of_lanes(array, first, last)]
    collect([t[(i + e, j) if down else (i, j + e)] for e in range(length)], array, starts)


@part
def read_columns(b, first, last, t, i, left, wide):
    """Put the columns left … left + wide - 1 of b in the rows of t from i on."""
    _, n, columns = b.shape
    if columns == 1 and n >= 8:
        for k in range(0, n, 8):
            e = min(k, n - 8)
            read(b, e, n, first, last, t, i, e, 8, False)
        return
    for k in range(n):
        for j in range(wide):
            read(b, k * columns + left + j, n * columns, first, last, t, i + j, k, 1, False)


@part
def write_columns(x, first, last, t, i, left, wide, check):
    """Write what `read_columns` reads; return `check`, which stays 0 if all of it is finite."""
    _, n, columns = x.shape
    for j in range(i, i + wide):
        for k in range(n):
            check = weigh(check, t[j, k])
    if columns == 1 and n >= 8:
        for k in range(0, n, 8):
            e = min(k, n - 8)
            write(x, e, n, first, last, t, i, e, 8, False)
        return check
    for k in range(n):
        for j in range(wide):
            write(x, k * columns + left + j, n * columns, first, last, t, i + j, k, 1, False)
    return check
