"""The one door of the batch to what dask keeps to itself; every other file uses its public names.

===================================  ==============================================================
`Array._meta`                        What kind of blocks an array has: a public attribute.
`dask.layers.ArrayBlockwiseDep`      To tell a function of blocks where its block begins, without
                                     the time that `map_blocks` takes for ``block_info``.
`dask.array.core.apply_infer_dtype`  Whether dask tries a function on zeros: a public flag.
===================================  ==============================================================
"""

import inspect
from itertools import accumulate
from typing import Any

from dask.array.core import apply_infer_dtype
from dask.layers import ArrayBlockwiseDep


def kind(array: Any) -> type:
    """The type of the blocks of a dask array."""
    return type(array._meta)


class Origins(ArrayBlockwiseDep):
    """Where each block begins along these axes, for a function of blocks."""

    def __init__(self, chunks: tuple[tuple[int, ...], ...]) -> None:
        super().__init__(chunks)
        self._starts = [list(accumulate(lengths, initial=0)) for lengths in chunks]

    def __getitem__(self, block: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(starts[i] for starts, i in zip(self._starts, block, strict=True))


def infers_dtype() -> bool:
    """Whether `a.map_blocks(dasksolve.solve, b)`, given no dtype, tries it on a system of zeros."""
    frame = inspect.currentframe()
    while frame and frame.f_code is not apply_infer_dtype.__code__:
        frame = frame.f_back
    return frame is not None
