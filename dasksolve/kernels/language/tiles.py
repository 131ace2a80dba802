"""Vectors in memory: arrays as NumPy sees them, and tiles, which hold a vector in every element."""

import operator
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, models, register_model

from dasksolve.kernels.compiling.jit import holder
from dasksolve.kernels.language.backend import cgutils, ir
from dasksolve.kernels.language.control import opaque
from dasksolve.kernels.language.lanes import (
    LIFT,
    Lanes,
    nothing,
    operation,
    scalar_type,
    splat,
    width,
)
from dasksolve.kernels.language.target import FEW_REGISTERS, SCATTERS, VECTOR_BYTES
from dasksolve.kernels.language.values import (
    INDEX,
    Emitted,
    Index,
    Pair,
    Vector,
    index_value,
    parts_of,
    resized,
)


class Tile(types.Type):
    """A matrix whose elements are lanes: t[i, j] loads a vector, t[i, j] = v stores one.

    Its rows stand in memory one after the other, or its columns if it is `by_columns`.
    """

    def __init__(self, buffer, count, by_columns):
        self.buffer, self.lanes = buffer, Lanes(buffer.dtype, count)
        self.by_columns = by_columns
        super().__init__(name=f"Tile({self.lanes}, {buffer}, {by_columns})")

    @property
    def bytes(self):
        """Of a vector of real numbers: what the elements are aligned to."""
        return self.lanes.count * self.lanes.real.dtype.bitwidth // 8


@register_model(Tile)
class _TileModel(models.StructModel):
    def __init__(self, manager, tile):
        # The buffer is only held, so that it lives as long as the tile.
        data = types.CPointer(tile.lanes.real.dtype)
        super().__init__(
            manager, tile, [("buffer", tile.buffer), ("data", data), ("span", types.intp)]
        )


class Memory:
    """Emitted access to consecutive real numbers; a complex number is two of them."""

    def __init__(self, builder, data, lanes):
        self.builder, self.data, self.lanes = builder, data, lanes
        self.parts = 2 if isinstance(lanes.dtype, types.Complex) else 1

    @property
    def doubles(self):
        """Whether its real numbers, or real and imaginary parts, are of double precision."""
        return self.lanes.real.dtype == types.float64

    @property
    def piece(self):
        """How many real numbers have 16 bytes, within which the shuffles of x86 are cheapest."""
        return 16 * 8 // self.lanes.real.dtype.bitwidth

    def pointer(self, offset, count):
        kind = ir.VectorType(scalar_type(self.lanes.real.dtype), count)
        pointer = self.data
        base, constant = parts_of(offset)
        if base is not None:
            pointer = self.builder.gep(pointer, [base])
        if constant:
            pointer = self.builder.gep(pointer, [INDEX(constant)])
        return self.builder.bitcast(pointer, kind.as_pointer())

    def beyond(self, index):
        """What begins with element `index`."""
        data = self.builder.gep(self.data, [index_value(index * self.parts)])
        return Memory(self.builder, data, self.lanes)

    def load(self, offset, count, align=1):
        pointer = self.pointer(offset, count)
        size = self.lanes.real.dtype.bitwidth // 8
        return Vector(self.builder, self.builder.load(pointer, align=align * size))

    def store(self, offset, vector, align=1):
        pointer = self.pointer(offset, vector.count)
        size = self.lanes.real.dtype.bitwidth // 8
        self.builder.store(vector.value, pointer, align=align * size)

    def put_number(self, place, number):
        """array.flat[place] = number: LLVM may end the process over vectors of one side by side."""
        self.builder.store(number.value, self.builder.gep(self.data, [index_value(place)]))

    def number(self, value):
        """A constant, the same in the imaginary part."""
        part = Vector(self.builder, ir.Constant(self.data.type.pointee, value))
        return part if self.parts == 1 else Pair(part, part)

    def integers(self, vector):
        """The vector as integers of the array's dtype."""
        kind = ir.VectorType(self.data.type.pointee, vector.count)
        return vector.new(self.builder.fptosi(vector.value, kind))

    def numbers(self, vector):
        """The vector in the array's dtype, if that is one of integers."""
        whole = isinstance(self.data.type.pointee, ir.IntType)
        return self.integers(vector) if whole else vector

    def put(self, places, vector):
        """array.flat[places[l]] = lane l of the vector, as an integer."""
        integers = self.integers(vector)
        for lane, place in enumerate(places):
            self.put_number(place, integers.lane(lane))


