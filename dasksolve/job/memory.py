"""How much memory this process holds, and how much it may still take."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
from dask.utils import parse_bytes

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_A_MOMENT = 0.02  # seconds
_PROC = Path("/proc/self")
_CGROUP = Path("/sys/fs/cgroup")


class _Hierarchy(NamedTuple):
    """Where a version of cgroups keeps what it knows of memory."""

    folders: tuple[str, ...]
    limits: tuple[str, ...]
    use: str
    of_tree: str
    """What a number of memory.stat is called that counts the cgroups below, too."""


_V2 = _Hierarchy(("", "unified"), ("memory.max", "memory.high"), "memory.current", "")
_V1 = _Hierarchy(("memory",), ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_")
_CACHE = ("inactive_file", "active_file")
"""Of memory.stat: pages of files, which the kernel drops before a limit hurts."""


def resident() -> int:
    """Bytes of this process that are in memory now (RSS)."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """The most bytes that this process had in memory; 0 where the system does not say."""
    with suppress(OSError):
        for line in (_PROC / "status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) << 10
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))


def reset_peak() -> None:
    """Make `peak` count from now on, where the system lets us."""
    with suppress(OSError):
        (_PROC / "clear_refs").write_text("5")


def available() -> int:
    """Bytes that the machine, or the cgroups that this process lives in, have free."""
    return max(0, min([int(psutil.virtual_memory().available), *_free_in_cgroups()]))


def _free_in_cgroups() -> Iterator[int]:
    """What each cgroup that has a limit has free: that of this process, and those around it."""
    try:
        lines = (_PROC / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    places = [line.split(":", 2)[1:] for line in lines if line.count(":") >= 2]
    for hierarchy, controllers in ((_V2, ("",)), (_V1, ("memory",))):
        own = [path for names, path in places if set(controllers) & set(names.split(","))]
        for folder in hierarchy.folders:
            # A container may see its own cgroup as the root, and its path as the host has it.
            for path in {"/", *own}:
                parts = [part for part in path.split("/") if part not in ("", "..")]
                for depth in range(len(parts) + 1):
                    yield from _free(_CGROUP.joinpath(folder, *parts[:depth]), hierarchy)


def _free(cgroup: Path, hierarchy: _Hierarchy) -> Iterator[int]:
    for limit in hierarchy.limits:
        with suppress(OSError, ValueError):  # there is none; "max": no limit
            most = int((cgroup / limit).read_text())
            yield most - int((cgroup / hierarchy.use).read_text()) + _given_back(cgroup, hierarchy)


def _given_back(cgroup: Path, hierarchy: _Hierarchy) -> int:
    """Bytes of the page cache that count as used, but are there for the asking."""
    with suppress(OSError, ValueError):
        fields = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return sum(int(fields.get(hierarchy.of_tree + name, 0)) for name in _CACHE)
    return 0


def parse_size(name: str, size: int | str) -> int:
    """Return a number of bytes, given as a number or as text."""
    try:
        parsed = int(parse_bytes(size) if isinstance(size, str) and size.strip() else size)
    except (ValueError, TypeError, OverflowError):
        parsed = 0
    if parsed <= 0 or isinstance(size, bool):
        raise ValueError(f'{name}={size!r} is not a positive size, such as "2GiB" or 2**31')
    return parsed


class Gauge:
    """What this process has taken since the gauge was made."""

    def __init__(self) -> None:
        reset_peak()
        self._baseline = resident(), peak()
        """What was resident then, and the peak, which not every system lets us reset."""
        self._most = 0
        """What was resident at most when somebody asked."""
        self._asked = -math.inf, 0
        """When the system was asked last, and what it said."""

    def lately(self) -> int:
        """The most bytes more than at first, as of a moment ago: to ask takes a tenth of a ms."""
        when, found = self._asked
        return found if time.monotonic() - when < _A_MOMENT else self.highest()

    def highest(self) -> int:
        """The most bytes more than at first."""
        at_first, peak_then = self._baseline
        most = peak()
        if most <= peak_then:  # that of earlier, which could not be reset
            most = self._most = max(self._most, resident())
        self._asked = time.monotonic(), most - at_first
        return most - at_first
