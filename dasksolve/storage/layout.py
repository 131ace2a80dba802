"""How an array lies in its store, and what its parts take to read: integers in, integers out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

T = TypeVar("T")
Block = tuple[tuple[int, int], ...]
"""First and past-the-last index along each batch dimension."""


class Held(NamedTuple):
    """Bytes of memory for one input of a block."""

    lasting: int
    """In buffers of its own that are used again."""
    shared: int
    """In a buffer that the inputs use in turn."""
    solving: int
    """Until it is solved."""
    reading: int
    """While it is read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one input lies in its store, its axes in another order: those of the batch first."""

    shape: tuple[int, ...]
    """Shape of the array."""
    chunks: tuple[int, ...]
    """Shape of the pieces that it is read in."""
    core: int
    """How many of its last axes are within a system: 2 for matrices, 1 for vectors."""
    itemsize: int
    """Bytes of an element, as it is stored."""
    location: str = ""
    """Its URL, or its absolute path: for messages."""
    sharded: bool = False
    """Several chunks share a file."""
    fetched: int = 1
    """Chunks that are on their way at once."""
    plain: bool = False
    """What is stored are the numbers themselves: to decode a chunk takes no memory."""
    in_place: bool = False
    """A chunk is decoded into memory that is there already."""
    unpacked: int = 0
    """Bytes of an element of packed data once it is a number to compute with; 0: it is one."""
    axis: int | None = None
    """Where the one axis within a system stands in the store; None: it is the last there, too."""

    def stored(self, axes: Sequence[T]) -> tuple[T, ...]:
        """What there is for each axis, in the order in which they stand in the store."""
        if self.axis is None:
            return tuple(axes)
        *batch, core = axes
        return (*batch[: self.axis], core, *batch[self.axis :])

    def turned(self, axes: Sequence[T]) -> tuple[T, ...]:
        """What there is for each axis of the store, in the order of this layout."""
        if self.axis is None:
            return tuple(axes)
        return (*axes[: self.axis], *axes[self.axis + 1 :], axes[self.axis])

    def with_rows(self, rows: int) -> "Layout":
        """How the first `rows` of what is within its systems lie; 0: all."""
        return replace(self, shape=(*self.shape[:-1], rows)) if rows else self

    @property
    def batch(self) -> int:
        """Number of its batch dimensions."""
        return len(self.shape) - self.core

    @property
    def core_shape(self) -> tuple[int, ...]:
        """Shape of one system's part."""
        return self.shape[self.batch :]

    @property
    def system_bytes(self) -> int:
        """Bytes of one system's part, as numbers."""
        return math.prod(self.core_shape) * (self.unpacked or self.itemsize)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk, decoded."""
        return math.prod(self.chunks) * self.itemsize

    @property
    def whole_systems(self) -> bool:
        """Whether a chunk holds its systems whole."""
        return all(c >= s for c, s in zip(self.chunks[self.batch :], self.core_shape, strict=True))

    def part(self, block: Block) -> Block:
        """The part of its own batch dimensions that a block of the whole batch needs."""
        own = self.shape[: self.batch]
        ranges = block[len(block) - self.batch :]
        return tuple((0, 1) if n == 1 else r for r, n in zip(ranges, own, strict=True))

    @property
    def stored_bytes(self) -> int:
        """Bytes of a chunk as it is stored, at most: numbers that cannot be compressed, framed."""
        return self.chunk_bytes + self.chunk_bytes // 128 + 64

    @property
    def largest_stored(self) -> int:
        """Bytes of a file beyond which it is no chunk, even if a filter made its numbers wider."""
        return 2 * self.chunk_bytes + (1 << 16)

    def touched(self, block: Block) -> int:
        """How many chunks are read for a block."""
        axes = zip(self._ranges(block), self.chunks, strict=True)
        return math.prod(-(-stop // c) - start // c for (start, stop), c in axes)

    def read_bytes(self, block: Block) -> int:
        """Bytes of the chunks read for a block, decoded, without what is beyond the edge."""
        axes = zip(self._ranges(block), self.chunks, self.shape, strict=True)
        return self.itemsize * math.prod(
            min(-(-stop // c) * c, n) - start // c * c for (start, stop), c, n in axes
        )

    def _ranges(self, block: Block) -> Block:
        return (*self.part(block), *((0, n) for n in self.core_shape))

    def needed_bytes(self, block: Block) -> int:
        """Bytes of what a block needs of them, decoded."""
        return self._systems(block) * math.prod(self.core_shape) * self.itemsize

    def _systems(self, block: Block) -> int:
        return math.prod(stop - start for start, stop in self.part(block))

    def memory(self, block: Block) -> Held:
        """What a block takes of memory for this array."""
        touched = self.touched(block)
        whole = self._systems(block) * self.system_bytes
        at_once = min(touched, self.fetched)
        stored, decoded = at_once * self.stored_bytes, at_once * self.chunk_bytes
        if self.sharded:  # zarr holds a shard's part as stored, as decoded and as assembled
            if self.unpacked:
                return Held(whole, 0, 0, 3 * self.needed_bytes(block) + decoded)
            return Held(0, 0, whole, 2 * whole + decoded)
        if touched == 1 and not self.unpacked:  # the chunk itself is the block
            if self.in_place:
                return Held(decoded, stored, 0, 0)
            return Held(stored, 0, 0 if self.plain else decoded, 0)
        if self.in_place:
            return Held(whole, stored + decoded, 0, 0)
        return Held(whole, stored, 0, 0 if self.plain else decoded)

    def amplification(self, block_shape: tuple[int, ...]) -> float:
        """How often each byte is read, for blocks that are parts of a chunk."""
        own = block_shape[len(block_shape) - self.batch :]
        axes = zip(own, self.chunks[: self.batch], self.shape[: self.batch], strict=True)
        return math.prod(-(-min(c, n) // b) if n > 1 else 1 for b, c, n in axes)
