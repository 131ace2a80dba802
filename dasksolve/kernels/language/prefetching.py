"""Asks memory for what comes next: a miss takes longer than a small system."""

from typing import Any

from dasksolve.kernels.language.backend import cgutils, ir
from dasksolve.kernels.language.lanes import nothing, operation, width

# Levels of the cache to prefetch to. A tile beyond N = 8 would drive the one that is being worked
# on out of the first: 295 ns with the second instead of 350 at N = 16.
FIRST, SECOND = 3, 2
READ, WRITE = 0, 1


def prefetch_next(a, first, n, element, level):
    """Ask for the cache lines of one element of each matrix's worth of the next tile."""
    count = width(a.lanes.dtype)
    line = 64 * 8 // a.lanes.dtype.bitwidth
    for start in range(0, count, line):
        prefetch(a, (first + count) * (n * n) + element * count + start, level)


# How many bytes of a ahead to ask for: a tile takes less time than memory does. One tile at least.
AHEAD = 8 << 10


class Ahead:
    """Asks for the cache lines of a tile to come: of a and b, and of x and `numbers` to write to.

    Spread over the work on a tile, since few misses can wait at once: at N = 8 a triangle takes 13
    ns instead of 40, with all of them in the second level of the cache.
    """

    def __init__(self, a, b, x, first, count, n, columns, *numbers):
        bytes_each = a.lanes.dtype.bitwidth // 8
        line, tile_bytes = 64 // bytes_each, n * n * count * bytes_each
        later = first + max(1, -(-AHEAD // tile_bytes)) * count
        self.lines: list[Any] = []
        for i in range(n * n * count // line):
            self.lines.append((a, later * (n * n) + i * line, FIRST))
            if i % n == 0:
                at = later * n * columns + i // n * line
                self.lines += [(b, at, FIRST), (x, at, FIRST, WRITE)]
        self.lines += [(array, later, FIRST, WRITE) for array in numbers]
        self.asked = 0
        self.columns = (b, READ), (x, WRITE)
        self.size, self.start, self.line = n * count, later * n * columns, line

    def ask(self, share):
        """Ask for what is left of this share of the lines."""
        stop = int(len(self.lines) * share)
        for line in self.lines[self.asked : stop]:
            prefetch(*line)
        self.asked = stop

    def ask_column(self, j):
        """Ask for the share of b and x that column j has, where there are several.

        With three columns N = 6 of `pos` takes three quarters of the time so.
        """
        for array, purpose in self.columns:
            for i in range(0, self.size, self.line):
                prefetch(array, self.start + (j * self.size + i), FIRST, purpose)


@operation(nothing)
def prefetch(array, index, level, purpose=READ):
    """Ask for the cache line of array.flat[index], which need not exist, in a level."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte] + [ir.IntType(32)] * 3)
    function = cgutils.get_or_insert_function(array.builder.module, kind, "llvm.prefetch.p0")
    pointer = array.builder.bitcast(array.pointer(index * array.parts, 1), byte)
    options = [ir.IntType(32)(option) for option in (purpose, level, 1)]
    array.builder.call(function, [pointer, *options])


def ask(array, index, length, level=SECOND):
    """Ask for array.flat[index : index + length], which may begin anywhere in a cache line.

    That of the last element too: a triangle of N = 16 takes 70 ns so, 127 without.
    """
    line = 64 * 8 // array.lanes.dtype.bitwidth
    for element in (*range(0, length, line), length - 1):
        prefetch(array, index + element, level)
