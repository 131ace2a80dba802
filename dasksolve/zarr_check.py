"""`check_zarr`: re-reads a finished job and recomputes the backward error of every system."""

import uuid
from typing import Any

import numpy as np
import zarr

from dasksolve import eager, journal, stores, workspace
from dasksolve.inputs import Inputs
from dasksolve.memory import Gauge
from dasksolve.plan import Block
from dasksolve.prepare import plan_job
from dasksolve.progress import Progress, watcher
from dasksolve.report import Report
from dasksolve.schedulers import choose
from dasksolve.status import Status
from dasksolve.stores import Location
from dasksolve.structure import meant
from dasksolve.tally import BlockResult
from dasksolve.zarr_job import Job, result, run_job


def check_zarr(
    a: Location | zarr.Array[Any],
    b: Location | zarr.Array[Any],
    out: Location,
    *,
    memory_limit: int | str | None = None,
    workers: int | None = None,
    client: Any = None,
    progress: Progress | bool | None = None,
) -> Report:
    """Read a, b and the output of `solve_zarr` again, and recompute every backward error.

    Parameters
    ----------
    a, b, out
        As they were given to `solve_zarr`.
    memory_limit, workers, client, progress
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
        Some blocks cannot be read, are not solved yet, hold NaN where status says OK, or hold an
        x that does not solve their systems (a backward error above the square root of eps).
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
    inputs = Inputs.open(a, b, options["assume_a"], options["lower"])
    new = journal.identity(inputs.problem, inputs.a, inputs.b, options)
    for part in ("a", "b"):  # data that was moved is the same data
        new[part]["location"] = journal.fields(old, part, location).get("location")
    journal.refuse_changes(old, new, location)
    scheduler = choose(client, workers)
    block_shape = journal.block_shape(old, inputs.problem.batch_shape, location)
    plan = plan_job(inputs, scheduler, memory_limit, block_shape)
    job = Job(
        token=token,
        inputs=inputs,
        plan=plan,
        x=stores.required_array(group, "x", location),
        status=stores.required_array(group, "status", location),
        on_singular=options["on_singular"],
        strict=False,
        resume=False,
    )
    advice = "nothing was changed; resume the job for blocks that are not solved yet"
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
    status = np.asarray(job.status[place])
    pending = journal.unsolved(status)
    if pending:
        return job.failed(number, f"{pending} systems are not solved yet; resume the job")
    x = np.asarray(job.x[place])
    problem = job.inputs.problem
    with workspace.lent() as space:
        a, _ = job.inputs.a.read(block, False, space)
        b, _ = job.inputs.b.read(block, False, space)
        if problem.vectors:
            b, x = b[..., None], x[..., None]
        errors = eager.backward_errors(meant(a, problem.assume_a, problem.lower), b, x)
    solved = (status == Status.OK) | (status == Status.ILL_CONDITIONED)
    suspect = solved & ~(errors <= np.sqrt(np.finfo(x.dtype).eps))
    if suspect.any():
        first = tuple(
            int(i) + start for i, (start, _) in zip(np.argwhere(suspect)[0], block, strict=True)
        )
        return job.failed(
            number,
            f"x does not solve {np.count_nonzero(suspect)} systems whose status is OK, the first "
            f"at {first}, with a backward error of {errors[suspect].flat[0]:.2g}; "
            "overwrite=True (--overwrite) solves all anew",
        )
    worst = float(errors[solved].max()) if solved.any() else np.nan
    read = a.nbytes + b.nbytes + x.nbytes + status.nbytes
    return result(job, number, status, bytes_read=read, worst_backward_error=worst)
