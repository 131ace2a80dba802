"""`regress_zarr`: a zarr job that fits series."""

from functools import partial
from pathlib import Path
from typing import Any, Never

import zarr

from dasksolve.batch.fit import FitOptions
from dasksolve.batch.options import check_flags, refuse_unknown, refusing
from dasksolve.job.prepare import JobOptions
from dasksolve.job.progress import Progress
from dasksolve.job.report import Report
from dasksolve.job.series import Series
from dasksolve.job.write import write_output
from dasksolve.storage.stores import OutputLocation


@refusing
def regress_zarr(
    y: str | Path | zarr.Array[Any],
    design: Any,
    out: OutputLocation,
    *,
    axis: int = 0,
    weights: Any = None,
    ridge: Any = None,
    rcond: float | None = None,
    min_count: int | None = None,
    on_deficient: str = "nan",
    covariance: bool = False,
    memory_limit: int | str | None = None,
    workers: int | None = None,
    client: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    strict: bool = True,
    durable: bool = True,
    mask_and_scale: bool = True,
    compressors: Any = None,
    progress: Progress | bool | None = None,
    **unknown: Never,
) -> Report:
    """Fit series stored in zarr, larger than memory, block by block into a zarr group.

    Parameters
    ----------
    y : str, pathlib.Path or zarr.Array
        Path, URL or open array of the series, with P observations along `axis`: an image series
        (time, y, x), say. Any chunking: where the observations are chunked themselves, one file a
        time step, say, and those under one chunk do not fit in memory together, they are read some
        at a time, twice; the plan says so, and how often if not even that fits.
    design : (P, N) array_like, zarr.Array, or path of a zarr array or of a .npy file
        A row for each observation, a column for each coefficient; finite. The name of its second
        dimension, and the coordinate of that name beside it, label the coefficients.
    out : str, pathlib.Path, zarr.Group or zarr.abc.store.Store
        The zarr group to create, as in `solve_zarr`. It holds the fields of `Regression`: ``coef``
        and ``stderr``, of y's shape with N in place of P, ``rss``, ``count``, ``rcond`` and
        ``status`` over the other dimensions, and ``covariance`` if asked for, with the dimension
        names of y and the coordinates of the batch: ``xarray.open_zarr(out)`` reads it.
    axis : int, default 0
        Of the observations in y.
    weights : (P,) array_like, zarr.Array, or path of a zarr array or of a .npy file, optional
        Inverse variances, one for each observation; or, stored in zarr, one for each number in y.
        As in `regress`: 0 or NaN leaves an observation out. Stored ones that are negative make
        their series ``NONFINITE``.
    ridge, rcond, min_count, on_deficient, covariance
        As in `regress`.
    memory_limit, workers, client, resume, overwrite, strict, durable, mask_and_scale, progress
        As in `solve_zarr`. Packed integers, as most images are stored, are decoded by their
        attributes; ``_FillValue`` is missing.
    compressors : sequence of zarr codecs, optional
        For ``coef``, ``stderr``, ``rss`` and ``covariance``; default: crc32c alone.

    Returns
    -------
    Report
        What was done: counts by status, the flagged series, bytes, time, peak memory.

    Raises
    ------
    FileExistsError, FileNotFoundError, PermissionError, BlockErrors
        As from `solve_zarr`.
    ValueError, TypeError
        As from `regress`; coordinates of y and design along the observations differ; the memory
        limit is too small; or y, design, weights or options are not those of the run that is to be
        resumed. Nothing has been created then.

    Examples
    --------
    >>> import numpy as np, tempfile, zarr, dasksolve
    >>> folder = tempfile.TemporaryDirectory()
    >>> years = np.arange(10.0)
    >>> images = 5 + 2 * years[:, None, None] * np.ones((10, 20, 30))  # one file a time step
    >>> y = zarr.create_array(folder.name + "/y.zarr", data=images, chunks=(1, 20, 30))
    >>> design = np.stack([np.ones(10), years], axis=1)
    >>> report = dasksolve.regress_zarr(y, design, folder.name + "/out.zarr")
    >>> report.counts[dasksolve.Status.OK]
    600
    >>> zarr.open_array(folder.name + "/out.zarr/coef")[:, 0, 0].round(6)
    array([5., 2.])
    >>> folder.cleanup()
    """
    if unknown:
        refuse_unknown(regress_zarr, unknown)
    check_flags(mask_and_scale=mask_and_scale, strict=strict)
    how = JobOptions(
        memory_limit, workers, client, resume, overwrite, strict, durable, compressors, progress
    )
    options = FitOptions(axis, ridge, rcond, min_count, on_deficient, covariance)
    read = {"mask_and_scale": mask_and_scale, "strict": strict}
    work = partial(Series.open, y, design, weights, options, **read)
    _, report = write_output(work, out, "fitting", how)
    return report
