"""Threads that are kept from one piece of work to the next.

Beside other programs, a system that is itself a guest of another often wakes them on the processor
of the thread that wakes them, though one is idle: two threads take as long as one then, in call
after call of 20 ms. So each begins elsewhere, which takes 20 µs. One that is new fares no better.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from threading import get_native_id
from typing import NamedTuple, TypeVar

from dasksolve.storage.allocator import c_library

Item = TypeVar("Item")


class _Helper(NamedTuple):
    """A thread that is kept."""

    pool: ThreadPoolExecutor
    number: int
    """What the system calls it."""


_idle: list[_Helper] = []
if hasattr(os, "register_at_fork"):  # a child has none of the threads
    os.register_at_fork(after_in_child=_idle.clear)


def share(items: Iterable[Item], works: Sequence[Callable[[Item], None]], own: bool) -> None:
    """Give each item to one of several functions, each of which runs in a thread.

    own: the first of them runs in the thread that calls, which only waits otherwise.
    """
    queue = iter(list(items))  # a list's iterator hands each item to one thread only
    processors, here = _processors()

    def help_with(work: Callable[[Item], None]) -> None:
        _allow(0, processors)
        drain(work)

    def drain(work: Callable[[Item], None]) -> None:
        try:
            for item in queue:
                work(item)
        finally:
            leave_nothing()

    def leave_nothing() -> None:
        for _ in queue:  # after an error or Ctrl-C
            pass

    helpers: list[_Helper] = []
    ends: list[Future[None]] = []
    try:
        for number, work in enumerate(works[own:], own):
            try:
                helper = _taken()
                helpers.append(helper)
                _allow(helper.number, (processors - here if number else here) or processors)
                ends.append(helper.pool.submit(copy_context().run, help_with, work))
            except RuntimeError:  # the system starts no more: those that are there do it all
                if not (own or ends):
                    raise
                break
        if own:
            drain(works[0])
        for end in ends:
            end.result()
    finally:
        leave_nothing()
        for end in ends:
            end.exception()
        _idle.extend(helpers)


def _taken() -> _Helper:
    try:
        return _idle.pop()
    except IndexError:
        pool = ThreadPoolExecutor(1, "dasksolve")
        return _Helper(pool, pool.submit(get_native_id).result())


def _processors() -> tuple[set[int], set[int]]:
    """Those that the thread that calls may use, and the one where it is; none: not to be told."""
    if not hasattr(os, "sched_setaffinity") or not hasattr(c_library(), "sched_getcpu"):
        return set(), set()
    processors = os.sched_getaffinity(0)
    return processors, {c_library().sched_getcpu()} & processors


def _allow(thread: int, processors: set[int]) -> None:
    """Have a thread run on these alone, if any; 0: the one that calls."""
    if processors:
        with suppress(OSError):  # what may not be said is only lost
            os.sched_setaffinity(thread, processors)
