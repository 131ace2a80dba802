"""`check_zarr`: re-reads a finished job, solves again and compares every bit."""

import uuid
import warnings
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch import diagnosis, eager
from dasksolve.batch.options import Options
from dasksolve.batch.problem import Problem, describe
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
from dasksolve.solution import Solution
from dasksolve.status import Status
from dasksolve.storage import buffers, stores
from dasksolve.storage.layout import Block
from dasksolve.storage.stores import Location

_WRONG = "x does not solve {} systems whose status is OK"
_OTHER = "{} of {{}} systems is not what it is computed to be"


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
    """Read a, b and the output of `solve_zarr` again, solve again, and compare every bit.

    Answers have the same bits on every processor, so that one bit that was changed since is found,
    with checksums or without. An output that was written with another arithmetic, by an older
    version or without fused multiply-add, is compared within bounds, and a warning says so; so are
    the systems that ``on_singular="lstsq"`` left to LAPACK.

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
    token = uuid.uuid4().hex[:8]
    Gauge(token)
    store, location = stores.open_store(out)
    if stores.is_empty(store):
        raise FileNotFoundError(f"there is no output at {location}; dasksolve solve writes it")
    old = journal.read(store, location)
    group = stores.open_group(store, location, mode="r")
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
    advice = (
        "nothing was changed: overwrite=True (--overwrite) solves anew what is not right, "
        "resume=True (--resume) what is not solved yet"
    )
    written = old.get("arithmetic")
    if written != kernels.ARITHMETIC:
        warnings.warn(
            f"{location} was written with another arithmetic ({written or 'unknown'}; this is "
            f"{kernels.ARITHMETIC}): its answers are compared within bounds, not bit by bit",
            stacklevel=2,
        )
    task = check_block if written == kernels.ARITHMETIC else check_block_within_bounds
    with closed(watch):
        return run_job(task, job, scheduler, location, watch, advice)


def check_block(job: Job, number: int) -> BlockResult:
    """Read one block with its solution, solve it again, and compare every bit."""
    return _checked(job, number, True)


def check_block_within_bounds(job: Job, number: int) -> BlockResult:
    """Read one block with its solution, solve it again, and compare within bounds."""
    return _checked(job, number, False)


def _checked(job: Job, number: int, exactly: bool) -> BlockResult:
    try:
        job.begin()
        return _check_block(job, number, job.plan.block(number), exactly)
    except Exception as error:  # the other blocks go on
        return job.failed(number, error)


def _check_block(job: Job, number: int, block: Block, exactly: bool) -> BlockResult:
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
        with kernels.compiling_apart(job.plan.compiles_apart):
            anew = _solved_again(a, b, problem, job.options)
        changed = _other_bits(x, anew.x, status.shape)
        errors = anew.backward_error
        if changed.any() or not _diagnoses(problem, job.options):
            columns = (b[..., None], x[..., None]) if problem.vectors else (b, x)
            errors = diagnosis.backward_errors(meant(a, job.options), *columns)
    compare = _differences if exactly else _differences_within_bounds
    suspects = compare(job.options, status, stored, anew, errors, changed)
    for name, suspect in suspects.items():
        if suspect.any():
            first = tuple(
                int(i) + start for i, (start, _) in zip(np.argwhere(suspect)[0], block, strict=True)
            )
            return job.failed(
                number,
                f"{name.format(np.count_nonzero(suspect))}, the first at {first}, with a backward "
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


def _diagnoses(problem: Problem, options: Options) -> bool:
    """Whether to solve again finds the backward errors too."""
    # Up to this order it takes half the time of finding them apart.
    return options.diagnoses or (options.assume_a == "gen" and problem.n <= 8)


def _solved_again(a: NDArray[Any], b: NDArray[Any], problem: Problem, options: Options) -> Solution:
    """What the job solved, to the same bits; diagnostics are NaN where it takes long to have them.

    As in the job, a condition that was not asked for has no say in the status.
    """
    if not _diagnoses(problem, options):
        x, status = eager.solve_with_status(a, b, problem, options)
        return Solution(x, status, *np.full((2, *status.shape), np.nan))
    anew = eager.solve_and_diagnose(a, b, problem, options)
    if not options.diagnoses:
        anew.status[anew.status == Status.ILL_CONDITIONED] = Status.OK
    return anew


def _differences(
    options: Options,
    status: NDArray[np.int8],
    stored: list[NDArray[np.float64]],
    anew: Solution,
    errors: NDArray[np.float64],
    changed: NDArray[np.bool_],
) -> dict[str, NDArray[np.bool_]]:
    """Where a bit is not what it is computed to be, or x is no solution."""
    failed = eager.is_failed(anew, options)
    ours = ~failed if options.on_singular == "lstsq" else np.ones_like(failed)  # not LAPACK's
    suspects = {
        _WRONG: _wrong(status, failed, errors, anew.x.dtype),
        _OTHER.format("status"): status != anew.status,
    }
    suspects[_OTHER.format("x")] = changed & ours
    for name, old, new in zip(DIAGNOSTICS, stored, anew[2:], strict=False):
        suspects[_OTHER.format(name)] = _other_bits(old, new, status.shape) & ours
    return suspects


def _differences_within_bounds(
    options: Options,
    status: NDArray[np.int8],
    stored: list[NDArray[np.float64]],
    anew: Solution,
    errors: NDArray[np.float64],
    changed: NDArray[np.bool_],
) -> dict[str, NDArray[np.bool_]]:
    """The same, as far as another arithmetic allows."""
    failed = eager.is_failed(anew, options)
    suspects = {_WRONG: _wrong(status, failed, errors, anew.x.dtype)}
    if stored:
        (rcond, error), eps = stored, np.finfo(anew.x.dtype).eps
        sure = _has_solution(status) & ~failed
        near = np.abs(rcond - anew.rcond) <= 0.9 * np.maximum(rcond, anew.rcond)
        suspects[_OTHER.format("rcond")] = sure & ~near
        near = np.abs(error - errors) <= np.maximum(4 * eps, 1e-3 * errors)
        suspects[_OTHER.format("backward_error")] = sure & ~near
    return suspects


def _has_solution(status: NDArray[np.int8]) -> NDArray[np.bool_]:
    return (status == Status.OK) | (status == Status.ILL_CONDITIONED)


def _wrong(
    status: NDArray[np.int8],
    failed: NDArray[np.bool_],
    errors: NDArray[np.float64],
    dtype: np.dtype[Any],
) -> NDArray[np.bool_]:
    return _has_solution(status) & ~failed & ~(errors <= np.sqrt(np.finfo(dtype).eps))


def _other_bits(
    one: NDArray[Any], other: NDArray[Any], batch_shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Whether anything of a system differs, NaN from NaN included."""
    one, other = (np.ascontiguousarray(v).view(f"u{v.real.itemsize}") for v in (one, other))
    if np.array_equal(one, other):  # in a tenth of the time
        return np.zeros(batch_shape, bool)
    return (one != other).reshape(*batch_shape, -1).any(axis=-1)
