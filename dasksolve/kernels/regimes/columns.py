"""Right-hand sides and unknowns, which stand in a tile as rows or as columns."""

from dasksolve.kernels.compiling.jit import part
from dasksolve.kernels.diagnostics.verdicts import weigh
from dasksolve.kernels.language.lanes import nothing, operation
from dasksolve.kernels.language.tiles import systems_of_lanes
from dasksolve.kernels.language.transposition import collect, deal


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


def columns(down):
    """Parts that bring right-hand sides to the rows `at` … of a tile, and unknowns from there.

    They are `wide` columns of b or x, from `left` on; if `down`, they go to columns of the tile.
    What is written adds to `check`, which stays 0 if all of it is finite.
    """

    @part
    def read_columns(b, first, last, t, at, left, wide):
        _, n, columns = b.shape
        if columns == 1 and n >= 8:
            for k in range(0, n, 8):
                e = min(k, n - 8)
                i, j = (e, at) if down else (at, e)
                read(b, e, n, first, last, t, i, j, 8, down)
            return
        for k in range(n):
            for c in range(wide):
                i, j = (k, at + c) if down else (at + c, k)
                read(b, k * columns + left + c, n * columns, first, last, t, i, j, 1, down)

    @part
    def write_columns(x, first, last, t, at, left, wide, check):
        _, n, columns = x.shape
        for c in range(at, at + wide):
            for k in range(n):
                check = weigh(check, t[k, c] if down else t[c, k])
        if columns == 1 and n >= 8:
            for k in range(0, n, 8):
                e = min(k, n - 8)
                i, j = (e, at) if down else (at, e)
                write(x, e, n, first, last, t, i, j, 8, down)
            return check
        for k in range(n):
            for c in range(wide):
                i, j = (k, at + c) if down else (at + c, k)
                write(x, k * columns + left + c, n * columns, first, last, t, i, j, 1, down)
        return check

    return read_columns, write_columns


AS_ROWS, AS_COLUMNS = columns(down=False), columns(down=True)
