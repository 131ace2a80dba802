"""Carries out a job: prepares it, creates its output, then reads, solves, writes each block."""

import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

from dasksolve import kernels
from dasksolve.batch.options import check_flags
from dasksolve.job import history, journal, output
from dasksolve.job.memory import Gauge
from dasksolve.job.prepare import prepare
from dasksolve.job.progress import Progress, closed, watcher
from dasksolve.job.report import Report
from dasksolve.job.run import Job, Task, meet, result, run_job
from dasksolve.job.schedulers import Cluster
from dasksolve.job.tally import BlockResult
from dasksolve.job.work import Work
from dasksolve.storage import buffers, internals, stores
from dasksolve.storage import durable as disk
from dasksolve.storage.layout import Block
from dasksolve.storage.stores import Location


def carry_out(
    task: Task,
    open_work: Callable[[], Work],
    out: Location,
    what: str,
    *,
    memory_limit: int | str | None,
    workers: int | None,
    client: Any,
    resume: bool,
    overwrite: bool,
    strict: bool,
    durable: bool,
    compressors: Any,
    progress: Progress | bool | None,
) -> tuple[Job, Report]:
    """Prepare a job, create its output and do every block.

    task: `do_block` under the name that dask shows; open_work: as `prepare` takes it; what: the
    word beside the progress bar; the rest as a user gave them to `solve_zarr`.
    """
    check_flags(strict=strict, durable=durable)
    watch = watcher(progress, what)
    token = uuid.uuid4().hex[:8]
    Gauge(token)
    prepared = prepare(
        open_work,
        out,
        memory_limit=memory_limit,
        workers=workers,
        client=client,
        resume=resume,
        overwrite=overwrite,
    )
    scheduler, store, location = prepared.scheduler, prepared.store, prepared.location
    inputs = [source.array for source in prepared.work.sources]
    advice = (
        "the others are written, and resume=True (--resume) tries again what is not done or "
        "cannot be read"
    )
    with (
        closed(watch),
        output.claimed(store, location),
        scheduler.marking(store, token) as mark,
    ):
        scheduler.everywhere(meet, token, inputs, store, mark)
        created = output.create(prepared, compressors, uuid.uuid4().hex, durable, mark)
        job = Job(
            token=token,
            work=prepared.work,
            plan=prepared.plan,
            arrays=created.arrays,
            strict=strict,
            durable=durable,
            summed=frozenset(
                name for name, array in created.arrays.items() if not stores.is_checked(array)
            ),
            resume=prepared.resumed,
            mark=mark,
        )
        with history.kept(created, watch) as follow:
            try:
                report = run_job(task, job, scheduler, location, follow, advice, created.confirm)
            finally:
                if isinstance(scheduler, Cluster):  # a killed worker left what it was writing
                    with suppress(Exception):  # another job's is not ours; a lost store is told of
                        job.refuse_late()
                        stores.sweep(store, mark)
    return job, report


def do_block(job: Job, number: int) -> BlockResult:
    """Read, solve and write one block; its status last, since that says that it is done."""
    try:
        job.begin()
        if job.resume:
            found = output.finished(job, number)
            if found is not None:
                return result(job, number, found, resumed=True)
        return _do_block(job, number, job.plan.block(number))
    except Exception as error:  # the other blocks go on
        return job.failed(number, error)


def _do_block(job: Job, number: int, block: Block) -> BlockResult:
    work = job.work
    with buffers.lent(job.plan.threads) as space:
        with kernels.compiling_apart(job.plan.compiles_apart):
            done = work.done(block, job.plan.rows, job.strict, space, job.solving())
        fields = [field for field in work.fields if done.arrays[field.name].size]
        arrays = [job.arrays[field.name] for field in fields]
        encoding = map(internals.encode, arrays, (done.arrays[field.name] for field in fields))
        chunks = space.here(internals.together(*encoding))
        places = [field.chunk(job.plan.place(number)) for field in fields]

        async def write() -> bool:
            """Write all, or all but the status, before which the mark must be looked at."""
            writes = map(internals.put_chunk, arrays[:-1], places, chunks)
            await internals.together(*writes, *_checksum(job, number, done.arrays))
            _secure(job, number)
            if not job.looked_lately():
                return False
            await internals.put_chunk(job.status, places[-1], chunks[-1])
            return True

        job.refuse_late()
        if not space.run(job.status.store, write()):
            job.refuse_late()
            space.run(job.status.store, internals.put_chunk(job.status, places[-1], chunks[-1]))
    return result(
        job,
        number,
        done.arrays,
        missing=done.missing,
        chunks_read=done.reads * work.chunks_read(block),
        chunks_written=len(fields),
        solving=done.seconds,
        bytes_read=done.reads * work.bytes_read(block),
        bytes_needed=work.bytes_needed(block),
        bytes_written=sum(values.nbytes for values in done.arrays.values()),
    )


def _checksum(job: Job, number: int, found: dict[str, Any]) -> Iterator[Coroutine[Any, Any, None]]:
    """Write a checksum of the answers whose chunks have none, by which they are known again."""
    if job.summed:
        file = journal.checksum_file(job.plan.place(number))
        sums = journal.checksum(found[f.name] for f in job.work.fields if f.name in job.summed)
        yield internals.put(job.status, file, sums)


def _secure(job: Job, number: int) -> None:
    """Wait for what the status of a block speaks of."""
    if job.durable:
        place = job.plan.place(number)
        disk.secure_chunks((job.arrays[f.name], f.chunk(place)) for f in job.work.fields[:-1])
        if job.summed:
            file = internals.key(job.status, journal.checksum_file(place))
            disk.secure_files(job.status.store, [file])
