"""SIMD vectors as a numba type with operators, real and complex.

An *operation* is a plain Python function on emitted vectors: numba calls it while it compiles, and
what it does to the vectors becomes machine code where the call stood. Loops in it run at compile
time, so they cost nothing later: the same function is the source of straight-line code for any
dtype. Products and sums are never contracted: where a rounding is to be saved, `fma` says so.
"""

import operator
from typing import Any

import numpy as np
from numba import types
from numba.extending import lower_builtin, models, register_model

from dasksolve.kernels.language.backend import AbstractTemplate, infer_global, ir, signature
from dasksolve.kernels.language.target import VECTOR_BYTES
from dasksolve.kernels.language.values import (
    INDEX,
    Bits,
    Emitted,
    Index,
    Pair,
    Vector,
    joined,
    resized,
    unpaired,
)

# Pivots whose products are summed before they are subtracted.
PANEL = 8


def width(dtype: Any, vector_bytes: int = VECTOR_BYTES) -> int:
    """Lanes of a vector of `dtype`; a complex one is a pair of real vectors with as many lanes."""
    return vector_bytes // np.zeros((), np.dtype(getattr(dtype, "name", dtype))).real.itemsize


class Lanes(types.Type):
    """`count` numbers that are computed on together."""

    def __init__(self, dtype, count):
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Lanes({dtype} x {count})")

    @property
    def real(self):
        return Lanes(getattr(self.dtype, "underlying_float", self.dtype), self.count)


class Mask(types.Type):
    """`count` truth values, as a comparison of lanes gives."""

    def __init__(self, count):
        self.count = count
        super().__init__(name=f"Mask({count})")


def scalar_type(dtype):
    """The LLVM type of a real or integer number."""
    if dtype in (types.float32, types.float64):
        return ir.FloatType() if dtype == types.float32 else ir.DoubleType()
    return ir.IntType(dtype.bitwidth)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes):
        vector = ir.VectorType(scalar_type(lanes.real.dtype), lanes.count)
        pair = isinstance(lanes.dtype, types.Complex)
        super().__init__(manager, lanes, ir.LiteralStructType([vector, vector]) if pair else vector)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, mask):
        super().__init__(manager, mask, ir.VectorType(ir.IntType(1), mask.count))


# How the values of a numba type look to an operation.
LIFT = {
    Lanes: lambda context, builder, lanes, value: (
        unpaired if isinstance(lanes.dtype, types.Complex) else Vector
    )(builder, value),
    Mask: lambda context, builder, mask, value: Bits(builder, (value,)),
    types.NoneType: lambda context, builder, none, value: None,
    types.Literal: lambda context, builder, literal, value: literal.literal_value,
    types.Integer: lambda context, builder, integer, value: Index(
        builder, resized(builder, value, INDEX)
    ),
    types.Float: lambda context, builder, number, value: Emitted(builder, value),
    types.Complex: lambda context, builder, number, value: unpaired(builder, value, Emitted),
    types.BaseTuple: lambda context, builder, several, value: tuple(
        lifted(context, builder, kind, builder.extract_value(value, i))
        for i, kind in enumerate(several)
    ),
}


def lifted(context, builder, kind, value):
    for cls in type(kind).__mro__:
        if cls in LIFT:
            return LIFT[cls](context, builder, kind, value)
    raise NotImplementedError(f"an operation was given {kind}")


def operation(returns, *operands):
    """Let numba call a function on emitted values; `returns` maps argument types to its type.

    `operands` are the classes of the arguments where the function is an operator of Python.
    """

    def register(function):
        class Template(AbstractTemplate):
            key = function
            prefer_literal = not operands

            def generic(self, args, kws):
                result = returns(*args)
                return None if result is None else signature(result, *args)

        def emit(context, builder, kind, values):
            pairs = zip(kind.args, values, strict=True)
            result = function(*(lifted(context, builder, *pair) for pair in pairs))
            if isinstance(result, tuple):
                members = [member.value for member in result]
                return context.make_tuple(builder, kind.return_type, members)
            return context.get_dummy_value() if result is None else result.value

        infer_global(function, types.Function(Template))
        lower_builtin(function, *operands or [types.VarArg(types.Any)])(emit)
        return function

    return register


def nothing(*kinds):
    return types.void


def first(*kinds):
    """The type of the first argument, where all have it."""
    return kinds[0] if isinstance(kinds[0], Lanes) and len(set(kinds)) == 1 else None


def compared(*kinds):
    return first(*kinds) and Mask(kinds[0].count)


def mask_type(*kinds):
    return kinds[0] if isinstance(kinds[0], Mask) and len(set(kinds)) == 1 else None


