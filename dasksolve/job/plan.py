"""How a zarr job is cut into blocks that fit in memory: integers in, a record out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dask.utils import format_bytes

from dasksolve.batch.problem import Problem
from dasksolve.storage.layout import Block, Layout

OVERHEAD = 12 << 20
"""Bytes that the schedulers, the stores and the allocator's leftovers take in a process."""
LOADING = 56 << 20
"""Bytes that a compiled kernel takes, once in a process: 50 to 54 MiB measured, numba included."""
COMPILING = 136 << 20
"""Bytes that compiling it takes: 65 to 134 MiB measured, LLVM included."""
_LARGE, _SMALL = 16 << 20, 1 << 20
# Bytes of a block: a larger buffer costs a page fault a page on each allocation, a smaller one is
# not worth its task. In between, enough blocks that no worker is long idle at the end.
_BLOCKS_A_WORKER = 8
_BESIDE_X = 17  # bytes of a system's status and, perhaps, two diagnostics
_PACE = 1 << 10  # bytes that a worker reads and solves in a microsecond, if it is fast
_IN_HAND = 64  # blocks, where a request is waited for: more gain nothing, and each takes a thread
_FILES = 2000  # microseconds that it takes to open, create and rename the files of a block


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
    """How often each byte of a is read; more than 1 where its systems are chunked themselves."""

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

    def block(self, number: int) -> Block:
        """The place of one block in the batch."""
        places = []
        for cells, length, step in zip(
            reversed(self.grid), reversed(self.batch_shape), reversed(self.block_shape), strict=True
        ):
            number, place = divmod(number, cells)
            places.append((place * step, min((place + 1) * step, length)))
        return tuple(reversed(places))

    def windows(self, size: int) -> Iterator[range]:
        """Consecutive block numbers, at most `size` at a time."""
        for first in range(0, self.blocks, size):
            yield range(first, min(first + size, self.blocks))

    def __str__(self) -> str:
        systems = math.prod(self.batch_shape)
        lines = [
            f"{systems:,} systems in {self.blocks:,} blocks of {self.block_shape}",
            f"{self.workers} at a time, {format_bytes(self.block_memory)} each"
            + (f", {self.together} a task" if self.together > 1 else "")
            + (f", {self.in_hand} in hand" if self.in_hand > self.workers else ""),
            f"at most {format_bytes(self.memory)} of memory, of a limit of "
            f"{format_bytes(self.memory_limit)}",
        ]
        if self.amplification > 1:
            lines.append(f"every byte of a is read {self.amplification:g} times")
        return "\n".join(lines)


