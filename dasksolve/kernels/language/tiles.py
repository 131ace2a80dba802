"""Vectors in memory: arrays as NumPy sees them, and tiles, which hold a vector in every element."""

import operator
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, models, register_model

from dasksolve.kernels.compiling.jit import holder
from dasksolve.kernels.language.backend import cgutils, ir
from dasksolve.kernels.language.lanes import (
    LIFT,
    Lanes,
    nothing,
    operation,
    real_part,
    scalar_type,
    splat,
    unsigned_zero,
    where,
    width,
)
from dasksolve.kernels.language.values import (
    INDEX,
    Emitted,
    Index,
    Pair,
    Vector,
    index_value,
    opaque,
    parts_of,
    resized,
)


class Tile(types.Type):
    """A matrix whose elements are lanes: t[i, j] loads a vector, t[i, j] = v stores one."""

    def __init__(self, buffer, count):
        self.buffer, self.lanes = buffer, Lanes(buffer.dtype, count)
        super().__init__(name=f"Tile({self.lanes}, {buffer})")

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

    def _pointer(self, offset, count):
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
        pointer = self._pointer(offset, count)
        size = self.lanes.real.dtype.bitwidth // 8
        return Vector(self.builder, self.builder.load(pointer, align=align * size))

    def store(self, offset, vector, align=1):
        pointer = self._pointer(offset, vector.count)
        size = self.lanes.real.dtype.bitwidth // 8
        self.builder.store(vector.value, pointer, align=align * size)

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
            pointer = self.builder.gep(self.data, [index_value(place)])
            self.builder.store(integers.lane(lane).value, pointer)


class EmittedTile(Memory):
    """Emitted access to a tile: the real parts of a vector stand before its imaginary parts."""

    def __init__(self, builder, data, lanes, span):
        super().__init__(builder, data, lanes)
        self.span = span

    def again(self):
        """The same tile, by a copy of its address.

        Else LLVM may load the one that it has spilled for each access: N = 16 took a third longer.
        """
        data = opaque(Emitted(self.builder, self.data)).value
        return EmittedTile(self.builder, data, self.lanes, self.span)

    def offset(self, i, j):
        return (i * self.span + j) * (self.parts * self.lanes.count)

    def integer(self, i, lane):
        """The number in one lane of the first column of a tile of integers."""
        return Index(self.builder, self.load(self.offset(i, 0) + lane, 1).lane(0).value)

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
    return EmittedTile(builder, parts.data, tile.lanes, Index(builder, parts.span))


LIFT[types.Array] = _lift_array
LIFT[Tile] = _lift_tile


def _element(tile, position):
    return tile.lanes if isinstance(tile, Tile) else None


def _stored(tile, position, lanes):
    return types.void if isinstance(tile, Tile) and lanes == tile.lanes else None


operation(_element, Tile, types.BaseTuple)(operator.getitem)
operation(_stored, Tile, types.BaseTuple, Lanes)(operator.setitem)


def tiles_of(lanes: Any) -> tuple[Any, Any]:
    """What makes tiles whose vectors have lanes(dtype) lanes, and what says how many these are."""

    @intrinsic
    def over(typing, buffer, span, like):
        """A tile over a buffer, which needs room for one vector more, to align."""
        kind = Tile(buffer, lanes(like.dtype))

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
        """A tile of rows of `span` vectors: numbers of a dtype, in as many lanes as `like` has."""
        buffer = np.empty((rows * span + 1) * lane_count(like), dtype)
        return over(buffer, span, like)  # type: ignore[call-arg]  # numba gives the first

    return tile, lane_count


tile, lane_count = tiles_of(width)


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


# Every other pair of lanes of two vectors of eight.
EVEN, ODD = [0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]


def transpose(rows):
    """Transpose `rows` (a power of two) in each group of as many lanes, by butterflies."""
    rows, step = list(rows), 1
    count = rows[0].count
    if count == len(rows) == 8 and not rows[0].single:
        return _transposed_eight(rows)
    while step < len(rows):
        low = [lane if not lane & step else count + lane - step for lane in range(count)]
        high = [lane + step if not lane & step else count + lane for lane in range(count)]
        for i in range(len(rows)):
            if not i & step:
                pair = rows[i], rows[i + step]
                rows[i], rows[i + step] = (pair[0].shuffle(pair[1], lanes) for lanes in (low, high))
        step *= 2
    return rows


