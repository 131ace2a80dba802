"""Threads that are kept from one piece of work to the next."""

import errno
import os
import re
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import SimpleNamespace

import pytest

from dasksolve.storage import threads

WHO = ContextVar("who", default="nobody")


def those_that_work(own: bool) -> set[int]:
    """The threads that two functions run in, which wait for each other."""
    together, found = threading.Barrier(2), set[int]()

    def work(_: int) -> None:
        together.wait(60)
        found.add(threading.get_ident())

    threads.share(range(6), [work, work], own)
    return found


def test_the_thread_that_calls_works_and_the_others_are_kept() -> None:
    first, again = those_that_work(own=True), those_that_work(own=True)
    assert first == again
    assert len(first) == 2
    assert threading.get_ident() in first


def test_the_thread_that_calls_only_waits_where_it_has_a_loop_that_runs() -> None:
    first, again = those_that_work(own=False), those_that_work(own=False)
    assert first == again
    assert len(first) == 2
    assert threading.get_ident() not in first


@pytest.mark.parametrize("own", [True, False])
def test_each_item_is_done_once_and_by_threads_that_know_the_context(own: bool) -> None:
    done: list[tuple[int, str]] = []

    def work(item: int) -> None:
        done.append((item, WHO.get()))

    token = WHO.set("somebody")
    try:
        threads.share(range(1000), [work] * 3, own)
    finally:
        WHO.reset(token)
    assert sorted(done) == [(i, "somebody") for i in range(1000)]


class Item:
    """One of a queue, which is empty once nobody has the last."""

    def __init__(self, number: int) -> None:
        self.number = number


@pytest.mark.parametrize("where", ["here", "there"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_ends_all_and_is_raised_once_they_have_ended(
    where: str, error: type[BaseException]
) -> None:
    caller, begun, emptied = threading.get_ident(), threading.Barrier(2), threading.Event()
    done: list[int] = []

    def items() -> Iterator[Item]:
        for number in range(1000):
            item = Item(number)
            if number == 999:
                weakref.finalize(item, emptied.set)
            yield item

    def work(item: Item) -> None:
        if item.number < 2:
            begun.wait(60)
            if (threading.get_ident() == caller) == (where == "here"):
                raise error
        else:
            assert emptied.wait(60)
        done.append(item.number)

    kept = len(threads._idle)
    with pytest.raises(error):
        threads.share(items(), [work, work], own=True)
    assert len(done) <= 2  # what was begun before the error
    assert len(threads._idle) == max(kept, 1)
    threads.share(range(2), [lambda _: None] * 2, own=True)


def test_threads_within_threads_do_not_wait_for_each_other() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        threads.share(range(10), [lambda i: done.append(10 * item + i)] * 2, own=True)

    threads.share(range(4), [work] * 2, own=True)
    assert sorted(done) == [*range(40)]


def test_where_no_thread_can_be_started_the_one_that_calls_does_it_all(
    monkeypatch: pytest.MonkeyPatch, no_threads: Callable[[], AbstractContextManager[None]]
) -> None:
    monkeypatch.setattr(threads, "_idle", [])
    done: list[int] = []
    with no_threads():
        threads.share(range(10), [done.append] * 3, own=True)
        assert done == [*range(10)]
        assert not threads._idle
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threads.share(range(10), [done.append] * 3, own=False)


AT_THE_END = """
import atexit, sys
from dasksolve.storage.threads import share

def end():
    done = []
    share(range(10), [done.append] * 2, own=True)
    print(done)
    try:
        share(range(10), [done.append] * 2, own=False)
    except RuntimeError as error:
        print(error)

if "kept" in sys.argv:
    share(range(2), [lambda _: None] * 2, own=True)
atexit.register(end)
"""


@pytest.mark.parametrize("words", [[], ["kept"]])
def test_where_the_program_ends_the_thread_that_calls_does_it_all(words: list[str]) -> None:
    program = [sys.executable, "-c", AT_THE_END, *words]
    ended = subprocess.run(program, capture_output=True, text=True, check=True)
    done, error = ended.stdout.splitlines()
    assert done == str([*range(10)])
    assert re.search("after .*shutdown", error)
    assert ended.stderr == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_the_child_of_a_fork_has_threads_of_its_own() -> None:
    those_that_work(own=True)
    assert threads._idle
    end, begin = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forked while there are threads
        child = os.fork()
    if not child:
        try:
            os.write(begin, bytes([len(threads._idle), len(those_that_work(own=True))]))
        finally:
            os._exit(0)
    os.close(begin)
    assert os.waitpid(child, 0)[1] == 0
    with open(end, "rb") as told:
        assert told.read() == bytes([0, 2])


def processors() -> set[int]:
    """Those that this thread may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


can_be_told = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="the system's threads cannot be told where to run"
)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[int], set[int]]]:
    """Of each helper that begins: where it was allowed to, and where it is from then on."""
    found: list[tuple[set[int], set[int]]] = []
    set_affinity = os.sched_setaffinity

    def telling(thread: int, processors: set[int]) -> None:
        before = os.sched_getaffinity(0)
        set_affinity(thread, processors)
        if thread == 0:
            found.append((before, os.sched_getaffinity(0)))

    monkeypatch.setattr(os, "sched_setaffinity", telling)
    return found


@can_be_told
@pytest.mark.skipif(len(processors()) < 2, reason="there is one processor")
@pytest.mark.parametrize("own", [True, False])
def test_a_helper_begins_on_another_processor_than_the_thread_that_works_beside_it(
    own: bool, told: list[tuple[set[int], set[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = min(processors())
    elsewhere = processors() - {here}
    monkeypatch.setattr(threads, "c_library", lambda: SimpleNamespace(sched_getcpu=lambda: here))
    those_that_work(own)
    began = [elsewhere] if own else [{here}, elsewhere]
    assert sorted(told, key=str) == sorted([(one, processors()) for one in began], key=str)


@can_be_told
def test_a_helper_may_use_the_processors_of_the_thread_that_calls() -> None:
    every, found = processors(), set[frozenset[int]]()
    those_that_work(own=True)

    def call(allowed: set[int]) -> None:
        os.sched_setaffinity(0, allowed)
        together = threading.Barrier(2)

        def work(_: int) -> None:
            together.wait(60)
            found.add(frozenset(processors()))

        threads.share(range(2), [work, work], own=True)

    for allowed in ({max(every)}, every):
        found.clear()
        caller = threading.Thread(target=call, args=(allowed,))
        caller.start()
        caller.join()
        assert found == {frozenset(allowed)}


@can_be_told
def test_where_no_thread_may_be_told_all_is_done_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refused)
    assert len(those_that_work(own=True)) == 2
