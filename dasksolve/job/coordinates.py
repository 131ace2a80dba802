"""The coordinates of a batch, which stand beside an input and go with the solution."""

import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from dasksolve.storage import conventions, documents, inputs, internals, stores
from dasksolve.storage.documents import Document
from dasksolve.storage.source import Source

logger = logging.getLogger(__name__)

_COUNTED = re.compile(r"dim_\d+")
_PIECE = 1 << 17  # numbers that are in memory at once


@dataclass(frozen=True)
class Coordinate:
    """An array that says where along one dimension of the batch its systems are."""

    name: str
    """Name of the dimension, and of the array, in the output."""
    array: Any = field(repr=False)
    """Where it is copied from."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """What it is stored as: text of one length is of no specified format in zarr 3."""
        dtype = self.array.dtype
        return np.dtypes.StringDType() if dtype.kind == "U" else dtype

    def pieces(self) -> Iterator[tuple[slice, Any]]:
        """Its numbers, as they are stored, a part after the other."""
        length = self.array.shape[0]
        for start in range(0, length, _PIECE):
            place = slice(start, min(start + _PIECE, length))
            try:
                yield place, np.asarray(self.array[place])
            except Exception as error:  # whatever a store or a codec runs into
                raise OSError(
                    f"cannot read the coordinate {stores.address(self.array)}: "
                    f"{type(error).__name__}: {error}"
                ) from error

    def copy(self, target: Any) -> None:
        """Copy its numbers into an array that is as it is."""
        for place, piece in self.pieces():
            target[place] = piece

    def is_same(self, other: Any) -> bool:
        """Whether another array says the same, under the same units."""
        ours, theirs = (conventions.described(array) for array in (self.array, other))
        return (
            (self.array.shape, ours) == (other.shape, theirs)
            and self.dtype.kind == Coordinate(self.name, other).dtype.kind
            and all(_same(piece, np.asarray(other[place])) for place, piece in self.pieces())
        )


def find(
    sources: tuple[Source, ...], names: tuple[str, ...], sizes: tuple[int, ...]
) -> tuple[Coordinate, ...]:
    """The coordinates of dimensions of these names and sizes, from beside any of the inputs.

    Names are those of x, where a dimension may be called otherwise than in the inputs.
    """
    found: dict[str, Coordinate] = {}
    for source in sources:
        names_given = source.dimension_names
        given = source.layout.turned(names_given) if names_given else ()
        for axis in range(source.layout.batch if given else 0):
            place = axis + len(sizes) - source.layout.batch
            if source.layout.shape[axis] != sizes[place]:  # it is broadcast
                continue
            array = _beside(source, given[axis], sizes[place])
            if array is None:
                continue
            first = found.setdefault(names[place], Coordinate(names[place], array))
            same_place = stores.address(first.array) == stores.address(array)
            if not (same_place or first.is_same(array)):
                raise ValueError(
                    f"the coordinates {given[axis]} that stand beside a and b differ: "
                    f"{stores.address(first.array)} and {stores.address(array)}. The systems are "
                    "paired by their places, not by coordinates: align them first, or give arrays "
                    "without coordinates"
                )
    return tuple(found.values())


def of_terms(design: Source, name: str) -> tuple[Coordinate, ...]:
    """What the columns of a design are called, if it says."""
    names = design.dimension_names
    array = _beside(design, names[1], design.array.shape[1]) if names else None
    return () if array is None else (Coordinate(name, array),)


def refuse_other_places(y: Source, other: Source, axes: Sequence[int]) -> None:
    """Refuse an array whose first axes stand for these of y and are others, as far as both say."""
    ours, theirs = given_names(y), given_names(other)
    if ours is None or theirs is None:
        return
    for axis, name, size in zip(axes, theirs, other.array.shape, strict=False):
        if size != y.array.shape[axis]:  # it is broadcast
            continue
        if name == ours[axis]:
            _refuse_other_coordinates(y, other, name, size)
        elif name in ours or ours[axis] in theirs:
            raise ValueError(
                f"the dimensions of {other.name} are named {theirs}, those of y {ours}, and they "
                f"are paired by their order: store {other.name} transposed, or under other names"
            )


def _refuse_other_coordinates(y: Source, other: Source, name: str, size: int) -> None:
    ours, theirs = (_beside(source, name, size) for source in (y, other))
    if ours is None or theirs is None or Coordinate(name, ours).is_same(theirs):
        return
    raise ValueError(
        f"the coordinates {name} that stand beside y and {other.name} differ: "
        f"{stores.address(ours)} and {stores.address(theirs)}. They are paired by their places: "
        f"align them first, or give {other.name} without coordinates"
    )


def given_names(source: Source) -> tuple[str, ...] | None:
    """Names that tell dimensions apart; xarray counts those of an array that has none."""
    names = source.dimension_names
    if names is None or len({*names}) < len(names) or all(map(_COUNTED.fullmatch, names)):
        return None
    return names


def write(group: Any, coordinates: tuple[Coordinate, ...]) -> None:
    """Copy coordinates into a group, unless they are there."""
    for coordinate in coordinates:
        there = group.get(coordinate.name)
        if there is None or not coordinate.is_same(there):
            coordinate.copy(_created(group, coordinate))


def drafts(coordinates: tuple[Coordinate, ...]) -> dict[str, Document]:
    """The metadata of their copies, as zarr writes them."""
    store = MemoryStore()
    group = zarr.create_group(store, zarr_format=3)
    for coordinate in coordinates:
        _created(group, coordinate)
    return documents.members(store)


@contextmanager
def copied(
    store: Any, coordinates: tuple[Coordinate, ...], drafts: dict[str, Document]
) -> Iterator[None]:
    """Copy all of them into a group where none is, while somebody writes these metadata."""
    with ThreadPoolExecutor(len(coordinates) or 1) as pool:
        copies = [
            pool.submit(coordinate.copy, internals.described(store, name, drafts[name]))
            for name, coordinate in ((c.name, c) for c in coordinates)
        ]
        yield
        for copy in copies:
            copy.result()


def _created(group: Any, coordinate: Coordinate) -> Any:
    return group.create_array(
        coordinate.name,
        shape=coordinate.array.shape,
        chunks=(max(1, min(_PIECE, coordinate.array.shape[0])),),
        dtype=coordinate.dtype,
        attributes=conventions.described(coordinate.array),
        dimension_names=(coordinate.name,),
        overwrite=True,
    )


def _beside(source: Source, name: str, size: int) -> Any:
    """The array of this name in the group of an input, if it can be a coordinate."""
    try:
        array = inputs.beside(source.array, name)
        names = None if array is None else inputs.dimension_names(array)
        usable = names == (name,) and array.shape == (size,) and array.dtype.kind in "biufmMUT"
    except Exception as error:  # it is no part of the problem
        logger.warning(
            "the coordinate %s beside %s cannot be read, and is left out: %s",
            name,
            source.location,
            error,
        )
        return None
    return array if usable else None


def _same(left: Any, right: Any) -> bool:
    numbers = left.dtype.kind in "fmM"
    return bool(np.array_equal(left, right, equal_nan=numbers))
