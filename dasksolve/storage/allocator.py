"""Has the C library keep memory that is freed while it is about to be asked for again.

A page that the system was given back is faulted in anew, which takes 1.3 µs: chunks of 4 MiB are
read in a third of the time into memory that was kept, and far jobs take 0.7 to 0.9 of the time.
glibc keeps twice as much as the largest array that it was given back so far, and at most 64 MiB;
or 64 KiB, on a worker of dask, whose MALLOC_TRIM_THRESHOLD_ says so.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

_TRIM, _MAP = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_LEARNT = {_TRIM: 64 << 20, _MAP: 32 << 20}
"""Bytes: what glibc has learnt once an array of 32 MiB was freed."""
_UNLEARNT = 128 << 10
_WORTH = 1 << 20  # bytes

_lock = Lock()
_users = 0


@contextmanager
def keeping(room: int, threads: int) -> Iterator[None]:
    """Keep what so many threads free meanwhile, as many bytes of it as there is room for."""
    global _users
    libc, most = _glibc(), room // threads
    if libc is None or most < _WORTH:
        yield
        return
    with _lock:
        _users += 1
        for threshold, learnt in _LEARNT.items():
            libc.mallopt(threshold, min(learnt, most))
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _let_go(libc)


def _let_go(libc: Any) -> None:
    wanted = os.environ.get("MALLOC_TRIM_THRESHOLD_", "")
    if wanted.isdecimal():  # elsewhere, what was learnt is kept
        libc.mallopt(_TRIM, int(wanted))
        libc.mallopt(_MAP, _UNLEARNT)
    libc.malloc_trim(0)


@cache
def c_library() -> Any:
    """What this process calls the system by; None: not known."""
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # TypeError: on Windows
        return None


@cache
def _glibc() -> Any:
    """The C library, if it can be told, and nobody has told it what is more than dask does."""
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "GLIBC_TUNABLES" in os.environ:
        return None
    libc = c_library()
    return libc if hasattr(libc, "gnu_get_libc_version") else None
