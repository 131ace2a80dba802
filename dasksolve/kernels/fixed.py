"""Small systems of a structure, one system a lane, for an N known while compiling."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types

from dasksolve.kernels import diagonal, tridiagonal
from dasksolve.kernels.cholesky import interleaved as cholesky
from dasksolve.kernels.compiling.jit import jit
from dasksolve.kernels.diagnostics.verdicts import record, reject_band, weigh
from dasksolve.kernels.language.lanes import conjugate, magnitude, operation
from dasksolve.kernels.language.tiles import (
    Ahead,
    collect,
    deal,
    lane_count,
    systems_of_lanes,
    tile,
)
from dasksolve.kernels.language.values import Variable, align_stack, forget_registers, loop
from dasksolve.kernels.lu.fixed import apart_from
from dasksolve.kernels.triangular import interleaved as triangular


class Method(NamedTuple):
    """How systems of a structure are solved, on a triangle held as t[i, j] with j ≤ i."""

    factor: Callable[..., Any]
    """(t, n, flaw, between) to the flaw of each lane; between(c) is called before each column c."""
    substitute: Callable[[Any, Any, int], None]
    """(column, t, n): overwrite the right-hand sides."""


METHODS = {
    "pos": Method(cholesky.factor, cholesky.substitute),
    "upper triangular": Method(triangular.invert_diagonal, triangular.backward),
    "lower triangular": Method(triangular.invert_diagonal, triangular.forward),
    "diagonal": Method(triangular.invert_diagonal, diagonal.divide_all),
    "tridiagonal": Method(tridiagonal.factor, tridiagonal.substitute),
}
# Up to this N the triangle lives in registers.
IN_REGISTERS = 5


def read_triangle(a, t, systems, n, lower, between):
    """Put the upper triangle, transposed, or the lower one, conjugated, below the diagonal of t."""
    for e, x in enumerate(deal(a, [s * (n * n) for s in systems], n * n, between)):
        i, j = divmod(e, n)
        if lower and j <= i:
            t[i, j] = conjugate(x)
        if not lower and i <= j:
            t[j, i] = x


def read_band(a, t, systems, n, lower, between):
    """Put three diagonals in t."""
    for e, x in enumerate(deal(a, [s * (n * n) for s in systems], n * n, between)):
        i, j = divmod(e, n)
        if abs(i - j) <= 1:
            t[i, j] = x


def read_rows(a, t, systems, n, lower):
    """`read_triangle` for rows of more than 8 numbers, 8 at a time."""
    for i in range(n):
        for j in range(0, i + 1, 8) if lower else range(i // 8 * 8, n, 8):
            start = min(j, n - 8)
            for e, x in enumerate(
                deal(a, [s * (n * n) + i * n + start for s in systems], 8), start
            ):
                if lower and e <= i:
                    t[i, e] = conjugate(x)
                if not lower and i <= e:
                    t[e, i] = x


@operation(lambda *_: types.boolean)
def solve_tile(a, b, x, status, t, first, last, columns, n, structure, lower, full):
    """Solve the systems of the tile that begins with `first`; whether any of them failed."""
    builder, method = a.builder, METHODS[structure]
    align_stack(builder)
    systems = systems_of_lanes(a, first, last)
    if full:  # addresses are then known but for a base
        systems = [first + lane for lane in range(len(systems))]
    some = t[0, 0]
    banded = structure == "tridiagonal"
    if n <= IN_REGISTERS or banded:
        t = {}
    ahead, early = Ahead(a, b, x, first, n, columns), 0.5 if n <= 8 or banded else 0
    if n <= 8 or banded:
        read = read_band if banded else read_triangle
        read(a, t, systems, n, lower, lambda share: ahead.ask(share * early))
    else:
        read_rows(a, t, systems, n, lower)

    def between(c):
        if n > IN_REGISTERS and not banded:
            forget_registers(builder)
        ahead.ask(early + (1 - early) * (c + 1) / n)

    flaw = method.factor(t, n, magnitude(some.fill(0)), between)
    check = Variable(magnitude(some.fill(0)))
    vector = (columns == 1).value
    with loop(builder, 0, columns) as j:
        rows = [Variable(some) for _ in range(n)]
        together = [s * n for s in systems]
        with builder.if_else(vector) as (one, several):
            with one:
                for row, value in zip(rows, deal(b, together, n), strict=True):
                    row.set(value)
            with several:
                apart = apart_from(first, systems, n, columns, j, full)
                for row, starts in zip(rows, apart, strict=True):
                    row.set(deal(b, starts, 1)[0])
        column = {i: row.get() for i, row in enumerate(rows)}
        method.substitute(column, t, n)
        for value in column.values():
            check.set(weigh(check.get(), value))
        with builder.if_else(vector) as (one, several):
            with one:
                collect(list(column.values()), x, together)
            with several:
                apart = apart_from(first, systems, n, columns, j, full)
                for value, starts in zip(column.values(), apart, strict=True):
                    collect([value], x, starts)
    return record(status, first, last, flaw, check.get(), full)


def kernel(n, structure, lower):
    """The kernel for systems of order n."""
    bands = {"diagonal": (0, 0), "tridiagonal": (1, 1)}
    below, above = bands.get(structure, (n, 0) if lower else (0, n))

    @jit
    def solve(a, b, x, status):
        systems, _, columns = b.shape
        count, last = lane_count(a), systems - 1
        t = tile(np.empty((n * n + 1) * count, a.dtype), n, a)
        failed = False
        full = systems // count * count if n <= 8 else 0
        for first in range(0, full, count):
            if solve_tile(a, b, x, status, t, first, last, columns, n, structure, lower, True):
                failed = True
        for first in range(full, systems, count):
            if solve_tile(a, b, x, status, t, first, last, columns, n, structure, lower, False):
                failed = True
        if failed:
            reject_band(a, b, x, status, below, above, structure == "pos")

    return solve