class EmittedTile(Memory):
    """Emitted access to a tile: the real parts of a vector stand before its imaginary parts."""

    def __init__(self, builder, data, lanes, span, by_columns=False):
        super().__init__(builder, data, lanes)
        self.span, self.by_columns = span, by_columns

    def again(self):
        """The same tile, by a copy of its address.

        Else LLVM may load the one that it has spilled for each access: N = 16 took a third longer.
        """
        return self._elsewhere(opaque(Emitted(self.builder, self.data)).value)

    def beginning(self, i, j):
        """The tile from element [i, j] on."""
        return self._elsewhere(self.builder.gep(self.data, [index_value(self.offset(i, j))]))

    def _elsewhere(self, data):
        return EmittedTile(self.builder, data, self.lanes, self.span, self.by_columns)

    def offset(self, i, j):
        major, minor = (j, i) if self.by_columns else (i, j)
        return (major * self.span + minor) * (self.parts * self.lanes.count)

    def integer(self, i, lane):
        """The number in one lane of the first column of a tile of integers."""
        value = self.load(self.offset(i, 0) + lane, 1).lane(0).value
        return Index(self.builder, resized(self.builder, value, INDEX))

    @property
    def columns_of_four(self):
        """How many columns of four rows' sums stay in registers, beside what they are made of.

        Where registers are few, N = 64 of float64 takes three quarters of the time of four columns,
        and two thirds with Cholesky; of complex numbers, one column is no faster than two.
        """
        return 2 if FEW_REGISTERS or self.parts == 2 else 4

    @property
    def trades(self):
        """Whether `trade` is at hand, and faster than one number after the other."""
        return SCATTERS and self.lanes.real == Lanes(types.float32, 16)

    def trade(self, offset, places, x):
        """The numbers at offset + places[lane], in whose places those of x are put."""
        byte, flags = ir.IntType(8).as_pointer(), ir.VectorType(ir.IntType(1), x.count)
        address, size = self.builder.bitcast(self.pointer(offset, 1), byte), ir.IntType(32)(4)
        number, every = x.value.type, flags([1] * x.count)
        found = [ir.Constant(number, ir.Undefined), address, places.value, every, size]
        put = [address, every, places.value, x.value, size]
        traded = x.new(self._instruction("gather", number, found))
        self._instruction("scatter", ir.VoidType(), put)
        return traded

    def _instruction(self, name, returns, operands):
        """One of AVX-512, for sixteen numbers of single precision."""
        kind = ir.FunctionType(returns, [operand.type for operand in operands])
        name = f"llvm.x86.avx512.mask.{name}.dps.512"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, operands)

    def whole(self, i, j, lane):
        """The integer in one lane of an element that `row_places` made."""
        bits = self.load(self.offset(i, j) + lane, 1).bits.lane(0).value
        return Index(self.builder, resized(self.builder, bits, INDEX))

    def __getitem__(self, position):
        count = self.lanes.count
        at = self.offset(*position)
        parts = [self.load(at + p * count, count, count) for p in range(self.parts)]
        return parts[0] if self.parts == 1 else Pair(*parts)

    def __setitem__(self, position, vector):
        count = self.lanes.count
        at = self.offset(*position)
        parts = [vector] if self.parts == 1 else [vector.real, vector.imag]
        for p, values in enumerate(parts):
            self.store(at + p * count, values, count)

    def fill(self, number):
        empty = ir.VectorType(scalar_type(self.lanes.real.dtype), self.lanes.count)
        part = Vector(self.builder, ir.Constant(empty, ir.Undefined))
        return (part if self.parts == 1 else Pair(part, part)).fill(number)


def _lift_array(context, builder, array, value):
    data = cgutils.create_struct_proxy(array)(context, builder, value=value).data
    lanes = Lanes(array.dtype, 1)
    return Memory(builder, builder.bitcast(data, scalar_type(lanes.real.dtype).as_pointer()), lanes)


def _lift_tile(context, builder, tile, value):
    parts = cgutils.create_struct_proxy(tile)(context, builder, value=value)
    span = Index(builder, parts.span)
    return EmittedTile(builder, parts.data, tile.lanes, span, tile.by_columns)


LIFT[types.Array] = _lift_array
LIFT[Tile] = _lift_tile


def _element(tile, position):
    return tile.lanes if isinstance(tile, Tile) else None


