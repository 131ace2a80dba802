"""The two arrays of a zarr job, and the problem that they pose."""

from dataclasses import dataclass
from typing import Any

from dasksolve.batch.problem import Problem, describe
from dasksolve.storage import stores
from dasksolve.storage.layout import Block
from dasksolve.storage.source import Source

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

    @classmethod
    def open(cls, a: Any, b: Any, assume_a: str, lower: bool) -> "Inputs":
        """Open both and describe them."""
        a_array, a_location = stores.open_input("a", a)
        b_array, b_location = stores.open_input("b", b)
        problem = describe(
            a_array.shape, a_array.dtype, b_array.shape, b_array.dtype, assume_a, lower
        )
        a_layout = stores.layout(a_array, a_location, 2)
        b_layout = stores.layout(b_array, b_location, 1 if problem.vectors else 2)
        source_a = Source("a", a_array, a_location, a_layout)
        source_b = Source("b", b_array, b_location, b_layout)
        names = _dimension_names(problem, (source_a, source_b))
        return cls(problem, source_a, source_b, names)

    def bytes_read(self, block: Block) -> int:
        """Bytes of the chunks of both that are read for a block."""
        return self.a.layout.read_bytes(block) + self.b.layout.read_bytes(block)


def _dimension_names(problem: Problem, sources: tuple[Source, ...]) -> tuple[str, ...]:
    """The names that the inputs give their dimensions, where they do and no two are alike."""
    count = len(problem.batch_shape)
    batch = tuple(f"batch_{i}" for i in range(count)) if count > 1 else ("batch",) * count
    unknown, rhs = "unknown", "rhs"
    for source in reversed(sources):
        names = getattr(source.array.metadata, "dimension_names", None)
        if names and all(names):
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
