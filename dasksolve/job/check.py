"""`check_zarr`: re-reads a finished job and recomputes the backward error of every system."""

import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import zarr

from dasksolve.batch import diagnosis, eager
from dasksolve.batch.problem import describe
from dasksolve.batch.structure import meant
from dasksolve.job import journal
from dasksolve.job.inputs import Inputs
from dasksolve.job.memory import Gauge
from dasksolve.job.output import DIAGNOSTICS
from dasksolve.job.prepare import plan_job
from dasksolve.job.progress import Progress, closed, watcher
from dasksolve.job.report import Report
from dasksolve.job.run import Job, result, run_job
from dasksolve.job.schedulers import choose
from dasksolve.job.tally import BlockResult
from dasksolve.status import Status
from dasksolve.storage import buffers, stores
from dasksolve.storage.layout import Block
from dasksolve.storage.stores import Location


def check_zarr(
    a: Location | zarr.Array[Any],
    b: Location | zarr.Array[Any],
    out: Location,
    *,
    memory_limit: int | str | None = None,
    workers: int | None = None,
    client: Any = None,
    mask_and_scale: bool = True,
    progress: Progress | bool | None = None,
) -> Report:
    """Read a, b and the output of `solve_zarr` again, and recompute every backward error.

    Parameters
    ----------
    a, b, out
        As they were given to `solve_zarr`.
    memory_limit, workers, client, mask_and_scale, progress
        As in `solve_zarr`.

    Returns
    -------
    Report
        With `worst_backward_error` the largest ‖Ax-b‖∞ / (‖A‖∞‖x‖∞ + ‖b‖∞) of the systems that
        have a solution (Rigal and Gaches; Higham, *Accuracy and Stability*, theorem 7.1). A few
        eps is what a stable solver leaves.

    Raises
    ------
    BlockErrors
        Some blocks cannot be read, are not solved yet, hold NaN where status says OK, hold an x
        that does not solve their systems (a backward error above the square root of eps), or
        diagnostics that are not those of their systems.
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
    token = uuid.uuid4().hex[:8]
    Gauge(token)
    store, location = stores.open_store(out)
    if stores.is_empty(store):
        raise FileNotFoundError(f"there is no output at {location}; dasksolve solve writes it")
    group = stores.open_group(store, location, mode="r")
    old = journal.read(group, location)
    options = journal.options(old, location)
    inputs = Inputs.open(a, b, mask_and_scale)
    new = journal.identity(inputs.a, inputs.b, options)
    for part in ("a", "b"):  # data that was moved is the same data
        new[part]["location"] = journal.fields(old, part, location).get("location")
    journal.refuse_changes(old, new, location)
    scheduler = choose(client, workers)
    block_shape = journal.block_shape(old, inputs.problem.batch_shape, location)
    plan = plan_job(inputs, scheduler, store, memory_limit, block_shape)
    job = Job(
        token=token,
        inputs=inputs,
        plan=plan,
        x=stores.required_array(group, "x", location),
        status=stores.required_array(group, "status", location),
        options=options,
        strict=False,
        resume=False,
        diagnostics=tuple(
            stores.required_array(group, name, location)
            for name in (DIAGNOSTICS if options.diagnostics else ())
        ),
    )
    advice = "nothing was changed; resume the job for blocks that are not solved yet"
    with closed(watch):
        return run_job(check_block, job, scheduler, location, watch, advice)


def check_block(job: Job, number: int) -> BlockResult:
    """Read one block with its solution, and compare."""
    try:
        job.begin()
        return _check_block(job, number, job.plan.block(number))
    except Exception as error:  # the other blocks go on
        return job.failed(number, error)


def _check_block(job: Job, number: int, block: Block) -> BlockResult:
    place = tuple(slice(*r) for r in block)
    status, x, *stored = (
        np.asarray(array[place]) for array in (job.status, job.x, *job.diagnostics)
    )
    pending = journal.unsolved(status)
    if pending:
        return job.failed(number, f"{pending} systems are not solved yet; resume the job")
    with buffers.lent() as space:
        a, _ = job.inputs.a.read(block, False, space)
        b, _ = job.inputs.b.read(block, False, space)
        problem = describe(a.shape, a.dtype, b.shape, b.dtype)
        unrefined = replace(job.options, refine=False)
        diagnoses = bool(stored) or unrefined.diagnoses
        anew = eager.solve_and_diagnose(a, b, problem, unrefined) if diagnoses else None
        if problem.vectors:
            b, x = b[..., None], x[..., None]
        errors = diagnosis.backward_errors(meant(a, job.options), b, x)
    solved = (status == Status.OK) | (status == Status.ILL_CONDITIONED)
    if anew is not None:
        solved &= ~eager.is_failed(anew, job.options)
    eps = np.finfo(x.dtype).eps
    suspects = {
        "x does not solve {} systems whose status is OK": solved & ~(errors <= np.sqrt(eps))
    }
    if anew is not None and stored:
        rcond, backward_error = stored
        suspects["rcond of {} systems is not what it is computed to be"] = solved & ~(
            np.abs(rcond - anew.rcond) <= 0.9 * np.maximum(rcond, anew.rcond)
        )
        suspects["backward_error of {} systems is not what it is computed to be"] = solved & ~(
            np.abs(backward_error - errors) <= np.maximum(4 * eps, 1e-3 * errors)
        )
    for what, suspect in suspects.items():
        if suspect.any():
            first = tuple(
                int(i) + start for i, (start, _) in zip(np.argwhere(suspect)[0], block, strict=True)
            )
            return job.failed(
                number,
                f"{what.format(np.count_nonzero(suspect))}, the first at {first}, with a backward "
                f"error of {errors[suspect].flat[0]:.2g}; overwrite=True (--overwrite) solves all "
                "anew",
            )
    rcond = stored[0] if stored else np.full(status.shape, np.nan)
    ours = sum(array.nbytes for array in (x, status, *stored))
    return result(
        job,
        number,
        status,
        (rcond, errors),
        bytes_read=job.inputs.bytes_read(block) + ours,
        bytes_needed=job.inputs.bytes_needed(block) + ours,
    )
