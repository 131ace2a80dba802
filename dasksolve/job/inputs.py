"""The two arrays of a zarr job, and the problem that they pose."""

import re
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from dasksolve.batch.problem import Problem, describe
from dasksolve.job import coordinates
from dasksolve.job.coordinates import Coordinate
from dasksolve.storage import internals, stores
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.layout import Block
from dasksolve.storage.source import Source

_COUNTED = re.compile(r"dim_\d+")
ARRAYS = ("x", "status", "rcond", "backward_error")
"""Names of the arrays in an output."""


@dataclass(frozen=True)
class Inputs:
    """The two arrays of a job, and the problem that they pose."""

    problem: Problem
    a: Source
    b: Source
    names: tuple[str, ...]
    """Dimension names of x."""
    coordinates: tuple[Coordinate, ...] = ()
    """Of the dimensions of the batch."""

    @classmethod
    def open(cls, a: Any, b: Any, mask_and_scale: bool = True) -> "Inputs":
        """Open both and describe them."""
        left = Source.open("a", a, 2, mask_and_scale)
        right = Source.open("b", b, 1, mask_and_scale)
        problem = describe(left.array.shape, left.dtype, right.array.shape, right.dtype)
        if not problem.vectors:
            right = right.with_core(2)
        _refuse_other_order(left, right)
        names = _dimension_names(problem, (left, right))
        found = coordinates.find((left, right), names, problem.batch_shape)
        return cls(problem, left, right, names, found)

    def read(self, block: Block, strict: bool, space: Workspace) -> tuple[list[NDArray[Any]], int]:
        """Return what a block needs of both, and how many of its chunks are not stored."""
        sources = (self.a, self.b)
        if all(stores.is_far(source.array.store) for source in sources):  # one wait for both
            both = internals.together(*(source.fetched(block, space) for source in sources))
            found = internals.run(both)
            parts = [
                source.checked(block, values, strict, space)
                for source, values in zip(sources, found, strict=True)
            ]
        else:
            parts = [source.read(block, strict, space) for source in sources]
        return [values for values, _ in parts], sum(missing for _, missing in parts)

    def chunks_read(self, block: Block) -> int:
        """Stored chunks of both that are read for a block."""
        return self.a.layout.touched(block) + self.b.layout.touched(block)

    def bytes_needed(self, block: Block) -> int:
        """Bytes of what a block needs of both."""
        return self.a.layout.needed_bytes(block) + self.b.layout.needed_bytes(block)

    def bytes_read(self, block: Block) -> int:
        """Bytes of the chunks of both that are read for a block."""
        return self.a.layout.read_bytes(block) + self.b.layout.read_bytes(block)


def _refuse_other_order(a: Source, b: Source) -> None:
    """Refuse dimensions that stand elsewhere than their names say, where both have names.

    Names of their own say nothing of those of systems; along the batch they are other dimensions.
    """
    left, right = (_given_names(source) for source in (a, b))
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


def _given_names(source: Source) -> tuple[str, ...] | None:
    """Names that tell dimensions apart; xarray counts those of an array that has none."""
    names = source.dimension_names
    if names is None or len({*names}) < len(names) or all(map(_COUNTED.fullmatch, names)):
        return None
    return names


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
    all_names = tuple(f"{name}_" if name in ARRAYS else name for name in all_names)
    if len(set(all_names)) < len(all_names):
        return tuple(f"dim_{i}" for i in range(len(all_names)))
    return all_names
