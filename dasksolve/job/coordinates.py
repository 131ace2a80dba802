"""The coordinates of a batch, which stand beside an input and go with the solution."""

import itertools
import logging
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import zarr
from zarr.storage import MemoryStore

from dasksolve.errors import retold
from dasksolve.job.meaning import Meaning, equal
from dasksolve.storage import conventions, documents, inputs, internals, locations, secrets
from dasksolve.storage.documents import Document
from dasksolve.storage.source import Source

logger = logging.getLogger(__name__)

_COUNTED = re.compile(r"dim_\d+")
_AT_ONCE = 16  # of them are looked for and copied at the same time
_PIECE = 1 << 17  # numbers of a dimension's coordinate that are in memory at once
_LARGEST = 32 << 20  # bytes of a chunk of another: less than the plan leaves for a kernel, twice


@dataclass(frozen=True)
class Coordinate:
    """An array that says where along dimensions of the batch its systems are."""

    name: str
    """In the output."""
    dims: tuple[str, ...]
    """Names of its dimensions there: its own, for the coordinate of a dimension."""
    array: Any = field(repr=False)
    """Where it is copied from."""
    is_mapping: bool = False
    """It says how the others map to places on earth (CF, section 5.6)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """What it is stored as: text of one length is of no specified format in zarr 3."""
        dtype = self.array.dtype
        return np.dtypes.StringDType() if dtype.kind == "U" else dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Of its copy: those of a dimension's coordinate may have been appended one by one."""
        shape = self.array.shape
        wanted = (_PIECE,) if len(shape) == 1 else self.array.chunks
        return tuple(max(1, min(pair)) for pair in zip(wanted, shape, strict=True))

    def pieces(self) -> Iterator[tuple[tuple[slice, ...], Any]]:
        """Its numbers, as they are stored, a part after the other."""
        starts = map(range, itertools.repeat(0), self.array.shape, self.chunks)
        for corner in itertools.product(*starts):
            place = tuple(slice(i, i + n) for i, n in zip(corner, self.chunks, strict=True))
            try:
                yield place, np.asarray(self.array[place])
            except Exception as error:  # whatever a store or a codec runs into
                raise retold(
                    error,
                    f"cannot read the coordinate {locations.of(self.array)}: {secrets.told(error)}",
                ) from secrets.cause(error)

    def copy(self, target: Any, ready: Future[None] | None) -> None:
        """Copy its numbers into an array that is as it is; the first are read until it is ready."""
        for place, piece in self.pieces():
            if ready is not None:
                ready.result()
            target[place] = piece

    def difference(self, other: Any) -> str | None:
        """Where another array is of other places than this; None: nowhere.

        They are what the numbers mean: xarray writes the same times under several units.
        """
        has_its_name = locations.of(self.array) == locations.of(other)
        if has_its_name and not locations.is_namesake(self.array.store, other.store):
            return None
        if self.is_mapping:  # all that it says are attributes
            same = conventions.described(self.array) == conventions.described(other)
            return None if same else " in attributes"
        if self.array.shape != other.shape:
            return f" in shape, {self.array.shape} and {other.shape}"
        ours, theirs = Meaning.of(self.array), Meaning.of(other)
        shift = ours.shift(theirs)
        if shift is None:
            return f" in units, {ours.units!r} and {theirs.units!r}"
        for place, piece in self.pieces():
            left, right = ours.read(piece), theirs.read(np.asarray(other[place]))
            differ = np.argwhere(~equal(left, right, *shift))
            if len(differ):
                first = [int(i) + part.start for i, part in zip(differ[0], place, strict=True)]
                return f", first at {', '.join(map(str, first))}" if first else ""
        return None

    def is_same(self, other: Any) -> bool:
        """Whether another array says the same, under the same units, in the same numbers."""
        ours, theirs = (conventions.described(array) for array in (self.array, other))
        return (
            (self.array.shape, ours) == (other.shape, theirs)
            and self.dtype.kind == replace(self, array=other).dtype.kind
            and all(_same(piece, np.asarray(other[place])) for place, piece in self.pieces())
        )


def find(
    sources: tuple[Source, ...],
    names: tuple[str, ...],
    sizes: tuple[int, ...],
    taken: Collection[str],
) -> tuple[Coordinate, ...]:
    """The coordinates of a batch with dimensions of these names and sizes, from beside the inputs.

    Names are those of x, where a dimension may be called otherwise than in the inputs; taken: what
    else is in the output.
    """
    along = [_batch(source, names, sizes) for source in sources]
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # far away, each waits for a request
        asked = [
            {name: pool.submit(_beside, source, name, dims) for name, dims in found.items()}
            for source, found in zip(sources, map(_sought, sources, along), strict=True)
        ]
    beside = ({name: one.result() for name, one in found.items()} for found in asked)
    batches = [*map(_Batch, sources, along, beside)]
    return (*_of_dimensions(batches), *_others(batches, names, taken))