def _stored(tile, position, lanes):
    return types.void if isinstance(tile, Tile) and lanes == tile.lanes else None


operation(_element, Tile, types.BaseTuple)(operator.getitem)
operation(_stored, Tile, types.BaseTuple, Lanes)(operator.setitem)


def tiles_of(lanes: Any, by_columns: bool = False) -> tuple[Any, Any]:
    """What makes tiles whose vectors have lanes(dtype) lanes, and what says how many these are."""

    @intrinsic
    def over(typing, buffer, span, like):
        """A tile over a buffer, which needs room for one vector more, to align."""
        kind = Tile(buffer, lanes(like.dtype), by_columns)

        def emit(context, builder, signature, values):
            made = cgutils.create_struct_proxy(kind)(context, builder)
            data = context.make_array(buffer)(context, builder, value=values[0]).data
            address = builder.ptrtoint(data, INDEX)
            last = kind.bytes - 1
            aligned = builder.and_(builder.add(address, INDEX(last)), INDEX(~last))
            made.data = builder.inttoptr(aligned, made.data.type)
            made.buffer, made.span = values[0], values[1]
            if context.enable_nrt:
                context.nrt.incref(builder, buffer, values[0])
            return made._getvalue()

        return kind(buffer, types.intp, like), emit

    @operation(lambda array: types.intp)
    def lane_count(array):
        """How many lanes a vector of the array's dtype has."""
        return Index(array.builder, INDEX(lanes(array.lanes.dtype)))

    @holder
    def tile(rows, span, dtype, like):
        """A tile of rows of `span` vectors: numbers of a dtype, in as many lanes as `like` has.

        If it is by columns, of columns.
        """
        buffer = np.empty((rows * span + 1) * lane_count(like), dtype)
        return over(buffer, span, like)  # type: ignore[call-arg]  # numba gives the first

    return tile, lane_count


tile, lane_count = tiles_of(width)

# Where four columns at a time are worked on, they stand together then, and the cache foresees them:
# from N = 48 on that saves 2 to 8 % with vectors of 64 bytes, and costs 5 % with those of 32.
BY_COLUMNS = VECTOR_BYTES == 64
_matrix_tile, _ = tiles_of(width, BY_COLUMNS)


@holder
def matrix_tile(rows, columns, dtype, like):
    """A tile for a matrix that is worked on by columns and by rows.

    An odd number of vectors in each spreads the other over all sets of the cache.
    """
    lines, span = (columns, rows | 1) if BY_COLUMNS else (rows, columns | 1)
    return _matrix_tile(lines, span, dtype, like)


@holder
def cleared(t, rows, span):
    """A tile of zeros."""
    for i in range(rows):
        for j in range(span):
            t[i, j] = splat(0, t)
    return t


def _loaded(array, index, count):
    return Lanes(array.dtype, count.literal_value) if isinstance(count, types.Literal) else None


@operation(_loaded)
def load(array, index, count):
    """Lanes array.flat[index + l] of a C-contiguous array."""
    if array.parts == 1:
        return array.load(index, count)
    low, high = (array.load(index * 2 + half * count, count) for half in range(2))
    return Pair(*(low.shuffle(high, range(part, 2 * count, 2)) for part in range(2)))


@operation(nothing)
def store(array, index, x):
    """array.flat[index + l] = x in lane l, for every lane."""
    if array.parts == 1:
        array.store(index, x)
        return
    count = x.real.count
    lanes = [part * count + i for i in range(count) for part in range(2)]
    for half in range(2):
        mixed = x.real.shuffle(x.imag, lanes[half * count : (half + 1) * count])
        array.store(index * 2 + half * count, mixed)


def systems_of_lanes(array, first, last):
    """Which system each lane holds; past the end of the batch the last one again."""
    return [(first + lane).at_most(last) for lane in range(width(array.lanes.dtype))]


@operation(nothing)
def put_numbers(array, first, last, x):
    """array[s] = lane l of the real x, in the array's dtype, for the system s of each lane."""
    number = array.data.type.pointee
    for lane in range(x.count):
        value = resized(array.builder, x.lane(lane).value, number)
        place = (first + lane).at_most(last)
        array.builder.store(value, array.builder.gep(array.data, [index_value(place)]))


@operation(lambda t, i: types.intp)
def row_offset(t, i):
    """Where row i of a tile begins, counted in real numbers."""
    return t.offset(i, 0)
