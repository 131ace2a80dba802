"""Lets a process fork while a thread of it compiles: its child would wait for that for ever."""

import os

from dasksolve.kernels.language.backend import global_compiler_lock


def register() -> None:
    """Have every fork wait until nothing is being compiled; where there is none, do nothing."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=global_compiler_lock.acquire,
            after_in_parent=global_compiler_lock.release,
            after_in_child=global_compiler_lock.release,
        )
