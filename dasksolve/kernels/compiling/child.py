"""Has a kernel compiled by another process: the memory that it takes is then not this one's."""

import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from dasksolve.kernels.compiling.jit import has_cache, is_cached
from dasksolve.kernels.language.backend import global_compiler_lock

logger = logging.getLogger(__name__)

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
    """Fill the cache on disk, if that is wanted; where the child fails, only memory is lost.

    door: the function of `dasksolve.kernels` that was called for this kernel, with its arguments.
    """
    if not _wanted.get() or not has_cache():
        return
    with global_compiler_lock:  # the other threads wait for the same kernel
        if is_cached(dispatcher, signature):
            return
        failure = _compiled_by_child(door, arguments)
        if not is_cached(dispatcher, signature):
            logger.warning(
                "a kernel is compiled in this process, where it may take 100 MiB more than the "
                "memory limit allows for: the process that was to compile it for the cache %s",
                failure,
            )


def _compiled_by_child(door: Any, arguments: tuple[Any, ...]) -> str:
    """Have it compile; return how that went, should the kernel not be there."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    what = pickle.dumps((door, arguments)).hex()
    try:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, what],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
    except (OSError, TypeError) as error:  # an embedded interpreter has no executable
        return f"could not begin: {error}"
    last = child.stderr.strip().rpartition("\n")[2]
    return f"ended with {child.returncode}" + (f": {last}" if last else "")