for _returns, _operands, _operators in (
    (first, (Lanes, Lanes), (operator.add, operator.sub, operator.mul, operator.truediv)),
    (first, (Lanes,), (operator.neg, abs)),
    (compared, (Lanes, Lanes), (operator.lt, operator.le, operator.gt, operator.ge)),
    (compared, (Lanes, Lanes), (operator.eq, operator.ne)),
    (mask_type, (Mask, Mask), (operator.and_, operator.or_)),
    (mask_type, (Mask,), (operator.invert,)),
):
    for _operator in _operators:
        operation(_returns, *_operands)(_operator)


@operation(first)
def product(x, y):
    """x y as the first term of a sum that `fma` continues, in OpenBLAS's order if complex."""
    if isinstance(x, Vector):
        return x * y
    real = fma(x.real, y.real, -(x.imag * y.imag))
    return Pair(real, fma(x.real, y.imag, x.imag * y.real))


@operation(first)
def fma(x, y, z):
    """z + x y, rounded once (a complex one: two real fma for each part).

    Where the processor has no fma, rounded twice: a call of libm would take ten times as long.
    """
    if isinstance(x, Vector):
        return x.fma(y, z)
    real = fma(x.real, y.real, fnma(x.imag, y.imag, z.real))
    return Pair(real, fma(x.real, y.imag, fma(x.imag, y.real, z.imag)))


@operation(first)
def fnma(x, y, z):
    """z - x y, rounded once (a complex one: two real fma for each part)."""
    return (-x).fma(y, z) if isinstance(x, Vector) else fma(-x, y, z)


@operation(first)
def conjugate(x):
    """The complex conjugate; of a real number, itself."""
    return x if isinstance(x, Vector) else Pair(x.real, -x.imag)


def real_part(x):
    """The real parts of emitted numbers."""
    return x if isinstance(x, Vector) else x.real


@operation(first)
def scaled(x, factor):
    """x times the real part of `factor`."""
    factor = real_part(factor)
    return x * factor if isinstance(x, Vector) else Pair(x.real * factor, x.imag * factor)


@operation(first)
def unsigned_zero(x):
    """x, but 0 for -0.0: where a kernel pads with zeros, a sum of them may have either sign."""
    return x + x.fill(0)


@operation(first)
def square_root(x):
    """The square root of real numbers; NaN of negative ones."""
    return x.call("sqrt")


def inner(left, right):
    """Σ left right, for operations."""
    total = product(left[0], right[0])
    for factors in zip(left[1:], right[1:], strict=True):
        total = fma(*factors, total)
    return total


@operation(lambda mask, x, y: first(x, y) if isinstance(mask, Mask) else None)
def where(mask, x, y):
    """Lanes of x where the mask is set, of y elsewhere."""
    if isinstance(x, Pair):
        return Pair(where(mask, x.real, y.real), where(mask, x.imag, y.imag))
    if len(mask.parts) != len(x.registers):  # of numbers of another size
        return x.new(x.builder.select(mask.value, x.value, y.value))
    parts = zip(mask.parts, x.registers, y.registers, strict=True)
    return joined(x.new(x.builder.select(part, p.value, q.value)) for part, p, q in parts)


@operation(lambda x: x.real)
def magnitude(x):
    """|x|, or |re| + |im| as LAPACK's izamax compares pivots: cheaper than the modulus."""
    return abs(x) if isinstance(x, Vector) else abs(x.real) + abs(x.imag)


@operation(first)
def reciprocal(x):
    """1 / x; of a complex number by Smith's method, which does not overflow on the way."""
    if isinstance(x, Vector):
        return x.fill(1) / x
    upright = abs(x.real) >= abs(x.imag)
    large, small = where(upright, x.real, x.imag), where(upright, x.imag, x.real)
    ratio = small / large
    near = reciprocal(large * (ratio.fill(1) + ratio * ratio))
    far = ratio * near
    return Pair(where(upright, near, far), -where(upright, far, near))


@operation(lambda number, like: like if isinstance(like, Lanes) else like.lanes)
def splat(number, like):
    """`number` in every lane of a vector of the type of `like` (lanes, or a tile of them)."""
    return like.fill(number)


@operation(lambda x, index: x.dtype)
def lane(x, index):
    """The number in lane `index`."""
    return x.lane(index)


@operation(lambda x: x.dtype)
def highest(x):
    """The largest of the lanes, which are real; NaN where any is."""
    while x.count > 1:
        half = x.count // 2
        low, high = x.shuffle(x, range(half)), x.shuffle(x, range(half, x.count))
        x = where((high <= low) | (low != low), low, high)
    return x.lane(0)


def _bits(mask):
    count = mask.value.type.count
    return mask.builder.bitcast(mask.value, ir.IntType(count)), ir.Constant(ir.IntType(count), 0)


@operation(lambda mask: types.boolean)
def any_lane(mask):
    """Whether the mask is set in any lane."""
    bits, none = _bits(mask)
    return Emitted(mask.builder, mask.builder.icmp_unsigned("!=", bits, none))
