"""Deals numbers of several systems to the lanes of vectors, and collects them again."""

from typing import Any

from dasksolve.kernels.language.lanes import (
    nothing,
    operation,
    real_part,
    unsigned_zero,
    where,
    width,
)
from dasksolve.kernels.language.tiles import Memory
from dasksolve.kernels.language.values import Pair, joined

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
    columns = [
        side_by_side([array.load(place, size) for place in places[i::size]]) for i in range(size)
    ]
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


def side_by_side(pieces):
    """One vector of all lanes, into which one piece after the other is put."""
    size, count = pieces[0].count, len(pieces) * pieces[0].count
    whole = pieces[0].shuffle(pieces[0], [lane % size for lane in range(count)])
    for i, piece in enumerate(pieces[1:], 1):
        wide = piece.shuffle(piece, [lane % size for lane in range(count)])
        lanes = [lane + count * (lane // size == i) for lane in range(count)]
        whole = whole.shuffle(wide, lanes)
    return whole


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
    parts, groups = array.parts, registers(starts, array)
    numbers: list[Any] = []
    for offset, size in blocks(length * parts, len(groups[0])):
        dealt = [_dealt(array, [start * parts + offset for start in g], size) for g in groups]
        numbers += map(joined, zip(*dealt, strict=True))
        between((offset + size) / (length * parts))
    return numbers if parts == 1 else [Pair(*numbers[e : e + 2]) for e in range(0, 2 * length, 2)]


def registers(lanes, array):
    """The lanes of vectors, cut into those of one register each."""
    count = min(len(lanes), width(array.lanes.dtype)) if isinstance(array, Memory) else len(lanes)
    return [lanes[start : start + count] for start in range(0, len(lanes), count)]


def _dealt(array, places, size):
    """`deal` for vectors of one register: `size` of them, a power of two."""
    count = len(places)
    if count == 8 and size >= 4 and isinstance(array, Memory) and array.doubles:
        step, dealt = 4, _dealt_four
    elif isinstance(array, Memory) and count > array.piece <= size:
        step, dealt = array.piece, _dealt_pieces
    else:
        rows = [array.load(place, size) for place in places]
        return transpose([joined(rows[i::size]) for i in range(size)])
    numbers: list[Any] = []
    for start in range(0, size, step):
        numbers += dealt(array, [place + start for place in places])
    return numbers


def collect(vectors, array, starts):
    """array.flat[starts[l] + e] = vectors[e] in lane l, no zero with a sign: `deal` undone."""
    vectors, parts = [unsigned_zero(vector) for vector in vectors], array.parts
    numbers = vectors if parts == 1 else [n for v in vectors for n in (v.real, v.imag)]
    groups = registers(starts, array)
    for g, group in enumerate(groups):
        lanes = range(g * len(group), (g + 1) * len(group))
        part = numbers if len(groups) == 1 else [n.shuffle(n, lanes) for n in numbers]
        _collect(part, array, [start * parts for start in group])


def _collect(numbers, array, places):
    """`collect` for vectors of one register."""
    for offset, size in blocks(len(numbers), len(places)):
        if size == 1:
            for lane, place in enumerate(places):
                array.put_number(place + offset, numbers[offset].lane(lane))
            continue
        for i, row in enumerate(transpose(numbers[offset : offset + size])):
            for lane in range(i, len(places), size):
                part = row.shuffle(row, range(lane - i, lane - i + size))
                array.store(places[lane] + offset, part)


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
