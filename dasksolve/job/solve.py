"""`solve_zarr`: a zarr job that solves systems."""

from functools import partial
from pathlib import Path
from typing import Any, Never

import numpy as np
import zarr
from numpy.typing import NDArray

from dasksolve.batch.options import Options, check_flags, refuse_unknown, refusing
from dasksolve.errors import SingularSystemError, flat_indices
from dasksolve.job.columns import opened
from dasksolve.job.job import Job
from dasksolve.job.prepare import JobOptions
from dasksolve.job.progress import Progress
from dasksolve.job.report import Report
from dasksolve.job.survey import read_ahead
from dasksolve.job.write import write_output
from dasksolve.status import Status, is_singular
from dasksolve.storage.layout import Block
from dasksolve.storage.stores import OutputLocation


@refusing
def solve_zarr(
    a: str | Path | zarr.Array[Any],
    b: str | Path | zarr.Array[Any],
    out: OutputLocation,
    *,
    assume_a: str = "gen",
    lower: bool = False,
    on_singular: str = "nan",
    diagnostics: bool = False,
    refine: bool = False,
    memory_limit: int | str | None = None,
    workers: int | None = None,
    client: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    strict: bool = True,
    durable: bool = True,
    mask_and_scale: bool = True,
    rcond: float | None = None,
    compressors: Any = None,
    progress: Progress | bool | None = None,
    **unknown: Never,
) -> Report:
    """Solve a batch stored in zarr, larger than memory, block by block into a zarr group.

    Parameters
    ----------
    a : str, pathlib.Path or zarr.Array of shape (..., N, N)
        Path, URL or open array of the matrices: zarr format 2 or 3, sharded or not, any chunking.
        Chunks along the batch alone are read once; where the systems themselves are chunked, the
        plan says how often a byte is read.
    b : str, pathlib.Path or zarr.Array of shape (N,), (..., N) or (..., N, K)
        Right-hand sides; the number of dimensions tells which of these, as in `solve`. The
        columns of (N, K) for one matrix (N, N) are a batch of K systems, each with its status,
        solved in chunks of columns.
    out : str, pathlib.Path, zarr.Group or zarr.abc.store.Store
        Path, URL or store of the zarr group to create (a session of icechunk is yours to commit).
        It holds ``x`` and ``status`` (`Status` of every system, int8 over the batch shape; -1 is
        not solved yet), both with dimension names and crc32c checksums: ``xarray.open_zarr(out)``
        reads it. The names are those of a and b, save that a dimension ``x`` becomes ``x_``, lest
        xarray take the solution for its coordinate. The coordinates of the batch that stand in the
        group of a or b are copied: those of its dimensions, and those that the attributes of a or b
        name, as xarray writes them.
    assume_a, lower
        As in `solve`.
    on_singular : {"nan", "raise", "lstsq"}, default "nan"
        As in `solve`; "raise" raises once everything is written.
    diagnostics : bool, default False
        Store ``rcond`` and ``backward_error`` of every system beside x, as `solve_ex` gives them,
        and say ``ILL_CONDITIONED`` where x may have no correct digit.
    refine : bool, default False
        As in `solve_ex`.
    memory_limit : int or str, optional
        Bytes, or text such as "2GiB", that the call may add to the process: peak of the resident
        memory minus what it was at the call, compiling included. With a client: to each worker
        process. Default: half of what the machine or its cgroup has free, or half of the smallest
        worker's limit.
    workers : int, optional
        Threads; default: as many as ``dask.config.set(num_workers=…)`` says, else all cores. They
        are the job's own, whatever dask's ``pool`` and ``scheduler`` are set to. Ignored with a
        client: its workers' threads are used.
    client : distributed.Client, optional
        The cluster to run on; default: the current client if there is one (in a task, that of its
        worker), else threads.
    resume : bool, default False
        Go on with an output that exists: blocks that are done stay, half-written files are swept.
        Refused where the inputs or the options are not those of the first run.
    overwrite : bool, default False
        Replace an output that an earlier job wrote. Nothing else is ever replaced: refused where
        somebody has put other arrays beside x, and other files stay.
    strict : bool, default True
        A chunk of a or b that is not stored is an error. False takes it as the array's fill value
        and counts it in the report; zarr by default does not store a chunk of zeros.
    mask_and_scale : bool, default True
        Numbers of a and b are what their attributes say, as to xarray: ``_FillValue`` and
        ``missing_value`` are NaN, and ``scale_factor`` and ``add_offset`` are applied. False takes
        them as they are stored.
    rcond : float, optional
        As in `solve`: systems below it are ``ILL_CONDITIONED``, and `on_singular` says what their x
        is.
    durable : bool, default True
        Once this returns, all that was written survives a power cut; and whenever one comes,
        `resume` believes in no answer that is not there: metadata wait for the disk before the
        first block, and x before the status that speaks of it. False leaves writing to the system,
        which may take half a minute.
    compressors : sequence of zarr codecs, optional
        For x; default: crc32c alone, since solutions hardly compress. ``()``: none at all. A
        resumed run keeps those of the first.
    progress : bool or callable, optional
        True: a bar, on a terminal or in a notebook. A function is called with the `Report` so far
        after every block. The same and more is logged under the name ``dasksolve``.

    Returns
    -------
    Report
        What was done: counts by status, the flagged systems, bytes, time, peak memory.

    Raises
    ------
    FileExistsError
        There is something at `out`, and neither `resume` nor `overwrite` says what to do with it.
    FileNotFoundError
        There is no zarr array at `a` or `b`; or what was written was deleted while the job ran.
    PermissionError
        This process, or a worker, may not write to `out`.
    ValueError
        The inputs do not fit, or by their dimensions' names not in this order, the memory limit is
        too small, or the inputs or options are not those of the run that is to be resumed. Nothing
        has been created then.
    BlockErrors
        Some blocks could not be read, solved or written. All the others are; `resume` retries. Once
        a disk is full, no more are begun: the text says what is done, and what room the rest takes.
    SingularSystemError
        With ``on_singular="raise"``, once everything is written.

    Examples
    --------
    >>> import numpy as np, tempfile, zarr, dasksolve
    >>> folder = tempfile.TemporaryDirectory()
    >>> data = zarr.create_group(folder.name + "/data.zarr")
    >>> a = data.create_array("a", data=np.full((100, 3, 3), 1.0) + np.eye(3), chunks=(10, 3, 3))
    >>> b = data.create_array("b", data=np.ones((100, 3)), chunks=(10, 3))
    >>> report = dasksolve.solve_zarr(a, b, folder.name + "/out.zarr")
    >>> report.counts[dasksolve.Status.OK]
    100
    >>> zarr.open_array(folder.name + "/out.zarr/x")[0]
    array([0.25, 0.25, 0.25])
    >>> folder.cleanup()
    """
    if unknown:
        refuse_unknown(solve_zarr, unknown)
    options = Options.of(assume_a, lower, on_singular, diagnostics, refine, rcond)
    check_flags(mask_and_scale=mask_and_scale)
    how = JobOptions(
        memory_limit, workers, client, resume, overwrite, strict, durable, compressors, progress
    )
    work = partial(opened, a, b, options, mask_and_scale)
    job, report = write_output(work, out, "solving", how)
    if options.on_singular == "raise":
        _raise_singular(job, report, options.rcond)
    return report


