"""Cholesky of larger systems, one at a time: U by block columns, as wide as a vector.

A block column is brought up to date eight rows at a time, with all rows above; those of its
diagonal block are factored. The columns of b come last, and become those of y = U⁻ᴴ b.

    | U U u |   u ← U⁻ᴴ a          u[j * last + k]   row k of block column j
    |   U u |                      inverses          1 / the diagonal of U
    |     a |   a ← a - uᴴ u = UᴴU
"""

from typing import Any

from dasksolve.kernels.compiling.jit import holder, part
from dasksolve.kernels.diagnostics.verdicts import judge_positive, rejecting_triangle, weigh
from dasksolve.kernels.language.blocks import (
    ROWS,
    block_lanes,
    block_tile,
    get,
    groups_of_rows,
    load_first,
    put,
    put_number,
    rows_from,
    same,
    spread,
    store_first,
    transposed,
)
from dasksolve.kernels.language.control import Variable, loop
from dasksolve.kernels.language.lanes import (
    conjugate,
    lane,
    nothing,
    operation,
    real_part,
    reciprocal,
    scaled,
    splat,
    square_root,
    unsigned_zero,
    where,
)
from dasksolve.kernels.language.values import Pair, lane_numbers
from dasksolve.kernels.lu.panel import every_lane
from dasksolve.kernels.regimes import single
from dasksolve.kernels.triangular.triangles import minus


@operation(nothing)
def load_columns(u, to, a, start, i, j, n):
    """Rows j … of U in block column i / lanes: the conjugates of columns j … of rows i … of a."""
    count, rows = u.lanes.count, []
    for r in range(count):
        valid = (i + r < n).choose(n + j * -1, 0)
        rows.append(load_first(a, start + (i + r) * n + j, valid, u))
    for c, x in enumerate(transposed(rows)):
        u[to + c, 0] = conjugate(x)


@part
def read_system(a, m, u, last, lower):
    """Put the triangle of a[m], bordered by the identity, in u."""
    n, count = a.shape[1], block_lanes(a)
    for j in range(0, last, count):
        to = j // count * last
        if lower:
            for i in range(0, j + 1, count):
                load_columns(u, to + i, a, m * n * n, j, i, n)
        else:
            for i in range(min(n, j + count)):
                u[to + i, 0] = load_first(a, (m * n + i) * n + j, n - j, u)
        for i in range(max(n, j), j + count):
            u[to + i, 0] = splat(0, u)
            put_number(u, to + i, i - j, splat(1, u))


@operation(same)
def less_products(block, u, left, lane, right, count):
    """The block less the products with the `count` rows of U above it."""
    found: list[Any] = []
    for rows in groups_of_rows(u):
        sums = {r: Variable(block[r]) for r in rows}
        with loop(u.builder, 0, count) as k:
            row = u[right + k, 0]
            for r, total in sums.items():
                total.set(minus(total.get(), row, spread(u, left + k, lane + r)))
        found += [total.get() for total in sums.values()]
    return tuple(found)


@operation(same)
def solved(block, u, left, lane, inverses, i):
    """U⁻ᴴ block, with the triangle in rows left … of u."""
    rows: list[Any] = []
    for r, x in enumerate(block):
        for s, row in enumerate(rows):
            x = minus(x, row, spread(u, left + s, lane + r))
        rows.append(scaled(x, spread(inverses, 0, i + r)))
    return tuple(rows)


@operation(lambda block, u, at, lane, inverses, i, flaw: flaw)
def factor_block(block, u, at, lane, inverses, i, flaw):
    """Put the factored block in rows at … of u; return the flaw."""
    rows: list[Any] = []
    for r, x in enumerate(block):
        for s, row in enumerate(rows):
            x = minus(x, row, spread(u, at + s, lane + r))
        u[at + r, 0] = x
        pivot = real_part(spread(u, at + r, lane + r))
        flaw = judge_positive(flaw, pivot)
        inverse = reciprocal(square_root(pivot))
        put_number(inverses, 0, i + r, Pair(inverse, inverse) if u.parts == 2 else inverse)
        rows.append(scaled(x, inverse))
        u[at + r, 0] = rows[-1]
    return flaw


@part
def update(u, j, stop, last, inverses, count):
    """Bring rows 0 … stop of block column j up to date and solve for them."""
    for i in range(0, stop, ROWS):
        left, right = i // count * last, j * last
        block = less_products(get(u, rows_from(right + i), 0), u, left, i % count, right, i)
        block = solved(block, u, left + i, i % count, inverses, i)
        put(u, rows_from(right + i), 0, block)


