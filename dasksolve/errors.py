"""What dasksolve raises and warns."""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasksolve.status import Status

if TYPE_CHECKING:
    from dasksolve.job.report import Report

_NAMED = 10  # how many failures an error's text names
_NO_THREAD = "can't start new thread"
_LIMITS = (
    " (this user or container may have no more: raise the limit, ulimit -u or pids.max, or use "
    "fewer workers)"
)


class PerformanceWarning(UserWarning):
    """The result is right, but the layout of the input, or the processor, makes it slow to get."""


_KINDS = {
    Status.SINGULAR: "singular",
    Status.NOT_POSITIVE_DEFINITE: "not positive definite",
    Status.ILL_CONDITIONED: "of a reciprocal condition number below rcond",
}


class SingularSystemError(np.linalg.LinAlgError):
    """Some systems of a batch have no unique solution, or none that `rcond` lets count.

    Attributes
    ----------
    indices : (F,) int64 ndarray
        Flat, C-order index into the whole batch of every failed system; from dask, of every
        failed system in the chunk that raised.
    batch_shape : tuple of int
        Shape of the whole batch: ``numpy.unravel_index(e.indices, e.batch_shape)``.
    status : (F,) int8 ndarray
        The `Status` of each failed system.
    location : str or None
        Where a job has written the answers of all systems, NaN for these; None: nowhere.

    Examples
    --------
    >>> import numpy as np, dasksolve
    >>> a = np.stack([np.eye(2), np.zeros((2, 2))])
    >>> try:
    ...     dasksolve.solve(a, np.ones((2, 2)))
    ... except dasksolve.SingularSystemError as error:
    ...     error.indices
    array([1])
    """

    def __init__(
        self,
        indices: NDArray[np.int64],
        batch_shape: tuple[int, ...],
        status: NDArray[np.int8],
        location: str | None = None,
    ) -> None:
        self.indices = indices
        self.batch_shape = batch_shape
        self.status = status
        self.location = location
        named = ", ".join(str(i) for i in indices[:_NAMED])
        more = ", …" if len(indices) > _NAMED else ""
        kinds = [words for flaw, words in _KINDS.items() if np.any(status == flaw)]
        kind = " or ".join(kinds or ["singular"])
        help_ = 'on_singular="nan" gives NaN for those alone, "lstsq" their least-squares solution'
        if location is not None:
            help_ = f"everything is written to {location}, with NaN for those alone"
        super().__init__(
            f"{counted(len(indices), 'systems')} of a batch of shape {batch_shape} "
            f"{'are' if len(indices) != 1 else 'is'} {kind}, at flat index {named}{more}; {help_}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.indices, self.batch_shape, self.status, self.location)

    def within(self, batch_shape: tuple[int, ...], origin: Sequence[int]) -> "SingularSystemError":
        """Return the same error, counted over the batch that this one is a block of."""
        indices = flat_indices(self.indices, self.batch_shape, origin, batch_shape)
        return SingularSystemError(indices, batch_shape, self.status)


class BlockFailure(NamedTuple):
    """One block of a zarr job that could not be read, solved or written.

    Attributes
    ----------
    block : int
        Its number in the job.
    batch_range : tuple[tuple[int, int], ...]
        Its first and past-the-last index along each batch dimension.
    cause : str
        What went wrong, with the type of the exception.
    """

    block: int
    batch_range: tuple[tuple[int, int], ...]
    cause: str

    def __str__(self) -> str:
        place = ", ".join(f"{start}:{stop}" for start, stop in self.batch_range)
        return f"block {self.block} [{place}]: {self.cause}"


class BlockErrors(RuntimeError):  # noqa: N818  the plural is the point
    """Some blocks of a zarr job failed; all the others are written.

    Attributes
    ----------
    failures : list of BlockFailure
        Every failed block, with its batch range and cause.
    report : Report
        What was done all the same.
    """

    def __init__(self, failures: list[BlockFailure], report: "Report", advice: str) -> None:
        self.failures = failures
        self.report = report
        self.advice = advice
        lines = [str(failure) for failure in failures[:_NAMED]]
        if len(failures) > _NAMED:
            lines.append(f"… and {len(failures) - _NAMED} more")
        super().__init__(
            f"{len(failures)} of {counted(report.blocks, 'blocks')} failed; {advice}:\n  "
            + "\n  ".join(lines)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.failures, self.report, self.advice)


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn of what the caller of the package did, there where it was called."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)


@contextmanager
def advising() -> Iterator[None]:
    """Within: errors are told with what to do about them, where Python leaves that out."""
    try:
        yield
    except Exception as error:
        error.args = tuple(advised(a) if isinstance(a, str) else a for a in error.args)
        raise


def retold(error: BaseException, text: str) -> OSError:
    """An error with another text, of the kind that callers catch still: PermissionError, say."""
    kinds = (kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
    kind = next((kind for kind in kinds if issubclass(kind, OSError)), OSError)
    return kind(text)


@contextmanager
def naming(place: object) -> Iterator[None]:
    """Name the place where there is no room: a full disk says no more than that."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(place)) from error


def lacks_threads(error: RuntimeError) -> bool:
    """Whether the system starts no more threads."""
    return _NO_THREAD in str(error)


def advised(text: str) -> str:
    """The text of an error, with what to do where the system starts no thread."""
    return text if _LIMITS in text else text.replace(_NO_THREAD, _NO_THREAD + _LIMITS, 1)


def counted(number: int, things: str) -> str:
    """A number of things whose plural is given: "1 block", "2,000 blocks"."""
    one = number == 1 and things != "series"
    return f"{number:,} {things.removesuffix('s') if one else things}"


def listed(names: Sequence[str]) -> str:
    """Names one after the other: the first five, and a sign that there are more."""
    return ", ".join([*names[:5], "…"] if len(names) > 5 else names)


def flat_indices(
    inside: NDArray[np.int64],
    block_shape: tuple[int, ...],
    origin: Sequence[int],
    batch_shape: tuple[int, ...],
) -> NDArray[np.int64]:
    """Flat indices into a block that starts at `origin`, counted over the whole batch."""
    if not batch_shape:
        return inside
    places = [
        place + start
        for place, start in zip(np.unravel_index(inside, block_shape), origin, strict=True)
    ]
    return np.asarray(np.ravel_multi_index(places, batch_shape), np.int64)
