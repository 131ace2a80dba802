"""Loops that are emitted, variables that change in them, and what LLVM is kept from doing."""

from contextlib import contextmanager

from dasksolve.kernels.language.backend import cgutils, ir
from dasksolve.kernels.language.target import FEW_REGISTERS
from dasksolve.kernels.language.values import (
    Bits,
    Index,
    Pair,
    Vector,
    index_value,
    joined,
    unpaired,
)


@contextmanager
def loop(builder, start, stop):
    """Emit a loop that runs over the integers start … stop when the program runs."""
    bounds = index_value(start), index_value(stop), index_value(1)
    with cgutils.for_range_slice(builder, *bounds, inc=True) as (value, _):
        yield Index(builder, value)


class Variable:
    """Lanes that change in an emitted loop."""

    def __init__(self, lanes):
        self.builder, self.paired = lanes.builder, isinstance(lanes, Pair)
        self.place = cgutils.alloca_once_value(self.builder, lanes.value)

    def get(self):
        value = self.builder.load(self.place)
        return (unpaired if self.paired else Vector)(self.builder, value)

    def set(self, lanes):
        self.builder.store(lanes.value, self.place)


def forget_registers(builder):
    """Keep LLVM from holding (and so spilling) what a tile in memory holds already."""
    nothing = ir.FunctionType(ir.VoidType(), [])
    builder.asm(nothing, "", "~{memory}", [], side_effect=True)


def empty_registers(builder):
    """Have all lanes in memory here, where registers are few, so that a loop has them to itself.

    LLVM knows no loop that is worth more than others: without, it keeps a sum in memory, and one
    that takes 4 cycles for an addition takes 12.
    """
    every = ["memory", *(f"xmm{i}" for i in range(16 if FEW_REGISTERS else 0))]
    nothing = ir.FunctionType(ir.VoidType(), [])
    builder.asm(nothing, "", ",".join(f"~{{{name}}}" for name in every), [], side_effect=True)


def opaque(emitted):
    """An index, or a pointer, of which LLVM shall not know how it came about."""
    value = _unexplained(emitted.builder, emitted.value, "r", True)
    return type(emitted)(emitted.builder, value)


def _unexplained(builder, value, registers, here=False):
    """The value, after a statement of which LLVM knows its registers alone, and its place if here.

    It is empty.
    """
    same = ir.FunctionType(value.type, [value.type])
    return builder.asm(same, "", f"={registers},0", [value], side_effect=here)


def overwriting(x):
    """Lanes that were chosen from what will be overwritten by them, and from others.

    LLVM would store those alone that are others, for which AMD's processors take 40 steps before
    AVX-512: N = 16 of float32 takes half as long without.
    """
    if not FEW_REGISTERS:
        return x
    if isinstance(x, Pair):
        return Pair(overwriting(x.real), overwriting(x.imag))
    parts = (_unexplained(x.builder, part.value, "x") for part in x.registers)
    return joined(x.new(part) for part in parts)


def held(mask, like):
    """A mask for many uses, as wide as the vectors `like` if there are no registers of masks.

    LLVM would hold narrower integers, and widen them for each use.
    """
    if not FEW_REGISTERS:
        return mask
    builder, kind = mask.builder, like.bits.value.type.element
    parts = []
    for part in mask.parts:
        wide = ir.VectorType(kind, part.type.count)
        ones = _unexplained(builder, builder.sext(part, wide), "x")
        parts.append(builder.icmp_signed("<", ones, ir.Constant(wide, None)))
    return Bits(builder, tuple(parts))


def align_stack(builder):
    """Give vectors that do not fit in registers cache lines of their own."""
    attributes = builder.function.attributes
    attributes.add("nounwind")  # llvmlite drops the alignment of a function without attributes
    attributes.alignstack = 64


def never_inline(builder):
    """Compile the function that is being emitted once, however often it is called."""
    builder.function.attributes.add("noinline")