class _Batch(NamedTuple):
    """The batch, as an input has it."""

    source: Source
    names: dict[str, str]
    """What its dimensions are called there, and in the output."""
    beside: dict[str, Any]
    """What stands beside it under the names of coordinates; None where that is none."""


def _of_dimensions(batches: list[_Batch]) -> Iterable[Coordinate]:
    """Those by which a dimension is called; refuse inputs that have different ones."""
    found: dict[str, Coordinate] = {}
    for batch in batches:
        for given, name in batch.names.items():
            array = batch.beside[given]
            if array is None:
                continue
            first = found.setdefault(name, Coordinate(name, (name,), array))
            where = first.difference(array)
            if where is not None:
                raise ValueError(
                    f"the coordinates {given} that stand beside a and b differ{where}: "
                    f"{locations.of(first.array)} and {locations.of(array)}. The "
                    "systems are paired by their places, not by coordinates: align them first, or "
                    "give arrays without coordinates"
                )
    return found.values()


def _others(
    batches: list[_Batch], names: tuple[str, ...], taken: Collection[str]
) -> Iterable[Coordinate]:
    """Those by which no dimension is called; of several of one name the first."""
    found: dict[str, Coordinate] = {}
    for batch in batches:
        for one in _auxiliary(batch, taken):
            first = found.setdefault(one.name, one)
            if one.name in names or first.difference(one.array) is not None:
                at = locations.of(one.array)
                logger.warning("%s is left out: there is another coordinate %s", at, one.name)
    return found.values()


def attributes(coordinates: tuple[Coordinate, ...], dims: Collection[str]) -> dict[str, Any]:
    """What an array of these dimensions says of coordinates that none is called by (CF, 5.2)."""
    named = [c for c in coordinates if c.dims != (c.name,) and {*c.dims} <= {*dims}]
    mapping = [c.name for c in named if c.is_mapping]
    said = {"coordinates": [c.name for c in named], "grid_mapping": mapping}
    return {attribute: " ".join(names) for attribute, names in said.items() if names}


def _batch(source: Source, names: tuple[str, ...], sizes: tuple[int, ...]) -> dict[str, str]:
    """What the dimensions of an input along the batch are called there, and in the output."""
    layout, given = source.layout, source.dimension_names
    if not given:
        return {}
    missing = len(sizes) - layout.batch
    places = zip(layout.turned(given), layout.shape[: layout.batch], strict=False)
    return {
        name: names[axis]
        for axis, (name, size) in enumerate(places, missing)
        if size == sizes[axis]  # it is not broadcast
    }


def _sought(source: Source, batch: dict[str, str]) -> dict[str, Collection[str]]:
    """Names of what may be coordinates beside an input, and of the dimensions that it is along."""
    return {**dict.fromkeys(_named(source), batch), **{name: (name,) for name in batch}}


def _named(source: Source) -> dict[str, bool]:
    """What an input names by its attributes, and whether it maps the others to places on earth."""
    others, mappings = (
        str(source.array.attrs.get(name, "")).replace(":", " ").split()
        for name in ("coordinates", "grid_mapping")
    )
    return {name: name in mappings for name in (*others, *mappings)}


def _auxiliary(batch: _Batch, taken: Collection[str]) -> Iterator[Coordinate]:
    """Coordinates that an input names by its attributes, as latitudes (y, x) or a projection."""
    for name, is_mapping in _named(batch.source).items():
        array = None if name in batch.names else batch.beside[name]
        if array is not None:
            called = f"{name}_" if name in taken else name
            own = tuple(batch.names[dim] for dim in inputs.dimension_names(array) or ())
            yield Coordinate(called, own, array, is_mapping and not own)


def of_terms(design: Source, name: str) -> tuple[Coordinate, ...]:
    """What the columns of a design are called, if it says."""
    names = design.dimension_names
    array = _beside(design, names[1], names[1:]) if names else None
    return () if array is None else (Coordinate(name, (name,), array),)


