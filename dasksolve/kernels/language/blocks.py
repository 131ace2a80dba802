"""Blocks: a few rows of vectors, held in registers while products are subtracted from them."""

from numba import types

from dasksolve.kernels.language.backend import cgutils, ir
from dasksolve.kernels.language.control import forget_registers
from dasksolve.kernels.language.lanes import (
    PANEL,
    fma,
    inner,
    nothing,
    operation,
    product,
    scalar_type,
    width,
)
from dasksolve.kernels.language.target import FEW_REGISTERS
from dasksolve.kernels.language.tiles import tiles_of
from dasksolve.kernels.language.transposition import transpose
from dasksolve.kernels.language.values import (
    INDEX,
    Index,
    Pair,
    Vector,
    index_value,
    joined,
    resized,
)

# Eight rows outlast the latency of fma, and their addresses still fit in registers.
ROWS = PANEL


def lanes(dtype):
    """As many as a vector of the machine has, but a panel at least: the bits depend on it."""
    return max(PANEL, width(dtype))


block_tile, block_lanes = tiles_of(lanes)


def of_indices(*kinds):
    return types.UniTuple(types.intp, ROWS)


def of_lanes(tile, *kinds):
    return types.UniTuple(tile.lanes, ROWS)


def same(first, *others):
    """The type of the first argument."""
    return first


def offsets_of(tile, i, k):
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


def transposed(vectors):
    """The columns of a square block of rows, or the rows of one of columns."""
    return united([transpose(plane) for plane in planes(vectors)])


def spread(tile, i, k):
    """Number k of row i, in every lane."""
    ((number,), *imaginary) = [[tile.load(at, 1).lane(0)] for at in offsets_of(tile, i, k)]
    return tile.fill(0).fill(Pair(number, imaginary[0][0]) if imaginary else number)


def integer(array, index):
    """array[index] of an array of integers."""
    return Index(array.builder, resized(array.builder, array.load(index, 1).lane(0).value, INDEX))


def first_lane(x):
    """A vector of the first lane alone."""
    return united([[plane.shuffle(plane, [0])] for (plane,) in planes([x])])[0]


@operation(nothing)
def put_number(tile, i, k, x):
    """Store the first lane of x as number k of row i."""
    put_numbers(tile, i, k, first_lane(x))


def put_numbers(tile, i, k, x):
    """Store x as the numbers k … of row i, all in one vector."""
    for at, (plane,) in zip(offsets_of(tile, i, k), planes([x]), strict=True):
        tile.store(at, plane)


@operation(of_indices)
def rows_at(order, i):
    """The rows order[i], order[i + 1], …"""
    return tuple(integer(order, i + r) for r in range(ROWS))


@operation(of_indices)
def rows_from(i):
    """The rows i, i + 1, …"""
    return tuple(i + r for r in range(ROWS))


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
        offsets = [offsets_of(tile, lane, i)[part] for lane in range(tile.lanes.count)]
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
                tile.store(offsets_of(tile, lane, i)[part], column)


def groups_of_rows(tile):
    """The rows of a block, as many at a time as registers hold sums of."""
    registers = tile.parts * tile.lanes.count // width(tile.lanes.dtype)
    together = ROWS // registers if FEW_REGISTERS else ROWS
    return [range(top, top + together) for top in range(0, ROWS, together)]


def less_products(block, element, right, first):
    """block - element right[first : first + PANEL]."""
    groups = groups_of_rows(right)
    sums: list[Vector | Pair] = []
    if right.lanes.count == width(right.lanes.dtype):
        groups = [range(ROWS)]  # complex64 rather spills: four rows at a time take 1.3 of the time
    for rows in groups:
        if sums:  # else LLVM would work on all of them at once
            forget_registers(right.builder)
        of_rows = [product(element(r, 0), right[first, 0]) for r in rows]
        for s in range(1, PANEL):
            x = right[first + s, 0]
            of_rows = [fma(element(r, s), x, sum_) for r, sum_ in zip(rows, of_rows, strict=True)]
        sums += of_rows
    return tuple(x - sum_ for x, sum_ in zip(block, sums, strict=True))


@operation(same)
def minus_panel(block, left, rows, k, right, first):
    """block - left[rows, k : k + PANEL] right[first : first + PANEL]."""
    return less_products(block, lambda r, s: spread(left, rows[r], k + s), right, first)


@operation(same)
def minus_panel_transposed(block, left, rows, k, right, first):
    """block - left[rows, k : k + ROWS]ᵀ right[first : first + PANEL]."""
    return less_products(block, lambda r, s: spread(left, rows[s], k + r), right, first)


def solved(block, order, element, inverse=None):
    """The solution with a triangle, in the order of its rows; `inverse` of its diagonal."""
    found: dict[int, Vector | Pair] = {}
    for r in order:
        known, x = list(found), block[r]
        if known:
            x = x - inner([element(r, s) for s in known], [found[s] for s in known])
        found[r] = x * inverse(r) if inverse else x
    return tuple(found[r] for r in range(ROWS))


def diagonal(inverses, i):
    return lambda r: spread(inverses, 0, i + r)


DOWN, UP = range(ROWS), range(ROWS - 1, -1, -1)


@operation(same)
def solved_below(block, left, rows, k):
    """L⁻¹ block, with the unit lower triangle of `left` in columns k, k + 1, …"""
    return solved(block, DOWN, lambda r, s: spread(left, rows[r], k + s))


@operation(same)
def solved_above(block, right, rows, k, inverses, i):
    """U⁻¹ block, with the upper triangle of `right` in columns k, k + 1, … and 1 / its diagonal."""
    return solved(block, UP, lambda r, s: spread(right, rows[r], k + s), diagonal(inverses, i))


@operation(same)
def solved_above_transposed(block, right, rows, k, inverses, i):
    """U⁻ᵀ block."""
    return solved(block, DOWN, lambda r, s: spread(right, rows[s], k + r), diagonal(inverses, i))


@operation(same)
def solved_below_transposed(block, left, rows, k):
    """L⁻ᵀ block."""
    return solved(block, UP, lambda r, s: spread(left, rows[s], k + r))


def masked_access(access, memory, offset, count, valid, stored=()):
    """Load (else 0) or store the first `valid` of `count` real numbers; the rest is not touched."""
    builder, number = memory.builder, scalar_type(memory.lanes.real.dtype)
    kind, indices = ir.VectorType(number, count), ir.VectorType(INDEX, count)
    limit = Vector(builder, ir.Constant(indices, ir.Undefined)).fill(valid)
    mask = builder.icmp_signed("<", ir.Constant(indices, list(range(count))), limit.value)
    align = ir.IntType(32)(memory.lanes.real.dtype.bitwidth // 8)
    others = () if stored else (ir.Constant(kind, [0] * count),)
    operands = [*stored, memory.pointer(offset, count), align, mask, *others]
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
        halves.append(Vector(array.builder, masked_access("load", array, at, count, left)))
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
        masked_access("store", array, at, count, left, (half.value,))


@operation(nothing)
def prefetch_block(array, index, tile):
    """Ask for the cache lines of as many numbers as a block has, from array.flat[index] on."""
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    signature = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
    function = cgutils.get_or_insert_function(array.builder.module, signature, "llvm.prefetch.p0")
    read, second_level, data = flag(0), flag(2), flag(1)
    for vector in range(ROWS * array.parts):
        pointer = array.pointer(index * array.parts + vector * tile.lanes.count, 1)
        address = array.builder.bitcast(pointer, byte)
        array.builder.call(function, [address, read, second_level, data])