def _transposed_eight(rows):
    """`transpose` by the cheapest shuffles of doubles that x86 has.

    A permutation of two vectors, which most butterflies are, takes three times as long.
    """
    columns = {}
    for parity in range(2):
        pairs = [lane + parity + 8 * other for lane in range(0, 8, 2) for other in range(2)]
        twos = [x.shuffle(y, pairs) for x, y in zip(rows[::2], rows[1::2], strict=True)]
        for place, half in ((parity, EVEN), (parity + 2, ODD)):
            left, right = twos[0].shuffle(twos[1], half), twos[2].shuffle(twos[3], half)
            columns[place] = left.shuffle(right, EVEN)
            columns[place + 4] = left.shuffle(right, ODD)
    return [columns[i] for i in range(8)]


def _dealt_four(array, places):
    """The columns of eight rows of four doubles that are still in memory.

    They are loaded two to a vector, which spares a third of the shuffles.
    """
    rows = [array.load(place, 4) for place in places]
    pairs = [joined([rows[i], rows[i + 2]]) for i in (0, 1, 4, 5)]
    columns = {}
    for parity in (0, 1):
        lanes = [lane + parity + 8 * other for lane in range(0, 8, 2) for other in (0, 1)]
        twos = [x.shuffle(y, lanes) for x, y in (pairs[:2], pairs[2:])]
        columns[parity] = twos[0].shuffle(twos[1], EVEN)
        columns[parity + 2] = twos[0].shuffle(twos[1], ODD)
    return [columns[i] for i in range(4)]


