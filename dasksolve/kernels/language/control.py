"""Loops that are emitted, variables that change in them, and what LLVM is kept from doing."""

from contextlib import contextmanager

from dasksolve.kernels.language.backend import cgutils, ir
from dasksolve.kernels.language.values import Index, Pair, Vector, index_value, unpaired


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


def opaque(emitted):
    """An index, or a pointer, of which LLVM shall not know how it came about."""
    kind = emitted.value.type
    same = ir.FunctionType(kind, [kind])
    value = emitted.builder.asm(same, "", "=r,0", [emitted.value], side_effect=True)
    return type(emitted)(emitted.builder, value)


def align_stack(builder):
    """Give vectors that do not fit in registers cache lines of their own."""
    attributes = builder.function.attributes
    attributes.add("nounwind")  # llvmlite drops the alignment of a function without attributes
    attributes.alignstack = 64


def never_inline(builder):
    """Compile the function that is being emitted once, however often it is called."""
    builder.function.attributes.add("noinline")
