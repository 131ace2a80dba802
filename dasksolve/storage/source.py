"""An input array of a zarr job, read block by block."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from zarr.storage import LocalStore

from dasksolve.storage import (
    buffers,
    conventions,
    decode,
    inputs,
    internals,
    locations,
    secrets,
)
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.conventions import Packing
from dasksolve.storage.internals import Region
from dasksolve.storage.layout import Block, Layout


class MissingChunkError(OSError):
    """A chunk of an input is not stored, so zarr would read its fill value."""


class Chunk(NamedTuple):
    """A stored chunk under a block."""

    place: tuple[int, ...]
    """In the grid of chunks."""
    inside: Region
    """The part of the chunk that the block needs."""
    where: Region
    """The part of the block that it fills."""


class Fetched(NamedTuple):
    """What was read of a block."""

    values: NDArray[Any]
    """Its numbers."""
    missing: list[str]
    """The chunks of it that are known not to be stored."""
    chunk: Chunk | None = None
    """What it is all of: the values are the bytes of this chunk, as they are stored."""


@dataclass(frozen=True)
class Source:
    """One input array, open for reading, that a worker elsewhere can open too."""

    name: str
    """What messages call it: a or b."""
    array: Any = field(repr=False)  # which would show the secrets of its URL
    """The open `zarr.Array`."""
    layout: Layout
    """How it is stored."""
    packing: Packing | None = None
    """How its numbers are packed; None: they are what they say."""
    rows: tuple[int, int] | None = None
    """Of what is within its systems, these alone; None: all."""

    @classmethod
    def open(cls, name: str, where: Any, core: int, mask_and_scale: bool = True) -> "Source":
        """Open an array whose last `core` axes are within a system.

        `mask_and_scale`: its numbers are what its attributes make of them, not what is stored.
        """
        array, location = inputs.open_input(name, where)
        try:
            packing = conventions.packing(array) if mask_and_scale else None
        except ValueError as error:
            raise ValueError(f"{name} ({location}) cannot be decoded: {error}") from None
        itemsize = packing.dtype.itemsize if packing else 0
        layout = replace(inputs.layout(array, location, core), unpacked=itemsize)
        return cls(name, array, layout, packing)

    @classmethod
    def of(cls, name: str, array: Any) -> "Source":
        """An open array as it is stored, each number of which is a system."""
        return cls(name, array, inputs.layout(array, locations.of(array), 0))

    def with_core(self, core: int) -> "Source":
        """The same array, whose last `core` axes are within a system."""
        return replace(self, layout=replace(self.layout, core=core))

    def with_axis(self, axis: int) -> "Source":
        """The same array, of which one axis is within a system, wherever it stands."""
        layout = replace(self.layout, core=1, axis=axis)
        shape, chunks = layout.turned(layout.shape), layout.turned(layout.chunks)
        return replace(self, layout=replace(layout, shape=shape, chunks=chunks))

    def packed(self) -> "Source":
        """The same array, whose numbers are left as they are stored."""
        return replace(self, layout=replace(self.layout, unpacked=0), packing=None)

    def part(self, start: int, stop: int) -> "Source":
        """The same array, of whose systems some observations alone are read."""
        return replace(self, rows=(start, stop))

    @property
    def location(self) -> str:
        """Its URL, or its absolute path."""
        return self.layout.location

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers that are read."""
        return np.dtype(self.array.dtype) if self.packing is None else self.packing.dtype

    @property
    def dimension_names(self) -> tuple[str, ...] | None:
        """What its dimensions are called, if each has a name."""
        return inputs.dimension_names(self.array)

    def read(self, block: Block, strict: bool, space: Workspace) -> tuple[NDArray[Any], int]:
        """Return the part that `block` needs, and how many of its chunks are not stored.

        The part is lent by the workspace, until it reads this array again.
        """

        async def found() -> tuple[NDArray[Any], int]:
            return await self.decoded(await self.fetched(block, space), strict, space)

        return buffers.run(self.array.store, found())

    def everything(self, strict: bool) -> NDArray[Any]:
        """All of it, where all of it is one system."""
        with buffers.lent() as space:
            return self.read((), strict, space)[0].copy()

    async def fetched(self, block: Block, space: Workspace) -> Fetched:
        """Ask for what `block` needs, and wait for it."""
        read = self._read_shards if self.layout.sharded else self._read_chunks
        return await read(self.layout.part(block), space)

    async def decoded(
        self, found: Fetched, strict: bool, space: Workspace
    ) -> tuple[NDArray[Any], int]:
        """What `read` returns, of what was fetched."""
        values, missing, chunk = found
        if chunk is not None:
            values = await self._decode_part(values, chunk)
        if self.layout.sharded:
            values = self._unpacked(values, space)
        if missing and strict:
            raise MissingChunkError(
                f"{missing[0]} of {self.name} ({self.location}) is not stored"
                + (f" ({len(missing) - 1} more of this block)" if missing[1:] else "")
                + f"; strict=False (--no-strict) takes it as the fill value {self.fill_value}, "
                "which is how zarr stores a chunk of nothing else; with resume=True (--resume) it "
                "finishes this job"
            )
        return values, len(missing)

    @property
    def fill_value(self) -> Any:
        """What zarr reads where no chunk is stored: 0 where format 2 leaves it open."""
        fill = self.array.fill_value
        return self.array.dtype.type(0) if fill is None else fill

    def _key(self, place: tuple[int, ...]) -> str:
        return internals.name(self.array, place)

    async def _read_chunks(self, part: Block, space: Workspace) -> Fetched:
        chunks = list(self._chunks(part, self._grid))
        local = isinstance(self.array.store, LocalStore)
        single = len(chunks) == 1 and self.packing is None
        if single:  # a view of the chunk spares a copy of it
            [chunk] = chunks
            if local:
                values = await space.apart(self._load_part, chunk, space, None, True)
                if values is not None:
                    return Fetched(values, [])
            else:
                stored = await self._stored(chunk)
                if stored is not None:
                    return Fetched(stored, [], chunk)
        shape = tuple(stop - start for start, stop in self._whole(part))
        block = self._memory(shape, space)
        nothing = np.asarray(self.fill_value, self.array.dtype)
        missing: list[Chunk] = []

        def put(values: NDArray[Any] | None, chunk: Chunk) -> None:
            place = block[chunk.where]
            if values is None:
                missing.append(chunk)
                values = nothing
            if not _is_same(values, place):  # it was decoded there
                self._put(values, place)

        async def load(chunk: Chunk, space: Workspace = space) -> None:
            place = block[chunk.where]
            whole = place.shape == self._grid and place.flags.c_contiguous
            ready = place if whole and self.packing is None else None
            put(await self._load_part(chunk, space, ready), chunk)

        async def load_all() -> None:
            if space.threads > 1 and len(chunks) > 1:
                space.each(lambda chunk, space: buffers.here(load(chunk, space)), chunks)
            else:
                for chunk in chunks:
                    await load(chunk)

        async def decode(stored: NDArray[np.uint8] | None, chunk: Chunk) -> None:
            put(None if stored is None else await self._decode_part(stored, chunk), chunk)

        async def fetch(chunk: Chunk) -> None:
            await space.apart(decode, await self._stored(chunk), chunk)

        if single:  # it was asked for, and is not stored
            await space.apart(decode, None, chunks[0])
        elif local:
            await space.apart(load_all)
        else:
            await internals.each(fetch, chunks, self.layout.fetched)
        return Fetched(block, [f"chunk {self._key(chunk.place)}" for chunk in sorted(missing)])

    def _memory(self, shape: tuple[int, ...], space: Workspace) -> NDArray[Any]:
        """Memory for the numbers of a block."""
        return space.array(self.name, shape, self.dtype)

    def _put(self, stored: NDArray[Any], place: NDArray[Any]) -> None:
        """Put the numbers of a chunk into their place in a block."""
        if self.packing is None:
            place[...] = stored
        else:
            self.packing.unpack(np.broadcast_to(stored, place.shape), place)

    def _unpacked(self, stored: NDArray[Any], space: Workspace) -> NDArray[Any]:
        if self.packing is None:
            return stored
        block = self._memory(stored.shape, space)
        self._put(stored, block)
        return block

    @contextmanager
    def _reading(self, chunk: Chunk) -> Iterator[None]:
        """Name a chunk that cannot be read."""
        try:
            yield
        except Exception as error:
            what = f"chunk {self._key(chunk.place)}"
            raise self._unreadable(what, error) from secrets.cause(error)

    async def _stored(self, chunk: Chunk) -> NDArray[np.uint8] | None:
        """The bytes of a chunk that is far away; None: it is not stored."""
        with self._reading(chunk):
            return await internals.fetch(self.array, self._key(chunk.place))

    async def _decode_part(self, stored: NDArray[np.uint8], chunk: Chunk) -> NDArray[Any]:
        """The part of a chunk that a block needs."""
        with self._reading(chunk):
            return (await self._decode(stored))[chunk.inside]

    async def _load_part(
        self,
        chunk: Chunk,
        space: Workspace,
        ready: NDArray[Any] | None,
        alone: bool = False,
    ) -> NDArray[Any] | None:
        """The same of a chunk on a disk; None: it is not stored.

        ready: memory of a whole chunk, where it may be decoded; None: the workspace lends some.
        """
        with self._reading(chunk):
            values = await self._load(self._key(chunk.place), space, ready, alone)
            return None if values is None else values[chunk.inside]

    async def _load(
        self, key: str, space: Workspace, ready: NDArray[Any] | None, alone: bool
    ) -> NDArray[Any] | None:
        layout, path = self.layout, self.array.store.root / self.array.path / key
        name, sizes = self.name, (layout.stored_bytes, layout.largest_stored)
        if layout.in_place or not alone:
            name = "shared"
        place = None if ready is None else ready.reshape(-1).view(np.uint8)
        stored = space.load(name, path, *sizes, place if self._is_raw else None)
        if stored is None:
            return None
        if layout.in_place:
            memory = place
            if memory is None:
                memory = space.bytes(self.name if alone else "decoded", layout.chunk_bytes)
            values = decode.into(memory, self.array, stored)
            if values is not None:
                return values
        return await self._decode(stored)

    async def _decode(self, stored: NDArray[np.uint8]) -> NDArray[Any]:
        if self._is_raw:  # zarr's way takes 90 µs
            decode.refuse_size(self.array, stored)
            return stored.view(self.array.dtype).reshape(self.array.chunks)
        decode.refuse_false(self.array, stored)
        inflated = decode.inflated(self.array, stored)
        if inflated is None:
            return await self._codecs.decode(stored)
        if decode.holds_numbers(self.array):
            decode.refuse_size(self.array, inflated)
        return await self._codecs_but_compressors.decode(inflated)

    @cached_property
    def _is_raw(self) -> bool:
        return decode.is_raw(self.array)

    @cached_property
    def _codecs(self) -> internals.Codecs:
        return internals.Codecs(self.array)

    @cached_property
    def _codecs_but_compressors(self) -> internals.Codecs:
        return internals.Codecs(internals.uncompressed(self.array))

    async def _read_shards(self, part: Block, _: Workspace) -> Fetched:
        region = tuple(slice(*r) for r in self._whole(part))
        try:
            values = await internals.read(self.array, region)
            return Fetched(values, await self._missing_in_shards(part, values))
        except Exception as error:
            shards = (self._key(shard.place) for shard in self._chunks(part, self.array.shards))
            raise self._unreadable(f"shard {' or '.join(shards)}", error) from secrets.cause(error)

    def _unreadable(self, what: str, error: Exception) -> OSError:
        return OSError(
            f"cannot read {what} of {self.name} ({self.location}): {secrets.told(error)}"
        )

    async def _missing_in_shards(self, part: Block, values: NDArray[Any]) -> list[str]:
        """Name the chunks that shards leave out: asking is dear, looking at a number is not."""
        missing = []
        for chunk in self._chunks(part, self._grid):
            found, fill = values[tuple(s.start for s in chunk.where)], self.fill_value
            like_fill = found == fill or (found != found and fill != fill)
            if like_fill and not await self._is_in_shard(chunk):
                starts = (i * c for i, c in zip(chunk.place, self._grid, strict=True))
                shard = (i // s for i, s in zip(starts, self.array.shards, strict=True))
                missing.append(f"chunk {chunk.place} in shard {self._key(tuple(shard))}")
        return missing

    async def _is_in_shard(self, chunk: Chunk) -> bool:
        """Whether it reads as another fill value, were the metadata to say so."""
        array = self.array
        other = array.dtype.type(0 if array.fill_value else 1)
        twin = internals.filled_otherwise(array, other)
        axes = zip(chunk.place, self._grid, chunk.inside, strict=True)
        first = (i * c + inside.start for i, c, inside in axes)  # which is like the fill value
        found = await internals.read(twin, tuple(slice(i, i + 1) for i in first))
        return bool((found != other).all())

    @property
    def _grid(self) -> tuple[int, ...]:
        """Shape of a chunk, as it stands in the store."""
        return self.layout.stored(self.layout.chunks)

    def _whole(self, part: Block) -> Block:
        """A part of the batch, with what is within its systems, as it stands in the store."""
        core = [(0, n) for n in self.layout.core_shape] if self.rows is None else [self.rows]
        return self.layout.stored((*part, *core))

    def _chunks(self, part: Block, size: tuple[int, ...]) -> Iterator[Chunk]:
        """The pieces of a grid of cells of this size that lie under `part`."""
        axes = []
        for (start, stop), c in zip(self._whole(part), size, strict=True):
            cells = []
            for i in range(start // c, -(-stop // c)):
                first, last = max(start, i * c), min(stop, (i + 1) * c)
                inside = slice(first - i * c, last - i * c)
                cells.append((i, inside, slice(first - start, last - start)))
            axes.append(cells)
        for cell in product(*axes):
            yield Chunk(*zip(*cell, strict=True)) if cell else Chunk((), (), ())


def _is_same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two arrays are the same numbers in the same memory."""
    found = [(v.ctypes.data, v.shape, v.strides, v.dtype) for v in (one, other)]
    return found[0] == found[1]