def _dealt_pieces(array, places):
    """The columns of rows of a piece each that are still in memory.

    They are loaded to where only shuffles within a piece are left to do, and to load one into a
    vector takes none: two shuffles for each of sixteen lanes of float32, in place of three or four.
    """
    size, half = array.piece, array.piece // 2
    columns = [united([array.load(place, size) for place in places[i::size]]) for i in range(size)]
    pairs = [(lane, lane + len(places)) for lane in range(len(places))]
    low, high = (
        [lane for pair in pairs if pair[0] % size // half == side for lane in pair]
        for side in range(2)
    )
    for _ in range(size.bit_length() - 1):
        columns = [
            x.shuffle(y, lanes)
            for x, y in zip(columns[:half], columns[half:], strict=True)
            for lanes in (low, high)
        ]
    return columns


def united(pieces):
    """One vector of all lanes, into which one piece after the other is put."""
    size, count = pieces[0].count, len(pieces) * pieces[0].count
    whole = pieces[0].shuffle(pieces[0], [lane % size for lane in range(count)])
    for i, piece in enumerate(pieces[1:], 1):
        wide = piece.shuffle(piece, [lane % size for lane in range(count)])
        lanes = [lane + count * (lane // size == i) for lane in range(count)]
        whole = whole.shuffle(wide, lanes)
    return whole


def joined(vectors):
    """One vector of all lanes."""
    vectors = list(vectors)
    while len(vectors) > 1:
        lanes = range(2 * vectors[0].count)
        vectors = [x.shuffle(y, lanes) for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]


def blocks(length, largest):
    """Cut 0 … length into (start, size), sizes falling powers of two."""
    start, size = 0, largest
    while start < length:
        while start + size <= length:
            yield start, size
            start += size
        size //= 2


def deal(array, starts, length, between=lambda share: None):
    """`length` vectors of consecutive elements: lane l of vector e is array.flat[starts[l] + e].

    between(share) is called after each block, with the share of the elements that is read.
    """
    count, parts = len(starts), array.parts
    numbers = []
    for offset, size in blocks(length * parts, count):
        places = [start * parts + offset for start in starts]
        if count == 8 and size >= 4 and isinstance(array, Memory) and array.doubles:
            for start in range(0, size, 4):
                numbers += _dealt_four(array, [place + start for place in places])
        elif isinstance(array, Memory) and count > array.piece <= size:
            for start in range(0, size, array.piece):
                numbers += _dealt_pieces(array, [place + start for place in places])
        else:
            rows = [array.load(place, size) for place in places]
            numbers += transpose([joined(rows[i::size]) for i in range(size)])
        between((offset + size) / (length * parts))
    return numbers if parts == 1 else [Pair(*numbers[e : e + 2]) for e in range(0, 2 * length, 2)]


def collect(vectors, array, starts):
    """array.flat[starts[l] + e] = vectors[e] in lane l, no zero with a sign: `deal` undone."""
    vectors, parts = [unsigned_zero(vector) for vector in vectors], array.parts
    numbers = vectors if parts == 1 else [n for v in vectors for n in (v.real, v.imag)]
    for offset, size in blocks(len(numbers), len(starts)):
        for i, row in enumerate(transpose(numbers[offset : offset + size])):
            for lane in range(i, len(starts), size):
                part = row.shuffle(row, range(lane - i, lane - i + size))
                array.store(starts[lane] * parts + offset, part)


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


# Levels of the cache to prefetch to. A tile beyond N = 8 would drive the one that is being worked
# on out of the first: 295 ns with the second instead of 350 at N = 16.
FIRST, SECOND = 3, 2
READ, WRITE = 0, 1


def prefetch_next(a, first, n, element, level):
    """Ask for the cache lines of one element of each matrix's worth of the next tile."""
    count = width(a.lanes.dtype)
    line = 64 * 8 // a.lanes.dtype.bitwidth
    for start in range(0, count, line):
        prefetch(a, (first + count) * (n * n) + element * count + start, level)


# How many bytes of a ahead to ask for: a tile takes less time than memory does. One tile at least.
AHEAD = 8 << 10


class Ahead:
    """Asks for the cache lines of a tile to come: of a and b, and of x and `numbers` to write to.

    Spread over the work on a tile, since few misses can wait at once: at N = 8 a triangle takes 13
    ns instead of 40, with all of them in the second level of the cache.
    """

    def __init__(self, a, b, x, first, n, columns, *numbers):
        count, bytes_each = width(a.lanes.dtype), a.lanes.dtype.bitwidth // 8
        line, tile_bytes = 64 // bytes_each, n * n * count * bytes_each
        later = first + max(1, -(-AHEAD // tile_bytes)) * count
        self.lines: list[Any] = []
        for i in range(n * n * count // line):
            self.lines.append((a, later * (n * n) + i * line, FIRST))
            if i % n == 0:
                at = later * n * columns + i // n * line
                self.lines += [(b, at, FIRST), (x, at, FIRST, WRITE)]
        self.lines += [(array, later, FIRST, WRITE) for array in numbers]
        self.asked = 0

    def ask(self, share):
        """Ask for what is left of this share of the lines."""
        stop = int(len(self.lines) * share)
        for line in self.lines[self.asked : stop]:
            prefetch(*line)
        self.asked = stop


@operation(lambda t, i, n, first, last: t.lanes)
def row_places(t, i, n, first, last):
    """Where row i of each lane's matrix begins, counted from the first number of matrix `first`.

    They are integers, in the bits of what a tile holds: `EmittedTile.whole` reads them. To convert
    one from a real number would take as long as to multiply two vectors.
    """
    like = real_part(t.fill(0))
    lanes = like.bits.ramp
    most = lanes.fill(last - first)
    matrices = where(lanes < most, lanes, most)
    places = (matrices * lanes.fill(n * n) + lanes.fill(i * n)).numbers(like)
    return places if t.parts == 1 else Pair(places, places)


@operation(nothing)
def read_row(array, n, first, t, i, j, length):
    """t[i, j] … from the row of each lane's matrix whose place stands in t[i, n]."""
    columns = array.beyond(first * (n * n) + j)
    starts = [t.whole(i, n, lane) for lane in range(t.lanes.count)]
    for e, x in enumerate(deal(columns, starts, length)):
        t[i, j + e] = x


@operation(lambda t, i: types.intp)
def row_offset(t, i):
    """Where row i of a tile begins, counted in real numbers."""
    return t.offset(i, 0)


@operation(nothing)
def prefetch(array, index, level, purpose=READ):
    """Ask for the cache line of array.flat[index], which need not exist, in a level."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte] + [ir.IntType(32)] * 3)
    function = cgutils.get_or_insert_function(array.builder.module, kind, "llvm.prefetch.p0")
    pointer = array.builder.bitcast(array._pointer(index * array.parts, 1), byte)
    options = [ir.IntType(32)(option) for option in (purpose, level, 1)]
    array.builder.call(function, [pointer, *options])


def ask(array, index, length, level=SECOND):
    """Ask for array.flat[index : index + length], which may begin anywhere in a cache line.

    That of the last element too: a triangle of N = 16 takes 70 ns so, 127 without.
    """
    line = 64 * 8 // array.lanes.dtype.bitwidth
    for element in (*range(0, length, line), length - 1):
        prefetch(array, index + element, level)
