"""Small systems, one a lane, of an order known while compiling: straight code, no loops over it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import types

from dasksolve.kernels.compiling.jit import named
from dasksolve.kernels.diagnostics import fixed as diagnostics
from dasksolve.kernels.diagnostics import lanewise
from dasksolve.kernels.diagnostics.norms import doubt
from dasksolve.kernels.diagnostics.verdicts import record, weigh
from dasksolve.kernels.language.control import Variable, align_stack, forget_registers, loop, opaque
from dasksolve.kernels.language.lanes import PANEL, conjugate, magnitude, operation, width
from dasksolve.kernels.language.prefetching import Ahead
from dasksolve.kernels.language.target import FEW_REGISTERS
from dasksolve.kernels.language.tiles import (
    lane_count,
    put_numbers,
    systems_of_lanes,
    tile,
    tiles_of,
)
from dasksolve.kernels.language.transposition import collect, deal


class Matrices(NamedTuple):
    """What a method is given: a matrix in each lane."""

    a: Any
    """All matrices."""
    systems: list[Any]
    """Which of them, lane by lane."""
    t: Any
    """A tile for N² vectors, or a dict for them where they are to stay in registers."""
    n: int
    """N."""
    first: Any
    """The system of the first lane."""
    last: Any
    """The last of all, or of the tile: lanes beyond it hold it again."""
    whole: bool
    """Whether all that is read is wanted before anything is factored."""


class Method(NamedTuple):
    """How systems of a structure are solved; its functions emit code."""

    name: str
    """Unique."""
    read: Callable[..., None]
    """(matrices, between) puts in t[i, j] what `factor` wants; between(share) may be called after
    each share of the reading."""
    factor: Callable[..., Any]
    """(matrices, flaw, between) to the flaw of each lane and the factors; between(c) is to be
    called before each column c."""
    substitute: Callable[[Any, Any, int], None]
    """(column, factors, n) overwrites a right-hand side, a dict of its elements."""
    reject: Any
    """A part (a, b, x, status) for a batch in which anything failed: see `verdicts.rejecting`."""
    inverse_norm: Callable[..., Any] | None = None
    """(factors, n) to ‖A⁻¹‖₁, where diagnostics may be asked for."""
    substitute_transposed: Callable[[Any, Any, int], None] | None = None
    """`substitute` for the transposed matrices, where they may be for systems of more than a panel:
    their ‖A⁻¹‖₁ is estimated."""
    in_registers: int = 5
    """The largest N whose matrices stay in registers; beyond, LLVM would spill them in a worse
    order than ours."""
    at_once: int = 8
    """The largest N whose matrices are read as N² numbers in a row."""
    together: int = 8
    """The largest N for which operations mostly wait for those before them, so that two registers'
    systems at once take less time."""


def read_triangle(matrices, between, lower):
    """Put the upper triangle, transposed, or the lower one, conjugated, below the diagonal of t."""
    a, systems, t, n, *_ = matrices

    def put(i, j, x):
        if lower and j <= i:
            t[i, j] = conjugate(x)
        if not lower and i <= j:
            t[j, i] = x

    if n <= 8:
        for e, x in enumerate(deal(a, [s * (n * n) for s in systems], n * n, between)):
            put(e // n, e % n, x)
        return
    if FEW_REGISTERS and (n > 12 or a.parts == 2):
        # The code of all rows would crowd the cache of instructions: N = 12 of complex64 takes 0.9
        # of the time so, on Zen 3. What is not read of the matrix goes to where nobody looks.
        for first, stop in ((0, 8), (8, n)):
            start = 0 if lower else first
            with loop(t.builder, first, stop) as i:
                starts = [s * (n * n) + i * n + start for s in systems]
                for e, x in enumerate(deal(a, starts, (stop if lower else n) - start), start):
                    if lower:
                        t[i, e] = conjugate(x)
                    else:
                        t[e, i] = x
        return
    for i in range(n):
        for j in range(0, i + 1, 8) if lower else range(i // 8 * 8, n, 8):
            start = min(j, n - 8)
            starts = [s * (n * n) + i * n + start for s in systems]
            for e, x in enumerate(deal(a, starts, 8), start):
                put(i, e, x)


def copied(t, n, in_registers):
    """Copy the matrix to where factoring it does not reach; return how to get at an element."""
    if in_registers:
        elements = dict(t)
        return lambda i, j: elements[i, j]
    for i in range(n):
        for j in range(n):
            t[n + i, j] = t[i, j]
    return lambda i, j: t[n + i, j]


def apart_from(first, systems, n, columns, j, full):
    """Where the elements of column j of b or x stand: for each row, in each system.

    Each begins at an opaque number, from which LLVM cannot foresee the addresses. Else it would
    compute all of them ahead of the branch for one column, which does not need them.
    """
    if not full:
        columns = opaque(columns)
        return [[(s * n + i) * columns + j for s in systems] for i in range(n)]
    base = opaque(first * n * columns + j)
    return [[columns * (s * n + i) + base for s in range(len(systems))] for i in range(n)]


def solving(method, n, vectors):
    """The operation that solves the systems of a tile by a method, for `vectors` alone or any b."""

    @operation(lambda *_: types.boolean)
    def solve_tile(a, b, x, status, t, first, last, columns, full, rcond, backward_error):
        """Solve the systems of the tile that begins with `first`; whether any of them failed."""
        builder = a.builder
        align_stack(builder)
        columns = 1 if vectors else columns
        systems = systems_of_lanes(a, first, last)
        if full:  # addresses are then known but for a base: 2.6 ns instead of 3.8 at N = 2
            systems = [first + lane for lane in range(t.lanes.count)]
            last = systems[-1]
        zero = t.fill(0)
        flaw = magnitude(zero)
        in_registers = n <= method.in_registers
        if in_registers:
            t = {}
        numbers = [] if rcond is None else [rcond, backward_error]
        ahead = Ahead(a, b, x, first, len(systems), n, columns, *numbers)
        early = 0.5 * (n <= method.at_once)
        matrices = Matrices(a, systems, t, n, first, last, rcond is not None)
        method.read(matrices, lambda share: ahead.ask(share * early))
        check = Variable(flaw)
        diagnosis: Any = None
        estimated = bool(numbers) and n > PANEL
        if estimated:
            diagnosis = lanewise.Diagnosis(a, systems, t, n)
        elif numbers:
            diagnosis = diagnostics.Diagnosis(copied(t, n, in_registers), n, a.lanes)

        def between(c):
            if not in_registers:
                forget_registers(builder)
            ahead.ask(early + (1 - early) * (c + 1) / n)

        flaw, factors = method.factor(matrices, flaw, between)
        together = [s * n for s in systems]

        def judge(given, column):
            for value in column.values():
                check.set(weigh(check.get(), value))
            if diagnosis:
                diagnosis.compare(given, [column[i] for i in range(n)])

        def choose(given, one, other):
            """Emit what is done to columns of b, and to those that an estimate has in addition."""
            if not estimated:
                one()
                return
            with builder.if_else(given.value) as (then, otherwise):
                with then:
                    one()
                with otherwise:
                    other()

        if vectors:
            column = dict(enumerate(deal(b, together, n)))
            method.substitute(column, factors, n)
            judge((), column)
            collect(list(column.values()), x, together)
        else:
            vector = (columns == 1).value
            with loop(builder, 0, columns + (lanewise.SOLVES if estimated else 0)) as j:
                rows = [Variable(zero) for _ in range(n)]

                def read():
                    with builder.if_else(vector) as (one, several):
                        with one:
                            for row, value in zip(rows, deal(b, together, n), strict=True):
                                row.set(value)
                        with several:
                            apart = apart_from(first, systems, n, columns, j, full)
                            for row, starts in zip(rows, apart, strict=True):
                                row.set(deal(b, starts, 1)[0])
                            ahead.ask_column(j)

                def write():
                    judge(given, column)
                    with builder.if_else(vector) as (one, several):
                        with one:
                            collect(list(column.values()), x, together)
                        with several:
                            apart = apart_from(first, systems, n, columns, j, full)
                            for value, starts in zip(column.values(), apart, strict=True):
                                collect([value], x, starts)

                def transposed(column):
                    method.substitute_transposed(column, factors, n)

                trial = j - columns
                choose(j < columns, read, lambda: diagnosis.read(trial, rows, transposed))
                column = {i: row.get() for i, row in enumerate(rows)}
                given = list(column.values())
                method.substitute(column, factors, n)
                choose(j < columns, write, lambda: diagnosis.write(trial, column))
        if diagnosis:
            inverse = None if estimated else method.inverse_norm(factors, n)
            for array, found in zip(numbers, diagnosis.found(inverse), strict=True):
                put_numbers(array, first, last, found)
        return record(status, first, last, flaw, check.get(), full)

    return solve_tile


def together(method, n, dtype, vectors):
    """How many vectors of one register are worked on at once: one fills what another waits for.

    Two of real N = 8 take 42 ns a system instead of 45, with Cholesky 27 instead of 34. Complex
    ones, and those whose diagnostics are asked for, find no room and take a sixth longer; N <= 4
    gains in cache alone. Where registers are few, and so hold fewer systems, one right-hand side
    each gains in memory too: definite N = 4 takes two thirds of the time; and so do small complex
    ones.
    """
    few = FEW_REGISTERS and vectors
    least, most = 2 if few else 5, method.together
    if isinstance(dtype, types.Complex):
        most = min(most // 2, 3) if few else 0
    return 2 if least <= n <= most else 1


def driver(method, n, vectors):
    """What solves a batch by a method, for systems of order n."""
    solve_tile, reject = solving(method, n, vectors), method.reject
    diagnosed = 2 * n if n <= PANEL else lanewise.rows_of(n)
    wide_tile, wide_count = tiles_of(
        lambda dtype: together(method, n, dtype, vectors) * width(dtype)
    )

    def solve(a, b, x, status, rcond=None, backward_error=None):
        systems, _, columns = b.shape
        lanes, last = lane_count(a), systems - 1
        rows, span = n if rcond is None else diagnosed, (n + 1) | 1
        t = tile(rows, span, a.dtype, a)
        failed, full = False, 0
        # Beyond a panel, compiling a tile twice would take more than 5 s.
        if n <= PANEL and rcond is None:
            wide, count = wide_tile(rows, span, a.dtype, a), wide_count(a)
            full = systems // count * count
            for first in range(0, full, count):
                if solve_tile(a, b, x, status, wide, first, last, columns, True, None, None):
                    failed = True
        elif n <= PANEL:
            full = systems // lanes * lanes
            for first in range(0, full, lanes):
                if solve_tile(
                    a, b, x, status, t, first, last, columns, True, rcond, backward_error
                ):
                    failed = True
        for first in range(full, systems, lanes):
            if solve_tile(a, b, x, status, t, first, last, columns, False, rcond, backward_error):
                failed = True
        if failed:
            reject(a, b, x, status)
        if rcond is not None:
            doubt(a, status, rcond, backward_error)

    return solve


def kernel(method, n, vectors=False):
    """The kernel of a method for systems of order n, for one right-hand side each or any number."""
    name = f"{method.name}.{n}" + ".vectors" * vectors
    return named(driver(method, n, vectors), name)
