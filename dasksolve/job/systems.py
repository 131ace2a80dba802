"""`Systems`: stored systems, and how a zarr job solves a block of them."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.batch import eager
from dasksolve.batch.options import Options
from dasksolve.batch.problem import Problem, describe
from dasksolve.errors import PerformanceWarning, warn
from dasksolve.job import coordinates, journal
from dasksolve.job.compare import DIAGNOSTICS, compared
from dasksolve.job.coordinates import Coordinate
from dasksolve.job.plan import Needs, Plan
from dasksolve.job.work import Compared, Field, Work, described, status_field
from dasksolve.status import is_solved
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.layout import Block, Layout
from dasksolve.storage.source import Source

_BESIDE_X = 17  # bytes of a system's status and, perhaps, two diagnostics


@dataclass(frozen=True)
class Systems(Work):
    """The two arrays of a job, the problem that they pose, and how it is solved."""

    problem: Problem
    a: Source
    b: Source
    options: Options
    names: tuple[str, ...]
    """Dimension names of x."""
    coordinates: tuple[Coordinate, ...] = ()

    unit, task = "systems", "solve_block"

    @classmethod
    def open(cls, a: Any, b: Any, options: Options, mask_and_scale: bool = True) -> "Systems":
        """Open both and describe them."""
        left = Source.open("a", a, 2, mask_and_scale)
        right = Source.open("b", b, 1, mask_and_scale)
        problem = describe(left.array.shape, left.dtype, right.array.shape, right.dtype)
        if not problem.vectors:
            right = right.with_core(2)
        _refuse_other_order(left, right)
        names = _dimension_names(problem, (left, right))
        found = coordinates.find((left, right), names, problem.batch_shape, journal.ARRAYS)
        return cls(problem, left, right, options, names, found)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Both."""
        return self.a, self.b

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the whole batch, after broadcasting."""
        return self.problem.batch_shape

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The arrays x, the diagnostics that are wanted, and status."""
        batch = len(self.batch_shape)
        names, number = self.names[:batch], np.dtype(np.float64)
        core = self.problem.x_shape[batch:]
        x = Field("x", self.problem.dtype, self.names, core, chosen=True)
        wanted = DIAGNOSTICS if self.options.diagnostics else ()
        return (x, *(Field(name, number, names) for name in wanted), status_field(names))

    @property
    def needs(self) -> Needs:
        """What blocks of systems take."""
        found = needs(self.problem, self.a.layout, self.b.layout)
        # Alone, a status is written once it is whole.
        return found if self.options.diagnoses else replace(found, beside_copies=1)

    def identity(self) -> dict[str, Any]:
        """The metadata of both, and the options."""
        return {"a": described(self.a), "b": described(self.b), "options": _stated(self.options)}

    def warn(self, plan: Plan) -> None:
        """Say so where systems are chunked themselves."""
        if plan.amplification == 1:
            return
        layout = self.a.layout
        n = layout.shape[-1]
        batch = ", ".join(str(c) for c in layout.chunks[: layout.batch])
        warn(
            f"a is stored in chunks of {layout.chunks}, which split its systems of ({n}, {n}), so "
            f"every byte of it is read {plan.amplification:g} times. Chunk it along the batch "
            f'alone: dask.array.from_zarr("{self.a.location}").rechunk(({batch}, {n}, {n}))'
            ".to_zarr(…)",
            PerformanceWarning,
        )

    def answers(self, _threads: int, *read: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Solve a block of a and b."""
        x, status, *numbers = self._answers(*read)
        return {"x": x, **dict(zip(DIAGNOSTICS, numbers, strict=False)), "status": status}

    def _answers(self, a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Return x as it stands in the output, status, and the diagnostics that there are."""
        problem = describe(a.shape, a.dtype, b.shape, b.dtype)
        return eager.answers(a, b, problem, self.options)

    async def compared(
        self,
        block: Block,
        _rows: int,
        stored: dict[str, NDArray[Any]],
        exactly: bool,
        space: Workspace,
    ) -> Compared:
        """Solve a block again, and compare."""
        fetched = await self.fetched(block, space)

        async def answered() -> Compared:
            (a, b), _ = await self.decoded(fetched, False, space)
            return self._compared(a, b, stored, exactly)

        return await space.apart(answered)

    def _compared(
        self, a: NDArray[Any], b: NDArray[Any], stored: dict[str, NDArray[Any]], exactly: bool
    ) -> Compared:
        return compared(a, b, self.options, stored, exactly)

    def worst(self, found: dict[str, NDArray[Any]]) -> dict[str, float]:
        """The worst condition and backward error of those with a solution, if they are known."""
        if "rcond" not in found:
            return {}
        solved, rcond = is_solved(found["status"]), found["rcond"]
        if self.options.rcond is not None:  # below it, a system counts as singular
            solved &= rcond >= self.options.rcond
        if not solved.any():
            return {}
        return {
            "worst_rcond": float(rcond[solved].min()),
            "worst_backward_error": float(found["backward_error"][solved].max()),
        }


def needs(problem: Problem, a: Layout, b: Layout) -> Needs:
    """What blocks of a problem take."""
    x = problem.n * problem.k * problem.dtype.itemsize
    return Needs(problem.batch_shape, (a, b), ("a", "b"), x, _BESIDE_X)


def _stated(options: Options) -> dict[str, Any]:
    """The options as the record has them."""
    stated = asdict(options)
    # Raising or not changes no bit of x, so a run may be resumed either way.
    stated["on_singular"] = "lstsq" if options.on_singular == "lstsq" else "nan"
    if stated["rcond"] is None:  # as before there was such an option
        del stated["rcond"]
    return stated


def options_of(record: journal.Record, location: str) -> Options:
    """Return the options that a record states, if they can be options."""
    stated = journal.fields(record, "options", location)
    try:
        found = Options.of(**stated)
    except (TypeError, ValueError):
        found = None
    if found is None or _stated(found) != stated:
        raise journal.damaged(location, f"its options are {stated}")
    return found


def _refuse_other_order(a: Source, b: Source) -> None:
    """Refuse dimensions that stand elsewhere than their names say, where both inputs have names.

    A name that only one input has says nothing within a system; along the batch it is another
    dimension.
    """
    left, right = (coordinates.given_names(source) for source in (a, b))
    if left is None or right is None:
        return
    batch, (row, _) = left[:-2], left[-2:]
    b_batch, core = right[: b.layout.batch], right[b.layout.batch :]
    sizes = zip(batch[::-1], a.array.shape[:-2][::-1], strict=True)
    b_sizes = zip(b_batch[::-1], b.array.shape[: b.layout.batch][::-1], strict=True)
    fits = core[0] == row or core[0] not in left
    fits &= all(name not in left for name in core[1:])
    for (name, size), (b_name, b_size) in zip(sizes, b_sizes, strict=False):
        elsewhere = name in right or b_name in left
        fits &= name == b_name or (1 in (size, b_size) and not elsewhere)
    fits &= not {*batch[: max(0, len(batch) - len(b_batch))]} & {*right}
    fits &= not {*b_batch[: max(0, len(b_batch) - len(batch))]} & {*left}
    if not fits:
        wanted = (*batch[len(batch) - len(b_batch) :], row, *core[1:])
        raise ValueError(
            f"the dimensions of a are named {left}, those of b {right}, and dasksolve goes by "
            f"their order: the last two of a are the rows and columns of its systems, and b must "
            f"be {wanted}. Store one of them transposed or under other names, or solve them by "
            "name with dasksolve.labelled.solve"
        )


def _dimension_names(problem: Problem, sources: tuple[Source, ...]) -> tuple[str, ...]:
    """The names that the inputs give their dimensions, where they do and no two are alike."""
    count = len(problem.batch_shape)
    batch = tuple(f"batch_{i}" for i in range(count)) if count > 1 else ("batch",) * count
    unknown, rhs = "unknown", "rhs"
    for source in reversed(sources):
        names = source.dimension_names
        if names:
            if source.layout.batch == count:
                batch = tuple(names[:count])
            if source.name == "a":
                unknown = names[-1]  # a column of a is multiplied by an element of x
            elif not problem.vectors:
                rhs = names[-1]
    all_names = (*batch, unknown) if problem.vectors else (*batch, unknown, rhs)
    # xarray takes an array that is named like one of its dimensions for a coordinate.
    all_names = tuple(f"{name}_" if name in journal.ARRAYS else name for name in all_names)
    if len(set(all_names)) < len(all_names):
        return tuple(f"dim_{i}" for i in range(len(all_names)))
    return all_names
