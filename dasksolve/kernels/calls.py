"""Calls a kernel from other compiled code, at an address that is found while that code runs.

Which kernel is right depends on N, and compiled code learns N only when it runs. It keeps a table
of addresses, empty at first, and asks Python for what is missing: once for every kind of call, with
the GIL, which the threads of a `prange` may take too. No address outlives the process and no symbol
is left to link, so that the code may be cached on disk: it asks by name, and imports what it needs.
"""

from ctypes import c_byte
from math import prod
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload, register_jitable

from dasksolve.kernels import is_few, is_wide, pick, scaling
from dasksolve.kernels.diagnostics.verdicts import NONFINITE, UNBOUNDED
from dasksolve.kernels.language.backend import as_dtype, cgutils, global_compiler_lock, ir
from dasksolve.kernels.language.lanes import width

ORDERS = 256
"""N from which on the table tells no N from another: kernels for one N alone are for small ones."""

INTERFACE = 5
"""Counted up when a kernel's arguments or the slots change: code on disk may be of an older one."""

_WORD = ir.IntType(64)
_found: dict[int, Any] = {}  # keeps the code at an address from being freed


def address(interface: int, char: int, n: int, k: int, systems: int) -> int:
    """Where the best kernel's machine code begins; compiles it if it must."""
    if interface != INTERFACE:
        raise RuntimeError(
            "a function that numba cached on disk was compiled with another version of dasksolve; "
            "delete its __pycache__, or save its source again"
        )
    with global_compiler_lock:
        kernel: Any = pick("gen", n, k, systems, np.dtype(chr(char)))
        _found[kernel.address] = kernel
        return int(kernel.address)


def solve_again(begin: int, char: int, n: int, k: int, systems: int, *pointers: int) -> int:
    """Solve once more what the kernel found to be out of range, in arrays at these addresses."""
    kernel = _found[begin]
    shapes = (systems, n, n), (systems, n, k), (systems, n, k), (systems,)
    dtype = np.dtype(chr(char))
    a, b, x, status = (
        np.ndarray(shape, kind, (c_byte * (prod(shape) * kind.itemsize)).from_address(pointer))
        for shape, kind, pointer in zip(
            shapes, (dtype, dtype, dtype, np.dtype(np.int8)), pointers, strict=True
        )
    )
    scaling.solve_lost(kernel, lambda lost: [a[lost]], b, x, status)
    return 1


register_jitable(is_few)
register_jitable(is_wide)


@register_jitable
def slot(n: int, k: int, systems: int, lanes: int) -> int:
    """Where the table has the kernel: all that `pick` looks at, as one number."""
    few = is_few(systems, n, k, lanes)
    wide = is_wide(systems, n, k)
    return (((min(n, ORDERS) * 2 + few) * 2 + wide) * 2 + (2 * k >= n)) * 2 + (k == 1)


@intrinsic
def _look_up(typing_context, place, n, k, systems, x):
    """The address at `place` of the table; 0 if Python, asked for it, failed."""
    char = _WORD(ord(as_dtype(x.dtype).char))

    def emit(context, builder, _, arguments):
        place, *numbers, _ = arguments
        kind = ir.ArrayType(_WORD, 16 * (ORDERS + 1))
        table = cgutils.add_global_variable(builder.module, kind, "dasksolve.addresses")
        table.linkage, table.initializer = "internal", ir.Constant(kind, None)
        entry = builder.gep(table, [_WORD(0), place])
        found = builder.load_atomic(entry, "acquire", 8)
        result = cgutils.alloca_once_value(builder, found)
        with cgutils.if_unlikely(builder, cgutils.is_null(builder, found)):
            _ask(context, builder, address, [_WORD(INTERFACE), char, *numbers], result)
            builder.store_atomic(builder.load(result), entry, "release", 8)
        return builder.load(result)

    return types.intp(types.intp, types.intp, types.intp, types.intp, x), emit


def _ask(context, builder, function, numbers, result):
    """Put what a function of this module returns into `result`; an exception is printed."""
    api = context.get_python_api(builder)
    state = api.gil_ensure()
    module = api.import_module(context.insert_const_string(builder.module, __name__))
    with cgutils.if_likely(builder, cgutils.is_not_null(builder, module)):
        objects = list(map(api.long_from_longlong, numbers))
        answer = api.call_method(module, function.__name__, objects)
        with cgutils.if_likely(builder, cgutils.is_not_null(builder, answer)):
            builder.store(api.long_as_longlong(answer), result)
            api.decref(answer)
        for held in (*objects, module):
            api.decref(held)
    with cgutils.if_unlikely(builder, cgutils.is_not_null(builder, api.err_occurred())):
        api.err_write_unraisable(api.get_null_object())
    api.gil_release(state)


@intrinsic
def _call(typing_context, begin, a, b, x, status):
    """Run the machine code at `begin`, a kernel's."""
    arrays = a, b, x, status

    def emit(context, builder, _, arguments):
        begin, *values = arguments
        kind = context.call_conv.get_function_type(types.none, arrays)
        code = builder.inttoptr(begin, kind.as_pointer())
        context.call_conv.call_function(builder, code, types.none, arrays, values)
        return context.get_dummy_value()

    return types.none(types.intp, *arrays), emit


@intrinsic
def _solve_again(typing_context, begin, a, b, x, status):
    """Have Python solve once more what was out of range."""
    char = _WORD(ord(as_dtype(x.dtype).char))

    def emit(context, builder, signature, arguments):
        begin, *values = arguments
        arrays = [
            context.make_array(kind)(context, builder, value=value)
            for kind, value in zip(signature.args[1:], values, strict=True)
        ]
        systems, n, k = cgutils.unpack_tuple(builder, arrays[2].shape)
        pointers = [builder.ptrtoint(array.data, _WORD) for array in arrays]
        result = cgutils.alloca_once_value(builder, _WORD(0))
        numbers = [begin, char, n, k, systems, *pointers]
        _ask(context, builder, solve_again, numbers, result)
        return context.get_dummy_value()

    return types.none(types.intp, a, b, x, status), emit


def kernel_for(n, k, systems, x):
    """Inside compiled code: the address of the kernel that suits so many systems of x's dtype."""
    raise NotImplementedError


@overload(kernel_for)
def _kernel_for(n, k, systems, x):
    lanes = width(as_dtype(x.dtype))

    def find(n, k, systems, x):
        place = slot(n, k, systems, lanes)
        return _look_up(place, n, k, systems, x)  # type: ignore[call-arg]  # numba gives the first

    return find


@register_jitable
def call(begin, a, b, x, status):
    """Inside compiled code: call the kernel at `begin`; all arrays as `kernels` wants them."""
    _call(begin, a, b, x, status)  # type: ignore[call-arg]  # numba gives the first
    lost = False
    for verdict in status:
        lost |= verdict == UNBOUNDED
    if lost:
        _solve_again(begin, a, b, x, status)
        for m in range(len(status)):  # where that failed, too
            if status[m] == UNBOUNDED:
                status[m] = NONFINITE
