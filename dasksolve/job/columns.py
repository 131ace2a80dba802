"""`Columns`: one matrix for many right-hand sides, each of which is a system to a zarr job."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.batch import diagnosis, eager
from dasksolve.batch.options import Options
from dasksolve.batch.problem import Problem, describe, undefined
from dasksolve.job import coordinates, journal
from dasksolve.job.compare import compared
from dasksolve.job.plan import Needs
from dasksolve.job.systems import Systems, needs
from dasksolve.job.work import Compared, Field
from dasksolve.solution import Solution
from dasksolve.status import Status

_PIECE = 1 << 18
"""Bytes of right-hand sides for which a matrix is eliminated once: they stay in the cache."""


def opened(a: Any, b: Any, options: Options, mask_and_scale: bool = True) -> Systems:
    """Open a and b: a batch of systems, or one matrix whose right-hand sides are the batch."""
    systems = Systems.open(a, b, options, mask_and_scale)
    return systems if systems.batch_shape or systems.problem.vectors else Columns.of(systems)


@dataclass(frozen=True)
class Columns(Systems):
    """One matrix (N, N) and the columns of b (N, K), as a batch of K systems that share it."""

    @classmethod
    def of(cls, systems: Systems) -> "Columns":
        """One system with a matrix of right-hand sides, seen so."""
        n, k = systems.problem.n, systems.problem.k
        dtype, b = systems.problem.dtype, systems.b.with_axis(0)
        problem = describe((1, n, n), dtype, (k, n), dtype)
        found = coordinates.find((b,), systems.names[1:], (k,), journal.ARRAYS)
        return cls(problem, systems.a, b, systems.options, systems.names, found)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The array x, as b is, and of each column what else is asked for."""
        of_vectors = super().fields
        column = self.names[1:]
        x, *others = (replace(field, names=column) for field in of_vectors)
        return (replace(x, names=self.names, at=0), *others)

    @property
    def needs(self) -> Needs:
        """What blocks of columns take."""
        return needs(self.problem, self.a.layout, self.b.layout)

    def identity(self) -> dict[str, Any]:
        """What is solved, and that its columns are the batch."""
        return {**super().identity(), "batch": {"of": "columns of b"}}

    def _answers(self, a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        return _solved(a, b, self.options)

    def _compared(
        self, a: NDArray[Any], b: NDArray[Any], stored: dict[str, NDArray[Any]], exactly: bool
    ) -> Compared:
        stored = stored | {"x": stored["x"].T}
        how = _solved_again, diagnosis.errors_of_one_matrix
        return compared(a[None], b.T, self.options, stored, exactly, *how)


def _solved_again(a: NDArray[Any], b: NDArray[Any], _: Problem, options: Options) -> Solution:
    x, status, *numbers = _solved(a[0], b.T, options)
    return Solution(x.T, status, *(numbers or np.full((2, len(b)), np.nan)))


def _solved(a: NDArray[Any], b: NDArray[Any], options: Options) -> tuple[NDArray[Any], ...]:
    """Return x of (N, K) and the status of each column, then condition and backward error."""
    n, k = b.shape
    problem = describe((1, n, n), a.dtype, (k, n), b.dtype)
    if options.diagnoses:  # of each column apart
        x, *others = eager.answers(a[None], b.T, problem, options)
        return (x.T, *others)
    x, status = np.empty((n, k), problem.dtype), np.empty(k, np.int8)
    step = max(1, _PIECE // max(1, b[:, :1].nbytes))
    for start in range(0, k, step):
        piece = slice(start, start + step)
        x[:, piece], status[piece] = _together(a, b[:, piece], options)
    return x, status


def _together(
    a: NDArray[Any], b: NDArray[Any], options: Options
) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Eliminate once for some columns; each has the bits and the status that it has alone."""
    finite = np.isfinite(b).all(axis=0)
    columns = b if finite.all() else b[:, finite]
    one = describe(a.shape, a.dtype, columns.shape, b.dtype)
    found, common = eager.answers(a, columns, one, options)
    solved = np.full(columns.shape[1], common)
    if common == Status.NONFINITE:  # of a column whose x overflowed
        solved[np.isfinite(found).all(axis=0)] = Status.OK
    if columns is b:
        return found, solved
    x = np.full(b.shape, undefined(one.dtype), one.dtype)
    status = np.full(finite.size, Status.NONFINITE, np.int8)
    x[:, finite], status[finite] = found, solved
    return x, status
