"""Kernels of one dtype, compiled and ready to be called."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, types

from dasksolve.kernels.compiling.child import compile_apart
from dasksolve.kernels.compiling.jit import compilation, jit, named, warn_without_fma
from dasksolve.kernels.regimes import alone

Kernel = Callable[..., None]
STATUS = types.Array(types.int8, 1, "C")


@cache
def compiled(
    make: Callable[..., Any],
    n: int,
    dtype: np.dtype[Any],
    diagnostics: bool = False,
    *options: bool,
) -> Kernel:
    """The kernel that `make` makes, compiled for one dtype; n is 0 where it takes any order."""
    solve = make(n, *options)
    dispatcher = jit(solve if diagnostics else named(alone(solve), solve.unique_name))
    read, write = arrays(dtype)
    number = types.Array(types.float64, 1, "C")
    signature = (read, read, write, STATUS, *([number, number] if diagnostics else []))
    return ready(dispatcher, signature, compiled, make, n, dtype, diagnostics, *options)


def arrays(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The types of what is read and of what is written."""
    element = from_dtype(dtype)
    return types.Array(element, 3, "C", readonly=True), types.Array(element, 3, "C")


def ready(dispatcher: Any, signature: tuple[Any, ...], door: Any, *arguments: Any) -> Any:
    """Compile a kernel, or load it.

    door: the function that was called for it, with its arguments, as a child may have to.
    """
    compile_apart(dispatcher, signature, door, *arguments)
    warn_without_fma()
    with compilation():
        dispatcher.compile(signature)
        # Now: processes that compile apart give their kernels the same name, and asked for it later
        # numba finds the one that was loaded last.
        (found,) = dispatcher.overloads.values()
        name = found.fndesc.llvm_func_name
        dispatcher.address = found.library.get_pointer_to_function(name)
    dispatcher.disable_compile()  # numba would rather compile another one for writable a and b
    return dispatcher
