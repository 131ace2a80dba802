"""The one compile policy: serial, without the GIL, never raising, cached on disk where possible."""

from collections.abc import Callable
from typing import Any

import numba

_OPTIONS: Any = {"nogil": True, "error_model": "numpy"}


def jit(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba found no place for its cache that it may write to
        return numba.njit(**_OPTIONS)(function)
