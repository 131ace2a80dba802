"""Writes an output: prepares and creates it, then reads, solves and writes each block.

The way of a block, whoever has it done (`schedulers`, `tasks`, `blocks`):

1. `output.finished` believes in what an earlier run wrote of it, or does not.
2. `Work.fetched` asks for the chunks of the inputs under it, and waits for them.
3. `Work.decoded` makes numbers of them, `Work.answers` of those what each `Field` is to hold, and
   `_packed` encodes that: all in one thread, where others wait meanwhile.
4. `_put` writes the chunks; then, once they are durable, that of status, which is the journal.
5. `Job.result` is what is left of it, a few numbers, which `run_job` adds up.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.storage import LocalStore

from dasksolve import kernels
from dasksolve.batch.options import check_flags
from dasksolve.errors import advising
from dasksolve.job import creation, history, journal, output, presence, room
from dasksolve.job.cluster import Cluster
from dasksolve.job.job import Job, meet
from dasksolve.job.prepare import JobOptions, Prepared, prepare
from dasksolve.job.progress import Progress, closed, watcher
from dasksolve.job.report import Report
from dasksolve.job.run import run_job
from dasksolve.job.tally import BlockResult
from dasksolve.job.work import Solved, Work, whole_name
from dasksolve.storage import durable as disk
from dasksolve.storage import encode, internals, marks, stores
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.layout import Block
from dasksolve.storage.stores import OutputLocation

Encoded = NDArray[np.uint8] | Buffer
"""A chunk as it is stored."""


def write_output(
    open_work: Callable[[], Work], out: OutputLocation, what: str, options: JobOptions
) -> tuple[Job, Report]:
    """Prepare a job, create its output and do every block.

    open_work: as `prepare` takes it; what: the word beside the progress bar.
    """
    check_flags(strict=options.strict, durable=options.durable)
    watch = watcher(options.progress, what)
    with advising(), presence.begun() as token, closed(watch):
        return _write(token, prepare(open_work, out, options), watch)


def _write(token: str, prepared: Prepared, watch: Progress | None) -> tuple[Job, Report]:
    scheduler, store, location = prepared.scheduler, prepared.store, prepared.location
    inputs = [source.array for source in prepared.work.sources]
    advice = (
        "what is done is kept, and resume=True (--resume) tries again what is not done or cannot "
        "be read"
    )
    with (
        marks.claimed(store, location) as locked,
        scheduler.marking(store, token, locked) as own,
        internals.Helpers(1) as pool,
    ):
        mark = own and own.key
        scheduler.everywhere(meet, token, inputs, store, mark, kernels.ARITHMETIC)
        meanwhile = None if isinstance(scheduler, Cluster) else pool
        created = creation.create(prepared, own, meanwhile)
        job = Job(
            token=token,
            task=prepared.work.task,
            work=prepared.work,
            plan=prepared.plan,
            location=location,
            arrays=created.arrays,
            strict=prepared.options.strict,
            durable=prepared.options.durable,
            resume=prepared.resumed,
            mark=mark,
            looks_from=scheduler.last_tasks(prepared.plan) if stores.is_far(store) else None,
            there=created.there,
        )
        with history.kept(created, watch) as follow:
            try:
                report = run_job(write_block, job, scheduler, follow, advice, created)
            finally:
                if isinstance(scheduler, Cluster):  # a killed worker left what it was writing
                    # Another job's is not ours; a lost store is told of.
                    with suppress(Exception), internals.hurried():
                        if mark is not None:
                            internals.run(marks.refuse_unmarked(store, mark))
                            created.seen.at = time.monotonic()  # no other has begun until now
                        marks.sweep(store, mark, journal.members(created.record))
    return job, report


async def write_block(job: Job, number: int, space: Workspace) -> BlockResult:
    """Read, solve and write one block; its status last, since that says that it is done."""
    try:
        if job.resume:
            found = await output.finished(job, number, space)
            if found is not None:
                systems = found["status"].size
                done = job.result(number, found, blocks_resumed=1, systems_resumed=systems)
                space.close()
                return done
        if job.here.refused:
            return BlockResult(number, begun=False)
        return await _write_solved(job, number, job.plan.block(number), space)
    except Exception as error:  # the other blocks go on
        return job.failed(number, error)


async def _write_solved(job: Job, number: int, block: Block, space: Workspace) -> BlockResult:
    work = job.work
    if job.resume:  # who resumes may not be who began
        _refuse_unwritable(job, number)
    then = partial(_packed, job, number, block, space)
    with kernels.compiling_apart(job.plan.compiles_apart):
        packed = await work.solved(block, job.plan.rows, job.strict, space, then)
    await job.created()
    try:
        return await _put(job, number, packed, space)
    except OSError as error:
        if not room.is_lasting(error):
            raise
        job.here.refused = True
        return job.failed(number, error)._replace(refusal=error.errno)


async def _put(job: Job, number: int, packed: "_Packed", space: Workspace) -> BlockResult:
    """Write what was made of a block."""
    *others, status = packed.files
    await job.refuse_late()
    puts = [_put_file(*file) for file in others]
    if isinstance(job.store, LocalStore):
        await space.together(puts)
        if job.durable:
            await space.computed(_secure, job, number)
    else:
        await internals.together(*puts)
    await job.refuse_late()
    written = _put_file(*status)
    if job.looks(number):
        _, looked = await internals.together(written, output.looked(job))
        return packed.result._replace(looked=looked)
    await written
    if job.here.first_done is None:
        job.here.first_done = number
    return packed.result


async def _put_file(array: Any, name: str, content: bytes | Encoded) -> None:
    with stores.naming(array.store, "write", internals.key(array, name)):
        await internals.put(array, name, content)


def _refuse_unwritable(job: Job, number: int) -> None:
    """Refuse a block in a folder that may not be written to; most lie in that of the one before."""
    may_write = job.here.may_write
    for key in job.keys(number):
        array, folder = key.partition("/")[0], key.rpartition("/")[0]
        if may_write.get(array) != folder:
            stores.refuse_unwritable(job.store, key)
            may_write[array] = folder


class _Packed(NamedTuple):
    """A block as it is written."""

    files: list[tuple[Any, str, bytes | Encoded]]
    """Each with its array, and its name in that; status, which speaks of the others, is last."""
    result: BlockResult


async def _packed(job: Job, number: int, block: Block, space: Workspace, found: Solved) -> _Packed:
    names = [field.name for field in job.work.fields if found.arrays[field.name].size]
    encoded = await space.together([_encoded(job, name, found, space) for name in names])
    files: list[tuple[Any, str, bytes | Encoded]] = [
        (array, internals.name(array, place), chunk)
        for (array, place), chunk in zip(job.chunks(number), encoded, strict=True)
    ]
    if job.summed:  # of answers whose chunks have no checksum, by which they are known again
        sums = journal.checksum(found.arrays[name] for name in names if name in job.summed)
        files.insert(0, (job.status, journal.checksum_file(job.plan.place(number)), sums))
    read = job.work.read_for(block)
    counted = job.result(
        number,
        found.arrays,
        chunks_missing=found.missing,
        chunks_read=found.reads * read.chunks,
        chunks_written=len(encoded),
        solving=found.seconds,
        bytes_read=found.reads * read.bytes,
        bytes_needed=read.needed,
        bytes_written=sum(values.nbytes for values in found.arrays.values()),
    )
    return _Packed(files, counted)


async def _encoded(job: Job, name: str, found: Solved, space: Workspace) -> Encoded:
    """The answers of an array as they are stored; in the memory where they are, if that may be."""
    array, values = job.arrays[name], found.arrays[name]
    if name == "status" and not values.any():
        return await _all_ok(job, values.shape)
    if name not in job.plain:
        if found.lent and not isinstance(job.store, LocalStore):  # which may keep what it is given
            values = values.copy()
        return await job.codecs[name].encode(values)
    size = encode.size(array)
    lent = found.lent and job.reuses
    memory = space.bytes(whole_name(name), size) if lent else np.empty(size, np.uint8)
    return encode.within(memory, array, values)


async def _all_ok(job: Job, shape: tuple[int, ...]) -> Buffer:
    """Status of a block without a flaw, compressed once: a quarter of the time of packing it."""
    kept = job.here.all_ok
    if shape not in kept:
        kept[shape] = await job.codecs["status"].encode(np.zeros(shape, np.int8))
    return kept[shape]


def _secure(job: Job, number: int) -> None:
    """Wait for what the status of a block speaks of."""
    *answers, _ = job.chunks(number)
    disk.secure_chunks(answers)
    if job.summed:
        file = journal.checksum_file(job.plan.place(number))
        disk.secure_files(job.store, [internals.key(job.status, file)])
