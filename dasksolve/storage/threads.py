"""Threads that are kept from one piece of work to the next.

One that is new is often put on a processor that is busy, beside an idle one, for as long as all
that there is to do takes: of two, in half of the calls of 7 ms.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")

_idle: list[ThreadPoolExecutor] = []
"""Of one thread each."""
if hasattr(os, "register_at_fork"):  # a child has none of the threads
    os.register_at_fork(after_in_child=_idle.clear)


def share(items: Iterable[Item], works: Sequence[Callable[[Item], None]], own: bool) -> None:
    """Give each item to one of several functions, each of which runs in a thread.

    own: the first of them runs in the thread that calls, which only waits otherwise.
    """
    queue = iter(list(items))  # a list's iterator hands each item to one thread only

    def drain(work: Callable[[Item], None]) -> None:
        try:
            for item in queue:
                work(item)
        finally:
            leave_nothing()

    def leave_nothing() -> None:
        for _ in queue:  # after an error or Ctrl-C
            pass

    helpers: list[ThreadPoolExecutor] = []
    ends: list[Future[None]] = []
    try:
        for work in works[own:]:
            helper = _taken()
            try:
                ends.append(helper.submit(copy_context().run, drain, work))
            except RuntimeError:  # the system starts no more: those that are there do it all
                if not (own or ends):
                    raise
                break
            helpers.append(helper)
        if own:
            drain(works[0])
        for end in ends:
            end.result()
    finally:
        leave_nothing()
        for end in ends:
            end.exception()
        _idle.extend(helpers)


def _taken() -> ThreadPoolExecutor:
    try:
        return _idle.pop()
    except IndexError:
        return ThreadPoolExecutor(1, "dasksolve")
