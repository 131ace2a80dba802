"""Blocks: a few rows of vectors, held in registers while products are subtracted from them."""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from dasksolve.kernels.lanes import (
    INDEX,
    VECTOR_BYTES,
    Index,
    Pair,
    Vector,
    fma,
    fnma,
    index_value,
    nothing,
    operation,
    scalar_type,
)
from dasksolve.kernels.tiles import joined, transpose

# Eight rows outlast the latency of fma, and their addresses still fit in registers.
ROWS = VECTOR_BYTES // 8


def of_indices(*kinds):
    return types.UniTuple(types.intp, ROWS)


def of_lanes(tile, *kinds):
    return types.UniTuple(tile.lanes, ROWS)


def same(first, *others):
    """The type of the first argument."""
    return first


def place(tile, i, k):
    """Where number k of row i is, counted over its vectors: the offsets of its parts."""
    count, row = tile.lanes.count, tile.offset(i, 0)
    if tile.parts == 1:
        return [row + k]
    builder, k = tile.builder, index_value(k)
    vector = Index(builder, builder.ashr(k, INDEX(count.bit_length() - 1)))
    lane = Index(builder, builder.and_(k, INDEX(count - 1)))
    real = row + (vector * (2 * count) + lane)
    return [real, real + count]


def planes(vectors):
    """The real parts of the vectors, and the imaginary parts where there are any."""
    if isinstance(vectors[0], Pair):
        return [[v.real for v in vectors], [v.imag for v in vectors]]
    return [list(vectors)]


def united(planes):
    """`planes` undone."""
    if len(planes) == 1:
        return tuple(planes[0])
    return tuple(Pair(*parts) for parts in zip(*planes, strict=True))


def spread(tile, i, k):
    """Number k of row i, in every lane."""
    ((number,), *imaginary) = [[tile.load(at, 1).lane(0)] for at in place(tile, i, k)]
    return tile.fill(0).fill(Pair(number, imaginary[0][0]) if imaginary else number)


def integer(array, index):
    """array[index] of an array of integers."""
    return Index(array.builder, array.load(index, 1).lane(0).value)


@operation(nothing)
def put_number(tile, i, k, x):
    """Store the first lane of x as number k of row i."""
    for at, (plane,) in zip(place(tile, i, k), planes([x]), strict=True):
        tile.store(at, plane.shuffle(plane, [0]))


@operation(of_indices)
def rows_at(order, i):
    """The rows order[i], order[i + 1], …"""
    return tuple(integer(order, i + r) for r in range(ROWS))


@operation(of_indices)
def rows_from(i):
    """The rows i, i + 1, …"""
    return tuple(i + r for r in range(ROWS))


@operation(of_lanes)
def zeros(tile):
    """A block of zeros."""
    return (tile.fill(0),) * ROWS


@operation(of_lanes)
def get(tile, rows, j):
    """The block of the vectors in column j of these rows."""
    return tuple(tile[i, j] for i in rows)


@operation(nothing)
def put(tile, rows, j, block):
    """Store a block in column j of these rows."""
    for i, x in zip(rows, block, strict=True):
        tile[i, j] = x


@operation(of_lanes)
def get_transposed(tile, i):
    """The block whose row r has in lane l the number i + r of row l of the tile."""
    parts = []
    for part in range(tile.parts):
        offsets = [place(tile, lane, i)[part] for lane in range(tile.lanes.count)]
        columns = [tile.load(offset, ROWS) for offset in offsets]
        parts.append(transpose(joined(columns[r::ROWS]) for r in range(ROWS)))
    return united(parts)


@operation(nothing)
def put_transposed(tile, i, block):
    """Store the block that `get_transposed` gets."""
    for part, plane in enumerate(planes(block)):
        for r, x in enumerate(transpose(plane)):
            for lane in range(r, x.count, ROWS):
                column = x.shuffle(x, range(lane - r, lane - r + ROWS))
                tile.store(place(tile, lane, i)[part], column)


@operation(same)
def plus(block, other):
    """block + other."""
    return tuple(x + y for x, y in zip(block, other, strict=True))