def make_plan(
    problem: Problem,
    a: Layout,
    b: Layout,
    *,
    memory_limit: int,
    workers: int,
    processes: int = 1,
    task_cost: int = 0,
    fixed_workers: bool = False,
    far: bool = False,
    cached: bool = True,
    block_shape: tuple[int, ...] | None = None,
) -> Plan:
    """Choose the largest blocks, up to 16 MiB, that the limit holds, or refuse the limit.

    `workers`: blocks solved at once, in each of `processes`.
    `task_cost`: microseconds that the scheduler, which serves one at a time, takes for a task.
    `fixed_workers`: the number of blocks in hand at once is not ours to lower.
    `far`: a request to one of the stores is waited for.
    `cached`: a kernel that another process compiled can be had from the disk.
    `block_shape`: the blocks are cut already.
    """
    base = OVERHEAD + (LOADING if cached else COMPILING)
    unit = block_shape or _unit(problem, a, b)
    workers = max(1, min(workers, _count(problem, unit)))
    for count in [workers] if fixed_workers else range(workers, 0, -1):
        budget = (memory_limit - base) // count
        shape = unit
        if block_shape is None and not a.whole_systems:
            shape = _shrink(problem, a, b, unit, budget)
        if block_memory(problem, a, b, shape) > budget:
            continue
        in_hand = count
        if far:
            in_hand = _in_hand(problem, a, b, shape, memory_limit, count, processes)
            budget = min(budget, max(memory_limit - OVERHEAD - COMPILING, 0) // in_hand) or budget
        if block_shape is None:
            shape = _grow(problem, a, b, shape, budget, in_hand * processes)
        each = block_memory(problem, a, b, shape)
        if OVERHEAD + COMPILING + in_hand * each <= memory_limit:
            base = OVERHEAD + COMPILING
        together = _together(problem, a, b, shape, task_cost, count * processes)
        if task_cost and in_hand > count:  # a task holds as many as are to be in hand, and more
            blocks = _count(problem, shape) // (2 * count * processes)
            together = max(together, min(4 * (in_hand // count), blocks), 1)
        return Plan(
            batch_shape=problem.batch_shape,
            block_shape=shape,
            workers=count,
            in_hand=in_hand,
            block_memory=each,
            memory=base + in_hand * each,
            memory_limit=memory_limit,
            base_memory=base,
            together=together,
            amplification=a.amplification(shape),
        )
    count = workers if fixed_workers else 1
    raise ValueError(_too_small(problem, a, b, unit, memory_limit, base, count))


def _in_hand(
    problem: Problem,
    a: Layout,
    b: Layout,
    block_shape: tuple[int, ...],
    memory_limit: int,
    workers: int,
    processes: int,
) -> int:
    """Blocks in hand at once where requests are waited for: as many as the memory holds."""
    held = (memory_limit - OVERHEAD - COMPILING) // block_memory(problem, a, b, block_shape)
    share = -(-_count(problem, block_shape) // processes)
    return max(workers, min(_IN_HAND, share, held) // workers * workers)


def block_memory(problem: Problem, a: Layout, b: Layout, block_shape: tuple[int, ...]) -> int:
    """Bytes that a block needs at its worst moment: reading a, reading b, or writing x."""
    block = tuple((0, n) for n in block_shape)
    inputs = a.memory(block), b.memory(block)
    systems = math.prod(block_shape)
    x = systems * problem.n * problem.k * problem.dtype.itemsize
    solving = sum(v.solving for v in inputs) + max(x, *(v.reading for v in inputs))
    beside = _BESIDE_X * systems
    # Answers are written as solved, as encoded and as checked, once the inputs are gone.
    buffers = sum(v.lasting for v in inputs) + max(v.shared for v in inputs)
    return buffers + max(solving + beside, 3 * (x + beside))


def _count(problem: Problem, block_shape: tuple[int, ...]) -> int:
    cells = zip(problem.batch_shape, block_shape, strict=True)
    return math.prod(-(-length // step) for length, step in cells)


def _unit(problem: Problem, a: Layout, b: Layout) -> tuple[int, ...]:
    """The chunk grid along the batch: a's, or b's where a broadcasts."""
    unit = []
    for axis, length in zip(range(-len(problem.batch_shape), 0), problem.batch_shape, strict=True):
        followed = next(v for v in (a, b) if v.batch >= -axis and v.shape[v.batch + axis] == length)
        unit.append(max(1, min(length, followed.chunks[followed.batch + axis])))
    return tuple(unit)


def _shrink(
    problem: Problem, a: Layout, b: Layout, unit: tuple[int, ...], budget: int
) -> tuple[int, ...]:
    """Divide a chunk evenly, the leading axes first, until it fits or is one system."""
    shape = list(unit)
    for axis in range(len(shape)):
        full, parts = shape[axis], 1
        while shape[axis] > 1 and block_memory(problem, a, b, tuple(shape)) > budget:
            parts += 1
            shape[axis] = -(-full // parts)
    return tuple(shape)


def _grow(
    problem: Problem, a: Layout, b: Layout, unit: tuple[int, ...], budget: int, parallel: int
) -> tuple[int, ...]:
    """Join chunks, the last axis first, while the block stays within the target and the budget."""
    shape = list(unit)
    system = a.system_bytes + b.system_bytes
    share = problem.systems * system // (parallel * _BLOCKS_A_WORKER)
    target = min(max(share, _SMALL), _LARGE)

    def fits(axis: int, cells: int) -> bool:
        tried = (*shape[:axis], cells * unit[axis], *shape[axis + 1 :])
        small = math.prod(tried) * system <= target
        return small and block_memory(problem, a, b, tried) <= budget

    for axis in reversed(range(len(shape))):
        length = problem.batch_shape[axis]
        low, high = 1, max(1, -(-length // unit[axis]))
        while low < high:  # the largest number of chunks that fits
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(axis, middle) else (low, middle - 1)
        shape[axis] = max(1, min(low * unit[axis], length))
        if shape[axis] < length:
            break
    return tuple(shape)


def _together(
    problem: Problem, a: Layout, b: Layout, block_shape: tuple[int, ...], cost: int, parallel: int
) -> int:
    """Blocks in a task: it lasts until the scheduler has served all workers, or 40 times itself.

    tests/benchmarks/cluster_simulation.py: 0.2 % are lost then; with half of it, 100 %.
    """
    block = _FILES + math.prod(block_shape) * (a.system_bytes + b.system_bytes) // _PACE
    count = _count(problem, block_shape)
    enough = -(-cost * max(parallel, 40) // block)
    if enough <= 1:
        return 1
    # In whole rounds of all workers: of 19 tasks one of two took ten, and the other had none left.
    rounds = max(_BLOCKS_A_WORKER, count // (parallel * enough))
    return max(1, min(-(-count // (parallel * rounds)), count // (parallel * _BLOCKS_A_WORKER)))


def _too_small(
    problem: Problem,
    a: Layout,
    b: Layout,
    unit: tuple[int, ...],
    memory_limit: int,
    base: int,
    workers: int,
) -> str:
    each = block_memory(problem, a, b, unit)
    need = base + workers * each
    name, large = ("a", a) if a.chunk_bytes >= b.chunk_bytes else ("b", b)
    smaller = list(large.chunks)
    if large.batch:
        axis = max(range(large.batch), key=lambda i: large.chunks[i])
        smaller[axis] = max(1, smaller[axis] // 8)
    start = f"memory_limit={format_bytes(memory_limit)} is too small: "
    if memory_limit < base:
        return start + f"a job needs {format_bytes(base)}, whatever its chunks"
    start += (
        "a block of one stored chunk "
        f"({format_bytes(a.chunk_bytes)} of a, {format_bytes(b.chunk_bytes)} of b) needs "
        f"{format_bytes(each)}, {workers} at a time, and the job itself "
        f"{format_bytes(base)}, its kernel included: {format_bytes(need)} in all. "
        "Raise the limit, or "
    )
    if problem.systems == 1 and problem.k > problem.n:
        k, n = problem.k, problem.n
        return start + (
            f"store the {k:,} right-hand sides of the one matrix as vectors, b.T of shape ({k}, "
            f"{n}) chunked along the first axis, and a[None] of shape (1, {n}, {n}) beside them"
        )
    return start + (
        f"store {name} in smaller chunks: "
        f'dask.array.from_zarr("{large.location}").rechunk({tuple(smaller)}).to_zarr(…), which '
        "leaves out chunks of zeros (strict=False)"
    )
