"""How a zarr job is cut into blocks that fit in memory: integers in, a `Plan` out."""

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from dask.utils import format_bytes

from dasksolve.job.plan import COMPILING, LOADING, OVERHEAD, Needs, Plan
from dasksolve.storage.layout import Block, Layout

# Bytes of a block: a larger buffer costs a page fault a page on each allocation, a smaller one is
# not worth its task. In between, enough blocks that no worker is long idle at the end.
_LARGE, _SMALL = 16 << 20, 1 << 20
_BLOCKS_A_WORKER = 8
_IN_PIECES = 64 << 20  # bytes of a block whose chunks are never in memory together
_FEW = 4  # blocks for each worker: with fewer, several threads work on each
_ALONE = 4  # threads for one block alone: its parts that one thread does are not worth more
_PACE = 1 << 10  # bytes that a worker reads and solves in a microsecond, if it is fast
_IN_HAND = 256  # blocks, where a request is waited for: two open connections each
_ROWS = 32  # observations at once, where a state has to be read and written for each of them
_FILES = 2000  # microseconds that it takes to open, create and rename the files of a block


def make_plan(
    needs: Needs,
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
    unit, threads = block_shape or _unit(needs), workers
    workers = max(1, min(workers, _count(needs, unit)))
    counts = [workers] if fixed_workers else list(range(workers, 0, -1))
    cut = _cut(needs, unit, memory_limit - base, counts, block_shape is not None)
    if cut is None:
        raise ValueError(_too_small(needs, unit, memory_limit, base, counts[-1]))
    count, budget, shape, rows = cut
    in_hand = count
    if far:
        in_hand = _in_hand(needs, cut, memory_limit, processes)
        budget = min(budget, max(memory_limit - OVERHEAD - COMPILING, 0) // in_hand) or budget
    if block_shape is None and not rows:
        shape = _grow(needs, shape, budget, in_hand * processes)
    if not (far or fixed_workers or rows) and _one_by_one(needs, shape, threads):
        count = in_hand = 1
    threads = _threads(needs, shape, threads, count, processes)
    while threads > 1 and base + in_hand * block_memory(needs, shape, rows, threads) > memory_limit:
        threads -= 1
    each = block_memory(needs, shape, rows, threads)
    if OVERHEAD + COMPILING + in_hand * each <= memory_limit:
        base = OVERHEAD + COMPILING
    together = _together(needs, shape, task_cost, count * processes)
    if task_cost and in_hand > count:  # a task waits for its last blocks alone
        share, at_once = -(-_count(needs, shape) // (count * processes)), in_hand // count
        together = max(together, share if share <= at_once else min(8 * at_once, -(-share // 2)))
    return Plan(
        batch_shape=needs.batch_shape,
        block_shape=shape,
        workers=count,
        in_hand=in_hand,
        block_memory=each,
        memory=base + in_hand * each,
        memory_limit=memory_limit,
        base_memory=base,
        together=together,
        amplification=_reads(needs, shape, rows),
        first=needs.names[0],
        unit=needs.unit,
        rows=rows,
        threads=threads,
    )


class _Cut(NamedTuple):
    """Blocks of a shape that fit in memory, and how many of them at once."""

    workers: int
    budget: int
    """Bytes that each may take."""
    shape: tuple[int, ...]
    rows: int
    """As in `Plan`."""


def _cut(
    needs: Needs, unit: tuple[int, ...], memory: int, counts: list[int], fixed: bool
) -> _Cut | None:
    """The first number of workers whose blocks fit; None: no block does.

    Where observations can come a part after the other, fewer blocks at once are larger, and read
    what is chunked once, or twice, not again and again.
    """
    found = []
    for count in counts:
        budget = memory // count
        for rows in (0, *_rows(needs)):
            shape = unit
            if not fixed and not needs.layouts[0].whole_systems:
                shape = _shrink(needs, unit, budget, rows)
            if block_memory(needs, shape, rows) <= budget:
                found.append(_Cut(count, budget, shape, rows))
        if found and not needs.state_bytes:
            break
    if not found:
        return None
    return min(found, key=lambda cut: _reads(needs, cut.shape, cut.rows))


def _reads(needs: Needs, block_shape: tuple[int, ...], rows: int) -> float:
    """How often each byte of the first input is read."""
    return needs.layouts[0].amplification(block_shape) * (2 if rows else 1)


def _rows(needs: Needs) -> list[int]:
    """How many observations may be in memory at once: whole chunks, of all some."""
    if not needs.state_bytes or needs.layouts[0].whole_systems:
        return []
    [observations], chunk = needs.layouts[0].core_shape, needs.layouts[0].chunks[-1]
    several = max(chunk, _ROWS // chunk * chunk)
    return [rows for rows in dict.fromkeys((several, chunk)) if rows < observations]


def _shrink(needs: Needs, unit: tuple[int, ...], budget: int, rows: int) -> tuple[int, ...]:
    """Divide a chunk evenly, the leading axes first, until it fits or is one system."""
    shape = list(unit)
    for axis in range(len(shape)):
        full, parts = shape[axis], 1
        while shape[axis] > 1 and block_memory(needs, tuple(shape), rows) > budget:
            parts += 1
            shape[axis] = -(-full // parts)
    return tuple(shape)


def _grow(needs: Needs, unit: tuple[int, ...], budget: int, parallel: int) -> tuple[int, ...]:
    """Join chunks, the last axis first, while the block stays within the target and the budget."""
    shape = list(unit)
    system = needs.system_bytes
    share = needs.systems * system // (parallel * _BLOCKS_A_WORKER)
    in_pieces = needs.aligned and math.prod(unit) * system >= _SMALL
    target = min(max(share, _SMALL), _IN_PIECES if in_pieces else _LARGE)

    def fits(axis: int, cells: int) -> bool:
        tried = (*shape[:axis], cells * unit[axis], *shape[axis + 1 :])
        small = math.prod(tried) * system <= target
        return small and block_memory(needs, tried) <= budget

    for axis in reversed(range(len(shape))):
        length = needs.batch_shape[axis]
        low, high = 1, max(1, -(-length // unit[axis]))
        while low < high:  # the largest number of chunks that fits
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(axis, middle) else (low, middle - 1)
        shape[axis] = max(1, min(low * unit[axis], length))
        if shape[axis] < length:
            break
    return tuple(shape)


def _in_hand(
    needs: Needs,
    cut: _Cut,
    memory_limit: int,
    processes: int,
) -> int:
    """Blocks in hand at once where requests are waited for: as many as the memory holds."""
    held = (memory_limit - OVERHEAD - COMPILING) // block_memory(needs, cut.shape, cut.rows)
    share = -(-_count(needs, cut.shape) // processes)
    return max(cut.workers, min(_IN_HAND, share, held) // cut.workers * cut.workers)


def _one_by_one(needs: Needs, block_shape: tuple[int, ...], threads: int) -> bool:
    """Whether all threads are to work on one block after the other, and none waits at the end.

    Of a few blocks of many chunks each: in three blocks of int16, a chunk a time step, two threads
    took 0.9 of the time, since they fault in the memory of one block, not of two.
    """
    few = _count(needs, block_shape) < _FEW * threads
    chunks = needs.layouts[0].touched(_origin(_piece(needs, block_shape)))
    return needs.divisible and 1 < threads <= _ALONE and few and chunks >= _FEW * threads


def _threads(
    needs: Needs, block_shape: tuple[int, ...], workers: int, at_once: int, processes: int
) -> int:
    """How many threads are to work on a block, of which some are in hand at once.

    Where they are few, twice as many as there are workers: they do not all end together.
    """
    if not needs.divisible:
        return 1
    few = _count(needs, block_shape) < _FEW * workers * processes
    return min(workers, -(-workers * (2 if few else 1) // at_once))


def _together(needs: Needs, block_shape: tuple[int, ...], cost: int, parallel: int) -> int:
    """Blocks in a task: it lasts until the scheduler has served all workers, or 40 times itself.

    tests/benchmarks/cluster_simulation.py: 0.2 % are lost then; with half of it, 100 %.
    """
    block = _FILES + math.prod(block_shape) * needs.system_bytes // _PACE
    count = _count(needs, block_shape)
    enough = -(-cost * max(parallel, 40) // block)
    if enough <= 1:
        return 1
    # In whole rounds of all workers: of 19 tasks one of two took ten, and the other had none left.
    rounds = max(_BLOCKS_A_WORKER, count // (parallel * enough))
    return max(1, min(-(-count // (parallel * rounds)), count // (parallel * _BLOCKS_A_WORKER)))


def _too_small(
    needs: Needs,
    unit: tuple[int, ...],
    memory_limit: int,
    base: int,
    workers: int,
) -> str:
    each = block_memory(needs, unit)
    need = base + workers * each
    inputs = list(zip(needs.names, needs.layouts, strict=True))
    start = f"memory_limit={format_bytes(memory_limit)} is too small: "
    in_all = f"{-(-need >> 20)} MiB in all"  # rounded up: who gives it as the limit is not refused
    if memory_limit < base:
        return start + f"a job needs {format_bytes(base)}, whatever its chunks; this one {in_all}"
    sizes = ", ".join(f"{format_bytes(layout.chunk_bytes)} of {name}" for name, layout in inputs)
    start += (
        f"a block of one stored chunk ({sizes}) needs "
        f"{format_bytes(each)}, {workers} at a time, and the job itself "
        f"{format_bytes(base)}, its kernel included: {in_all}. Raise the limit"
    )
    name, large = max(inputs, key=lambda pair: pair[1].chunk_bytes)
    room = (memory_limit - base) // workers - needs.working
    smaller = _smaller(large, (each - needs.working) / room) if room > 0 else None
    if smaller is None:
        return start
    return start + (
        f", or store {name} in smaller chunks: "
        f'dask.array.from_zarr("{large.location}").rechunk({large.stored(smaller)}).to_zarr(…), '
        "which leaves out chunks of zeros (strict=False)"
    )


def _smaller(layout: Layout, times: float) -> tuple[int, ...] | None:
    """Chunks of so many times less, and an eighth at most; None: they cannot be."""
    parts, chunks = max(8, math.ceil(1.2 * times)), list(layout.chunks)
    for axis in sorted(range(layout.batch), key=lambda i: -chunks[i]):
        cut = min(parts, chunks[axis])
        chunks[axis], parts = chunks[axis] // max(1, cut), -(-parts // max(1, cut))
    return tuple(chunks) if times * math.prod(chunks) <= math.prod(layout.chunks) else None


def block_memory(
    needs: Needs, block_shape: tuple[int, ...], rows: int = 0, threads: int = 1
) -> int:
    """Bytes that a block needs at its worst moment: reading, solving or writing.

    rows, threads: as in `Plan`.
    """
    piece = block_shape if rows else _piece(needs, block_shape)
    inputs = [layout.with_rows(rows).memory(_origin(piece)) for layout in needs.layouts]
    systems = math.prod(block_shape)
    answers, beside = systems * needs.answer_bytes, systems * needs.beside_bytes
    solving = sum(v.solving for v in inputs) + max(answers, *(v.reading for v in inputs))
    if piece != block_shape:  # its answers are put among those of the block
        solving += math.prod(piece) * (needs.answer_bytes + needs.beside_bytes)
    # Answers are written as solved, as encoded and as checked, once the inputs are gone.
    buffers = sum(v.lasting for v in inputs) + threads * max(v.shared for v in inputs)
    state = systems * needs.state_bytes if rows else 0
    return (
        buffers
        + max(solving + beside + state, 3 * answers + needs.beside_copies * beside)
        + threads * needs.working
    )


def portions(needs: Needs, block: Block) -> Iterator[Block]:
    """The parts of a block that are in memory one after the other: chunks that are large enough."""
    steps = _piece(needs, tuple(stop - start for start, stop in block))
    axes = [
        [(i, min(i + step, stop)) for i in range(start, stop, step)]
        for (start, stop), step in zip(block, steps, strict=True)
    ]
    yield from product(*axes)


def _piece(needs: Needs, block_shape: tuple[int, ...]) -> tuple[int, ...]:
    unit = _unit(needs)
    if not needs.aligned or math.prod(unit) * needs.system_bytes < _SMALL:
        return block_shape
    return tuple(map(min, unit, block_shape))


def _origin(block_shape: tuple[int, ...]) -> Block:
    """The first block of a shape."""
    return tuple((0, n) for n in block_shape)


def _count(needs: Needs, block_shape: tuple[int, ...]) -> int:
    cells = zip(needs.batch_shape, block_shape, strict=True)
    return math.prod(-(-length // step) for length, step in cells)


def _unit(needs: Needs) -> tuple[int, ...]:
    """The chunk grid along the batch: of the first input that has the dimension."""
    unit = []
    for axis, length in zip(range(-len(needs.batch_shape), 0), needs.batch_shape, strict=True):
        followed = next(
            v for v in needs.layouts if v.batch >= -axis and v.shape[v.batch + axis] == length
        )
        unit.append(max(1, min(length, followed.chunks[followed.batch + axis])))
    return tuple(unit)
