"""What the blocks of a zarr job need, and what the job will do: two records."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dask.utils import format_bytes

from dasksolve.errors import counted
from dasksolve.storage.layout import Block, Layout

OVERHEAD = 12 << 20
"""Bytes that the schedulers, the stores and the allocator's leftovers take in a process."""
LOADING = 56 << 20
"""Bytes that a compiled kernel takes, once in a process: 50 to 54 MiB measured, numba included."""
COMPILING = 136 << 20
"""Bytes that compiling it takes: 65 to 134 MiB measured, LLVM included."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the blocks of a job read and write."""

    batch_shape: tuple[int, ...]
    """Shape of the whole batch."""
    layouts: tuple[Layout, ...]
    """Layouts of the inputs; blocks follow the chunks of the first that has a dimension."""
    names: tuple[str, ...]
    """Names of the inputs."""
    answer_bytes: int
    """Bytes of the answers of a system, but for a few."""
    beside_bytes: int
    """Bytes of what else is written of a system: a few."""
    beside_copies: int = 3
    """How often that is in memory while it is written."""
    working: int = 0
    """Bytes that each thread works with, whatever the size of a block."""
    state_bytes: int = 0
    """Bytes of what is kept of a series where observations come a part after the other; 0: none."""
    unit: str = "systems"
    """What the batch consists of."""
    divisible: bool = False
    """Several threads can work on a block."""
    aligned: bool = False
    """Chunks of a block can be worked on one after the other: those of all inputs lie alike."""

    @property
    def systems(self) -> int:
        """How many there are."""
        return math.prod(self.batch_shape)

    @property
    def system_bytes(self) -> int:
        """Bytes of what a system is made of, as numbers."""
        return sum(layout.system_bytes for layout in self.layouts)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a zarr job will do."""

    batch_shape: tuple[int, ...]
    """Shape of the whole batch."""
    block_shape: tuple[int, ...]
    """Shape of a block: systems solved by one task, stored as one chunk of x and of status."""
    workers: int
    """Blocks that are solved at once, in a process."""
    in_hand: int
    """Blocks in hand at once: more where the others wait for a store that is far away."""
    block_memory: int
    """Bytes that one block needs while it is in hand."""
    memory: int
    """Bytes that the job adds to a process, at most."""
    memory_limit: int
    """Bytes that it may add."""
    base_memory: int
    """Bytes that it takes besides its blocks."""
    together: int
    """Blocks that one task works off: more where a scheduler could not keep all workers busy."""
    amplification: float
    """How often each byte of the first input is read: more than once where chunks split systems."""
    first: str = "a"
    """What the first input is called."""
    unit: str = "systems"
    """What the batch consists of."""
    rows: int = 0
    """Observations of a block that are in memory at once, all of them twice; 0: all, once."""
    threads: int = 1
    """Threads that work on a block together."""

    @property
    def compiles_apart(self) -> bool:
        """Whether a kernel is compiled by another process, since there is no room in this one."""
        return self.base_memory < OVERHEAD + COMPILING

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of blocks along each batch dimension."""
        return tuple(-(-n // c) for n, c in zip(self.batch_shape, self.block_shape, strict=True))

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return math.prod(self.grid)

    def place(self, number: int) -> tuple[int, ...]:
        """The place of one block in the grid."""
        places = []
        for cells in reversed(self.grid):
            number, place = divmod(number, cells)
            places.append(place)
        return tuple(reversed(places))

    def block(self, number: int) -> Block:
        """What one block takes of the batch."""
        axes = zip(self.place(number), self.batch_shape, self.block_shape, strict=True)
        return tuple((i * step, min((i + 1) * step, length)) for i, length, step in axes)

    def windows(self, size: int) -> Iterator[range]:
        """Consecutive block numbers, at most `size` at a time."""
        for first in range(0, self.blocks, size):
            yield range(first, min(first + size, self.blocks))

    def __str__(self) -> str:
        systems = counted(math.prod(self.batch_shape), self.unit)
        lines = [
            f"{systems} in {counted(self.blocks, 'blocks')} of {self.block_shape}",
            f"{min(self.workers, self.blocks)} at a time, {format_bytes(self.block_memory)} each"
            + (f", {self.threads} threads to each" if self.threads > 1 else "")
            + (f", {self.together} a task" if self.together > 1 else "")
            + (f", {self.in_hand} in hand" if self.in_hand > self.workers else ""),
            f"at most {format_bytes(self.memory)} of memory, of a limit of "
            f"{format_bytes(self.memory_limit)}",
        ]
        if self.amplification > 1:
            lines.append(f"every byte of {self.first} is read {self.amplification:g} times")
        return "\n".join(lines)
