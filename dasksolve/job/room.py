"""What the output of a job takes of its disk, and what is told where that takes no more."""

import errno
import math
import os
import shutil
from pathlib import Path
from typing import Any

from dask.utils import format_bytes
from zarr.storage import LocalStore

from dasksolve.errors import counted, warn
from dasksolve.job.report import Report
from dasksolve.job.work import Work
from dasksolve.status import Status

_REFUSALS = {
    errno.ENOSPC: ("no space is left at {}", "Make room"),
    errno.EDQUOT: ("the quota at {} is used up", "Make room, or have it raised"),
    errno.EFBIG: ("a chunk is larger than a file may be at {}", "Raise that limit (ulimit -f)"),
    errno.EROFS: ("{} can only be read now", "Make it writable"),
}
"""What a block is refused for that the next would be, too: how that is told, and what to do."""


def is_lasting(error: OSError) -> bool:
    """Whether what could not be written makes it vain to try others."""
    return error.errno in _REFUSALS


def warn_of(work: Work, store: Any, location: str) -> None:
    """Say that a new output has no room."""
    takes, there = needed(work, math.prod(work.batch_shape)), free(store)
    if there is not None and takes > there:
        warn(
            f"{location} takes about {format_bytes(takes)}, and {format_bytes(there)} are free "
            "there: the job will stop once the disk is full"
        )


def needed(work: Work, systems: int) -> int:
    """Bytes that so many systems take in the output, if they are not compressed."""
    return systems * sum(field.system_bytes for field in work.fields)


def free(store: Any) -> int | None:
    """Bytes that there is room for in an output; None: nobody knows."""
    if not isinstance(store, LocalStore):
        return None
    try:
        return shutil.disk_usage(_folder(store)).free
    except OSError:
        return None


def _takes_no_file(store: LocalStore) -> bool:
    """Whether a disk has room, but for no file more: zarr's are many and small."""
    if not hasattr(os, "statvfs"):  # Windows
        return False
    found = os.statvfs(_folder(store))
    return found.f_files > 0 and found.f_favail == 0


def _folder(store: LocalStore) -> Path:
    """The folder of an output, or the one that it will be made in."""
    return next(filter(os.path.exists, (store.root, *store.root.parents)))


def advice(refusal: int, report: Report, work: Work, store: Any) -> str:
    """What to do about a job that stopped at a refusal, an error number of the system."""
    why, remedy = _REFUSALS[refusal]
    left = report.counts[Status.PENDING]
    text = f"no more were begun, since {why.format(report.out)}: "
    are = "is" if report.blocks_done == 1 else "are"
    text += f"{report.blocks_done:,} of {counted(report.blocks, 'blocks')} {are} done and kept"
    if refusal in (errno.ENOSPC, errno.EDQUOT):
        text += f"; what is left takes about {format_bytes(needed(work, left))}"
        room = free(store) if refusal == errno.ENOSPC else None
        if room is not None:
            text += f", and {format_bytes(room)} are free"
            text += ", but for no more files (inodes)" * _takes_no_file(store)
    return f"{text}. {remedy}; resume=True (--resume) goes on"