def _is_lost(job: Job, block: Block) -> NDArray[np.bool_]:
    """Where all of x is NaN."""
    field = next(field for field in job.work.fields if field.name == "x")
    axes = field.among([None] * len(block), [True] * len(field.core))
    x = np.asarray(job.arrays["x"][field.region(block)])
    return np.isnan(x).all(axis=tuple(i for i, own in enumerate(axes) if own))


def _raise_singular(job: Job, report: Report, rcond: float | None) -> None:
    """Raise for the whole batch, from what was written."""
    suspects = [Status.SINGULAR, Status.NOT_POSITIVE_DEFINITE]
    if rcond is not None:
        suspects.append(Status.ILL_CONDITIONED)
    if not any(report.counts[status] for status in suspects):
        return
    found = []
    blocks = [job.plan.block(number) for number in range(job.plan.blocks)]
    regions = [tuple(slice(*r) for r in block) for block in blocks]
    reading = read_ahead({"status": job.status}, regions)
    for block, (region, read) in zip(blocks, reading, strict=True):
        status = np.asarray(job.status[region]) if read is None else read["status"]
        failed = is_singular(status)
        poor = status == Status.ILL_CONDITIONED
        if rcond is not None and poor.any():  # below rcond, and not eps alone
            failed |= poor & _is_lost(job, block)
        inside = np.flatnonzero(failed)
        origin = tuple(start for start, _ in block)
        indices = flat_indices(inside, status.shape, origin, job.plan.batch_shape)
        found.append((indices, status.reshape(-1)[inside]))
    indices, statuses = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if indices.size:
        order = np.argsort(indices)
        whole = job.plan.batch_shape
        raise SingularSystemError(indices[order], whole, statuses[order], report.out)