@operation(same)
def minus_product(block, left, rows, k, right):
    """The block minus number k of each of these rows of `left`, times the vector `right`."""
    return tuple(fnma(spread(left, i, k), right, x) for i, x in zip(rows, block, strict=True))


@operation(same)
def solved_below(block, less, left, rows, k):
    """L⁻¹ (block + less), with the unit lower triangle of `left` in columns k, k + 1, …"""
    solved, less = [], list(less)
    for s in range(ROWS):
        solved.append(block[s] + less[s])
        for r in range(s + 1, ROWS):
            less[r] = fnma(spread(left, rows[r], k + s), solved[s], less[r])
    return tuple(solved)


@operation(same)
def solved_above(block, right, rows, k, diagonal, i):
    """U⁻¹ block, with the upper triangle of `right` in columns k, k + 1, …"""
    block = list(block)
    for s in reversed(range(ROWS)):
        pivot, inverse = (spread(diagonal, row, i + s) for row in range(2))
        block[s] = quotient(block[s], pivot, inverse)
        for r in range(s):
            block[r] = fnma(spread(right, rows[r], k + s), block[s], block[r])
    return tuple(block)


def quotient(x, divisor, inverse):
    """x / divisor, given 1 / divisor: rounded as a division (Markstein), without its wait."""
    near = x * inverse
    return fma(fnma(near, divisor, x), inverse, near)


def masked(access, memory, offset, count, valid, stored=()):
    """Load (else 0) or store the first `valid` of `count` real numbers; the rest is not touched."""
    builder, number = memory.builder, scalar_type(memory.lanes.real.dtype)
    kind, indices = ir.VectorType(number, count), ir.VectorType(INDEX, count)
    limit = Vector(builder, ir.Constant(indices, ir.Undefined)).fill(valid)
    mask = builder.icmp_signed("<", ir.Constant(indices, list(range(count))), limit.value)
    align = ir.IntType(32)(memory.lanes.real.dtype.bitwidth // 8)
    others = () if stored else (ir.Constant(kind, [0] * count),)
    operands = [*stored, memory._pointer(offset, count), align, mask, *others]
    signature = ir.FunctionType(ir.VoidType() if stored else kind, [o.type for o in operands])
    name = f"llvm.masked.{access}.v{count}{'f32' if number == ir.FloatType() else 'f64'}.p0"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), operands)


@operation(lambda array, index, valid, tile: tile.lanes)
def load_first(array, index, valid, tile):
    """Lanes array.flat[index + l] where l < valid, else 0; nothing else is read."""
    count, parts = tile.lanes.count, array.parts
    halves = []
    for start in range(0, parts * count, count):
        at, left = index * parts + start, valid * parts + -start
        halves.append(Vector(array.builder, masked("load", array, at, count, left)))
    if parts == 1:
        return halves[0]
    return Pair(*(halves[0].shuffle(halves[1], range(p, 2 * count, 2)) for p in range(2)))


@operation(nothing)
def store_first(array, index, valid, x):
    """array.flat[index + l] = x in lane l where l < valid; nothing else is written."""
    ((first,), *imaginary) = planes([x])
    second = imaginary[0][0] if imaginary else first
    count, parts = first.count, array.parts
    order = [part * count + lane for lane in range(count) for part in range(parts)]
    for start in range(0, parts * count, count):
        half = first.shuffle(second, order[start : start + count])
        at, left = index * parts + start, valid * parts + -start
        masked("store", array, at, count, left, (half.value,))


@operation(nothing)
def prefetch_block(array, index, tile):
    """Ask for the cache lines of as many numbers as a block has, from array.flat[index] on."""
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    signature = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
    function = cgutils.get_or_insert_function(array.builder.module, signature, "llvm.prefetch.p0")
    read, second_level, data = flag(0), flag(2), flag(1)
    for vector in range(ROWS * array.parts):
        pointer = array._pointer(index * array.parts + vector * tile.lanes.count, 1)
        address = array.builder.bitcast(pointer, byte)
        array.builder.call(function, [address, read, second_level, data])
