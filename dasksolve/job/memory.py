"""How much memory this process holds, and how much it may still take."""

from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psutil
from dask.utils import parse_bytes

_CGROUP = Path("/sys/fs/cgroup")
_FILES = (  # limit and use, cgroup version 2 and 1
    (_CGROUP / "memory.max", _CGROUP / "memory.current"),
    (_CGROUP / "memory/memory.limit_in_bytes", _CGROUP / "memory/memory.usage_in_bytes"),
)


def resident() -> int:
    """Bytes of this process that are in memory now (RSS)."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """The most bytes that this process had in memory (VmHWM); 0 where the system hides it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


def reset_peak() -> None:
    """Make `peak` count from now on, where the system lets us."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available() -> int:
    """Bytes that the machine, or the cgroup that this process lives in, has free."""
    free = [int(psutil.virtual_memory().available)]
    for limit, use in _FILES:
        try:
            free.append(int(limit.read_text()) - int(use.read_text()))
        except (OSError, ValueError):  # no such cgroup; "max": no limit
            continue
    return max(0, min(free))


def parse_size(name: str, size: int | str) -> int:
    """Return a number of bytes, given as a number or as text."""
    try:
        parsed = int(parse_bytes(size) if isinstance(size, str) else size)
    except (ValueError, TypeError, OverflowError):
        parsed = 0
    if parsed <= 0:
        raise ValueError(f'{name}={size!r} is not a positive size, such as "2GiB" or 2**31')
    return parsed


class Gauge:
    """What this process has taken since it met a job."""

    _baseline: ClassVar[dict[str, int]] = {}

    def __init__(self, job: str) -> None:
        self.job = job
        if job not in self._baseline:
            self._baseline[job] = resident()
            reset_peak()

    def highest(self) -> int:
        """The most bytes more than at first."""
        return (peak() or resident()) - self._baseline[self.job]
