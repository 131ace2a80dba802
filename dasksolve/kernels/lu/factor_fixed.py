"""`factor_interleaved` for small systems, of an order known while compiling."""

import numpy as np
from numba import types

from dasksolve.kernels.compiling.jit import jit, named
from dasksolve.kernels.diagnostics import lanewise
from dasksolve.kernels.diagnostics.verdicts import record, weigh
from dasksolve.kernels.language.control import Variable, align_stack, loop
from dasksolve.kernels.language.lanes import PANEL, magnitude, operation
from dasksolve.kernels.language.tiles import lane_count, put_numbers, systems_of_lanes, tile
from dasksolve.kernels.language.transposition import collect
from dasksolve.kernels.lu import reuse
from dasksolve.kernels.lu.factor_interleaved import conclude
from dasksolve.kernels.lu.fixed import (
    METHOD,
    exchange,
    permute,
    substitute,
    substitute_transposed,
)
from dasksolve.kernels.regimes.fixed import Matrices


def factoring(n):
    """The operation that factors the systems of a tile."""

    @operation(lambda *_: types.boolean)
    def factor_tile(a, lu, order, status, rcond, t, first, last):
        """Factor the systems of the tile that begins with `first`; whether any of them failed."""
        align_stack(a.builder)
        systems = systems_of_lanes(a, first, last)
        diagnosis = lanewise.Diagnosis(a, systems, t, n)
        flaw = magnitude(t.fill(0))
        elements = {} if n <= METHOD.in_registers else t
        matrices = Matrices(a, systems, elements, n, first, last, True)
        METHOD.read(matrices, lambda share: None)
        flaw, factors = METHOD.factor(matrices, flaw, lambda c: None)
        with loop(a.builder, 0, lanewise.SOLVES) as trial:
            column = [Variable(t.fill(0)) for _ in range(n)]
            diagnosis.read(trial, column, lambda turned: substitute_transposed(turned, factors, n))
            found = {i: value.get() for i, value in enumerate(column)}
            substitute(found, factors, n)
            diagnosis.write(trial, found)
        put_numbers(rcond, first, last, next(diagnosis.found(None)))
        rows = {i: flaw.fill(i) for i in range(n)}
        permute(rows, 0, factors[1])
        for i, row in rows.items():
            order.put([s * n + i for s in systems], row)
        for k in range(PANEL, n):  # L has met the pivots of its own panel alone
            with loop(a.builder, 0, k // PANEL * PANEL) as j:
                exchange(t, k, n, j, factors[1][k])
        check, stored = flaw.fill(0), np.argsort(reuse.places(n), axis=None)
        for at in range(0, n * n, PANEL):
            places = (divmod(int(place), n) for place in stored[at : at + PANEL])
            numbers = [elements[place] for place in places]
            for number in numbers:
                check = weigh(check, number)
            collect(numbers, lu, [s * (n * n) + at for s in systems])
        return record(status, first, last, flaw, check)

    return factor_tile


def kernel(n):
    """The kernel ``factor(a, lu, order, status, rcond)``, for systems of order n."""
    factor_tile, rows = factoring(n), lanewise.rows_of(n)

    def factor(a, lu, order, status, rcond):
        systems, failed = len(a), False
        t = tile(rows, (n + 1) | 1, a.dtype, a)
        for first in range(0, systems, lane_count(a)):
            if factor_tile(a, lu, order, status, rcond, t, first, systems - 1):
                failed = True
        if failed:
            conclude(a, lu, order, status, rcond)

    return jit(named(factor, str(n)))