def refuse_other_places(y: Source, other: Source, axes: Sequence[int]) -> None:
    """Refuse an array whose first axes stand for these of y and are others, as far as both say."""
    ours, theirs = given_names(y), given_names(other)
    if ours is None or theirs is None:
        return
    for axis, name, size in zip(axes, theirs, other.array.shape, strict=False):
        if size != y.array.shape[axis]:  # it is broadcast
            continue
        if name == ours[axis]:
            _refuse_other_coordinates(y, other, name)
        elif name in ours or ours[axis] in theirs:
            raise ValueError(
                f"the dimensions of {other.name} are named {theirs}, those of y {ours}, and they "
                f"are paired by their order: store {other.name} transposed, or under other names"
            )


def _refuse_other_coordinates(y: Source, other: Source, name: str) -> None:
    ours, theirs = (_beside(source, name, (name,)) for source in (y, other))
    if ours is None or theirs is None:
        return
    where = Coordinate(name, (name,), ours).difference(theirs)
    if where is None:
        return
    raise ValueError(
        f"the coordinates {name} that stand beside y and {other.name} differ{where}: "
        f"{locations.of(ours)} and {locations.of(theirs)}. They are paired by their "
        f"places: align them first, or give {other.name} without coordinates"
    )


def given_names(source: Source) -> tuple[str, ...] | None:
    """Names that tell dimensions apart; xarray counts those of an array that has none."""
    names = source.dimension_names
    if names is None or len({*names}) < len(names) or all(map(_COUNTED.fullmatch, names)):
        return None
    return names


def drafts(coordinates: Iterable[Coordinate]) -> dict[str, Document]:
    """The metadata of their copies, as zarr writes them."""
    store = MemoryStore()
    group = zarr.create_group(store, zarr_format=3)
    for coordinate in coordinates:
        group.create_array(
            coordinate.name,
            shape=coordinate.array.shape,
            chunks=coordinate.chunks,
            dtype=coordinate.dtype,
            attributes=conventions.described(coordinate.array),
            dimension_names=coordinate.dims,
        )
    return documents.members(store)


@contextmanager
def copied(
    store: Any,
    coordinates: Sequence[Coordinate],
    drafts: dict[str, Document],
    ready: Future[None] | None = None,
) -> Iterator[None]:
    """Copy all of them into a group where none is, while somebody writes these metadata.

    ready: once they may be written, and not read alone.
    """
    with _threads(coordinates) as pool:
        copies = [
            pool.submit(c.copy, internals.described(store, c.name, drafts[c.name]), ready)
            for c in coordinates
        ]
        yield
        for copy in copies:
            copy.result()


def missing(
    store: Any, coordinates: Sequence[Coordinate], there: dict[str, Document]
) -> list[Coordinate]:
    """Those whose copies are not in a group of these documents, or cannot be read, or differ."""

    def is_there(coordinate: Coordinate) -> bool:
        try:
            copy = internals.described(store, coordinate.name, there[coordinate.name])
            return coordinate.is_same(copy)
        except Exception:  # whatever a power cut left of it
            return False

    with _threads(coordinates) as pool:
        found = [*pool.map(is_there, coordinates)]
    return [c for c, kept in zip(coordinates, found, strict=True) if not kept]


def _threads(coordinates: Sequence[Coordinate]) -> ThreadPoolExecutor:
    """Threads that hold no more of coordinates together than one may of the largest."""
    pieces = [math.prod(c.chunks) * c.array.dtype.itemsize for c in coordinates]
    return ThreadPoolExecutor(max(1, min(_AT_ONCE, _LARGEST // max((*pieces, 1)))))


def _beside(source: Source, name: str, dims: Collection[str]) -> Any:
    """The array of this name in the group of an input, if it is a coordinate along any of these."""
    sizes = dict(zip(source.dimension_names or (), source.array.shape, strict=False))
    try:
        array = inputs.beside(source.array, name)
        if array is None:
            return None
        own = inputs.dimension_names(array) if array.ndim else ()
        if own is None or (name in dims and own != (name,)):
            return None
        if array.shape != tuple(sizes[dim] for dim in own if dim in dims):
            return None
        if array.dtype.kind not in "biufcmMUT":  # of bytes, zarr 3 has no specified format
            raise TypeError(f"its dtype is {array.dtype}, where numbers, times or text are copied")
        if array.ndim > 1 and math.prod(array.chunks) * array.dtype.itemsize > _LARGEST:
            raise MemoryError(f"its chunks {array.chunks} have more than {_LARGEST >> 20} MiB")
        return array
    except Exception as error:  # it is no part of the problem
        logger.warning(
            "the coordinate %s beside %s cannot be read, and is left out: %s",
            name,
            source.location,
            error,
        )
        return None


def _same(left: Any, right: Any) -> bool:
    numbers = left.dtype.kind in "fcmM"
    return bool(np.array_equal(left, right, equal_nan=numbers))
