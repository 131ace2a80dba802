"""Has a kernel compiled by another process: the memory that it takes is then not this one's."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from dasksolve.kernels.compiling.jit import is_cached
from dasksolve.kernels.language.backend import global_compiler_lock

_wanted = ContextVar("compile apart", default=False)
_CHILD = """
import pickle, sys
door, arguments = pickle.loads(bytes.fromhex(sys.argv[1]))
door(*arguments)
"""


@contextmanager
def compiling_apart(wanted: bool) -> Iterator[None]:
    """Within, in this thread: leave it to a child to compile what is not cached on disk."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def compile_apart(dispatcher: Any, signature: Any, door: Any, *arguments: Any) -> None:
    """Fill the cache on disk, if that is wanted; where the child fails, nothing is lost.

    door: the function of `dasksolve.kernels` that was called for this kernel, with its arguments.
    """
    if not _wanted.get():
        return
    with global_compiler_lock:  # the other threads wait for the same kernel
        if not is_cached(dispatcher, signature):
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            what = pickle.dumps((door, arguments)).hex()
            with suppress(OSError, TypeError):  # an embedded interpreter has no executable
                subprocess.run(
                    [sys.executable, "-c", _CHILD, what],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