@part
def factor_system(u, last, inverses, count, flaw):
    """Overwrite the triangle of A by U; the flaw of the system in every lane."""
    for j in range(0, last, count):
        at = j // count * last
        update(u, j // count, j, last, inverses, count)
        for i in range(j, j + count, ROWS):
            block = less_products(get(u, rows_from(at + i), 0), u, at, i - j, at, i)
            flaw = factor_block(block, u, at + i, i - j, inverses, i, flaw)
    return flaw


@operation(same)
def less_later(block, u, rows, lane, y, k):
    """The block less the products with the eight unknowns from k on, the last of them first."""
    for s in reversed(range(ROWS)):
        x = y[k + s, 0]
        block = [
            minus(z, x, conjugate(spread(u, row, lane + s)))
            for z, row in zip(block, rows, strict=True)
        ]
    return tuple(block)


@operation(same)
def solved_last_first(block, u, rows, lane, inverses, i):
    """U⁻¹ block, with the triangle in these rows of u."""
    solved: dict[int, Any] = {}
    for r in reversed(range(ROWS)):
        x = block[r]
        for s in reversed(range(r + 1, ROWS)):
            x = minus(x, solved[s], conjugate(spread(u, rows[r], lane + s)))
        solved[r] = scaled(x, spread(inverses, 0, i + r))
    return tuple(solved[r] for r in range(ROWS))


@part
def retreat(u, last, inverses, count):
    """Overwrite the last block column, y, by U⁻¹ y."""
    y = last // count * last
    for i in range(last - ROWS, -1, -ROWS):
        block = get(u, rows_from(y + i), 0)
        for k in range(last - ROWS, i, -ROWS):
            block = less_later(block, u, rows_from(k // count * last + i), k % count, u, y + k)
        rows = rows_from(i // count * last + i)
        put(u, rows_from(y + i), 0, solved_last_first(block, u, rows, i % count, inverses, i))


@operation(nothing)
def advance_vector(u, y, i, first, last, inverses, blocks):
    """Solve for block i of the vector y = U⁻ᴴ b, and take it out of those after it."""
    count = u.lanes.count
    lanes = lane_numbers(u.builder, count)
    x, known = y[0, i], []
    for k in range(count):
        number = every_lane(x, k)
        known.append(scaled(number, spread(inverses, 0, i * count + k)))
        later = minus(x, known[-1], u[first + k, 0])
        x = where(lanes > lanes.fill(k), later, where(lanes == lanes.fill(k), known[-1], x))
    y[0, i] = x
    with loop(u.builder, i + 1, blocks) as j:
        x = y[0, j]
        for k in range(count):
            x = minus(x, known[k], u[j * last + (i * count + k), 0])
        y[0, j] = x


@operation(nothing)
def retreat_vector(u, y, i, first, inverses):
    """Solve for block i of the vector x = U⁻¹ y, and take it out of those before it."""
    count = u.lanes.count
    lanes = lane_numbers(u.builder, count)

    def block(j):
        return transposed([u[first + j * count + r, 0] for r in range(count)])

    x, known = y[0, i], {}
    for k, column in reversed(list(enumerate(block(i)))):
        known[k] = scaled(every_lane(x, k), spread(inverses, 0, i * count + k))
        earlier = minus(x, known[k], conjugate(column))
        x = where(lanes < lanes.fill(k), earlier, where(lanes == lanes.fill(k), known[k], x))
    y[0, i] = x
    with loop(u.builder, 0, i) as j:
        x = y[0, j]
        for k, column in reversed(list(enumerate(block(j)))):
            x = minus(x, known[k], conjugate(column))
        y[0, j] = x


@part
def solve_vector(b, x, m, j, u, last, inverses, y, count, check):
    """Solve for one column; return `check`, to which 0 x is added."""
    n, columns = b.shape[1:]
    blocks = last // count
    for i in range(blocks):
        y[0, i] = splat(0, y)
    for i in range(n):
        put_number(y, 0, i, load_first(b, (m * n + i) * columns + j, 1, y))
    for i in range(blocks):
        advance_vector(u, y, i, i * (last + count), last, inverses, blocks)
    for i in range(blocks - 1, -1, -1):
        retreat_vector(u, y, i, i * last, inverses)
    for i in range(blocks):
        check = weigh(check, y[0, i])
        y[0, i] = unsigned_zero(y[0, i])
    for i in range(n):
        x[m, i, j] = lane(y[0, i // count], i % count)
    return check


@part
def solve_matrix(b, x, m, j, u, last, inverses, count, check):
    """The same for the columns from j on, as many as a vector has lanes."""
    n, columns = b.shape[1:]
    blocks, y = last // count, last // count * last
    for i in range(n):
        u[y + i, 0] = load_first(b, (m * n + i) * columns + j, columns - j, u)
    for i in range(n, last):
        u[y + i, 0] = splat(0, u)
    update(u, blocks, last, last, inverses, count)
    retreat(u, last, inverses, count)
    for i in range(n):
        check = weigh(check, u[y + i, 0])
        store_first(x, (m * n + i) * columns + j, columns - j, unsigned_zero(u[y + i, 0]))
    return check


@holder
def hold(b, n):
    """U with the columns of b; a vector of those, and the reciprocals of U's diagonal."""
    count = block_lanes(b)
    blocks = -(-n // count)
    u = block_tile((blocks + 1) * blocks * count, 1, b.dtype, b)
    return u, block_tile(1, blocks, b.dtype, b), block_tile(1, blocks, b.dtype, b), blocks * count


def factoring(lower):
    """The part that reads and factors a system."""

    @part
    def factor(a, m, held, flaw):
        u, _, inverses, last = held
        read_system(a, m, u, last, lower)
        return factor_system(u, last, inverses, block_lanes(a), flaw)

    return factor


@part
def substitute(a, b, x, m, j, held, flaw, check):
    u, y, inverses, last = held
    if j == b.shape[2] - 1:
        return flaw, solve_vector(b, x, m, j, u, last, inverses, y, block_lanes(b), check)
    return flaw, solve_matrix(b, x, m, j, u, last, inverses, block_lanes(b), check)


def kernel(_, lower):
    """The kernel for systems of any order."""
    name, reject = f"cholesky.{lower}", rejecting_triangle(lower, True)
    return single.kernel(single.Method(name, hold, substitute, reject, factoring(lower)))
