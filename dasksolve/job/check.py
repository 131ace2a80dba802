"""`check_zarr`: re-reads a finished job, solves again and compares every bit."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import ZipStore

from dasksolve import kernels
from dasksolve.errors import advising, counted, warn
from dasksolve.job import journal, presence, series, systems
from dasksolve.job.columns import opened
from dasksolve.job.job import Job
from dasksolve.job.plan import Plan
from dasksolve.job.prepare import plan_job
from dasksolve.job.progress import Progress, closed, watcher
from dasksolve.job.report import Report
from dasksolve.job.run import run_job
from dasksolve.job.schedulers import choose
from dasksolve.job.tally import BlockResult
from dasksolve.job.work import Field, Work
from dasksolve.storage import groups
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.documents import Document
from dasksolve.storage.layout import Block
from dasksolve.storage.stores import OutputLocation


def check_zarr(
    a: str | Path | zarr.Array[Any],
    b: Any,
    out: OutputLocation,
    *,
    weights: Any = None,
    memory_limit: int | str | None = None,
    workers: int | None = None,
    client: Any = None,
    mask_and_scale: bool = True,
    progress: Progress | bool | None = None,
) -> Report:
    """Read again what a job read and wrote, solve or fit again, and compare every bit.

    Answers have the same bits on every processor, so that one bit that was changed since is found,
    with checksums or without. An output that was written with another arithmetic, by an older
    version or without fused multiply-add, is compared within bounds, and a warning says so; so are
    the systems that ``on_singular="lstsq"`` left to LAPACK. Of what ``on_deficient="lstsq"`` left
    to it, no more is found than what is lost.

    Parameters
    ----------
    a, b, out
        As they were given to `solve_zarr`; or y, design and out, as they were to `regress_zarr`.
        The output may be open for reading alone, or packed into a zip archive since.
    weights
        As they were given to `regress_zarr`.
    memory_limit, workers, client, mask_and_scale, progress
        As in `solve_zarr`.

    Returns
    -------
    Report
        With `worst_backward_error` the largest ‖Ax-b‖∞ / (‖A‖∞‖x‖∞ + ‖b‖∞) of the systems that
        have a solution (Rigal and Gaches; Higham, *Accuracy and Stability*, theorem 7.1). A few
        eps is what a stable solver leaves. NaN of series.

    Raises
    ------
    BlockErrors
        Some blocks cannot be read, are not solved yet, hold an x that does not solve their systems
        (a backward error above the square root of eps), or an x, a status or diagnostics that are
        not those of their systems.
    FileNotFoundError, ValueError
        There is no such input, or `out` is not the output of this job.

    Examples
    --------
    >>> import numpy as np, tempfile, zarr, dasksolve
    >>> folder = tempfile.TemporaryDirectory()
    >>> a = zarr.create_array(folder.name + "/a", data=np.eye(2) + np.ones((10, 2, 2)))
    >>> b = zarr.create_array(folder.name + "/b", data=np.ones((10, 2)))
    >>> report = dasksolve.solve_zarr(a, b, folder.name + "/out")
    >>> dasksolve.check_zarr(a, b, folder.name + "/out").worst_backward_error < 1e-15
    True
    >>> folder.cleanup()
    """
    watch = watcher(progress, "checking")
    with advising(), presence.begun() as token, closed(watch):
        store, location, old, group = journal.opened(out)
        work = _work((a, b, weights), old, location, mask_and_scale)
        new = journal.identity(work.identity())
        for source in work.sources:  # data that was moved is the same data
            was = old.get(source.name)
            new[source.name]["location"] = was.get("location") if isinstance(was, dict) else None
        advice = "Give the inputs that the job had"
        if journal.is_regression(old):
            advice += ", and its weights if it had any (weights=, --weights)"
        advice += ", or do the job anew, with overwrite=True (--overwrite)"
        journal.refuse_changes(old, new, location, advice)
        scheduler = choose(client, workers)
        block_shape = journal.block_shape(old, work.batch_shape, location)
        plan = plan_job(work, scheduler, store, memory_limit, block_shape)
        written = old.get("arithmetic")
        exactly = written == kernels.ARITHMETIC
        job = Job(
            token=token,
            task="check_block" if exactly else "check_block_within_bounds",
            work=work,
            plan=plan,
            location=location,
            arrays=_arrays(store, group, work.fields, plan, location),
            strict=False,
            resume=False,
        )
        advice = (
            f"nothing was changed: overwrite=True (--overwrite) solves anew what is not right, "
            f"resume=True (--resume) what is not solved yet{_if_writable(store)}"
        )
        if not exactly:
            warn(
                f"{location} was written with another arithmetic ({written or 'unknown'}; this is "
                f"{kernels.ARITHMETIC}): its answers are compared within bounds, not bit by bit",
            )
        return run_job(partial(_checked, exactly), job, scheduler, watch, advice)


def _if_writable(store: Any) -> str:
    """What has to come first before a job can write to an output that was read."""
    if isinstance(store, ZipStore):
        return ", once the archive is unpacked"
    try:
        groups.refuse_unwritable(store)
    except OSError as error:
        return f", once the output may be written to ({error})"
    return ""


def _arrays(
    store: Any, group: Document, fields: tuple[Field, ...], plan: Plan, location: str
) -> dict[str, Any]:
    """The arrays of the output, if their metadata are those that the job wrote."""
    found = groups.arrays(store, [field.name for field in fields], location)
    arrays = {
        field.name: groups.required_fields(
            found[field.name],
            field.name,
            location,
            shape=field.shape(plan),
            chunks=field.chunks(plan),
            dtype=field.dtype,
        )
        for field in fields
    }
    groups.refuse_misleading(group, arrays, location)
    return arrays


def _work(inputs: Any, record: journal.Record, location: str, mask_and_scale: bool) -> Work:
    """What the job did that left a record."""
    a, b, weights = inputs
    if journal.is_regression(record):
        fit, how = series.options_of(record, location), {"mask_and_scale": mask_and_scale}
        return series.Series.open(a, b, weights, fit, strict=False, **how)
    if weights is not None:
        raise ValueError(f"{location} holds solutions of systems, which have no weights")
    return opened(a, b, systems.options_of(record, location), mask_and_scale)


async def _checked(exactly: bool, job: Job, number: int, space: Workspace) -> BlockResult:
    """Read one block with its solution, solve it again, and compare bits, or within bounds."""
    try:
        return await _check_block(job, number, job.plan.block(number), exactly, space)
    except Exception as error:  # the other blocks go on
        return job.failed(number, error)


async def _check_block(
    job: Job, number: int, block: Block, exactly: bool, space: Workspace
) -> BlockResult:
    work = job.work
    stored = await job.stored(work.fields, number, space)
    pending = journal.unsolved(stored["status"])
    if pending:
        are = f"{counted(pending, work.unit)} {'is' if pending == 1 else 'are'}"
        return job.failed(number, f"{are} not solved yet; resume the job")
    with kernels.compiling_apart(job.plan.compiles_apart):
        compared = await work.compared(block, job.plan.rows, stored, exactly, space)
    for name, suspect in compared.suspects.items():
        if suspect.any():
            first = tuple(
                int(i) + start for i, (start, _) in zip(np.argwhere(suspect)[0], block, strict=True)
            )
            differ = name.format(counted(int(np.count_nonzero(suspect)), work.unit))
            return job.failed(
                number,
                f"{differ}, the first at {first}"
                f"{compared.detail(suspect)}; overwrite=True (--overwrite) solves all anew",
            )
    read, ours = work.read_for(block), sum(array.nbytes for array in stored.values())
    return job.result(
        number,
        stored | compared.diagnostics,
        bytes_read=read.bytes + ours,
        bytes_needed=read.needed + ours,
    )
