"""Residuals in twice the working precision, for iterative refinement."""

from dasksolve.kernels.compiling.jit import jit
from dasksolve.kernels.diagnostics.norms import gather, norm_lanes, norm_tile
from dasksolve.kernels.language.blocks import load_first
from dasksolve.kernels.language.control import Variable, loop
from dasksolve.kernels.language.lanes import operation
from dasksolve.kernels.language.target import FMA
from dasksolve.kernels.language.tiles import cleared
from dasksolve.kernels.language.values import Pair


def two_sum(x, y):
    """x + y and its rounding error (Knuth; Higham, *Accuracy and Stability*, section 4.3)."""
    total = x + y
    part = total - x
    return total, (x - (total - part)) + (y - part)


def split(x):
    """x in two halves, whose products are exact (Veltkamp; Higham, problem 2.22)."""
    scaled = x * x.fill((1 << (12 if x.single else 27)) + 1)
    high = scaled - (scaled - x)
    return high, x - high


def lost(x, y, product):
    """x y - product, exactly: by fma, else by Dekker's products of halves."""
    if FMA:
        return x.fma(y, -product)
    (high, low), (upper, lower) = split(x), split(y)
    return low * lower - (((product - high * upper) - low * upper) - high * lower)


def take(total, rest, x, y):
    """Take x y out of total + rest, with its rounding error."""
    product = x * y
    total, error = two_sum(total, -product)
    return total, rest + (error - lost(x, y, product))


def collapse(total, rest):
    """The sum of all lanes of both."""
    while total.count > 1:
        half = total.count // 2
        low, high = range(half), range(half, total.count)
        sums = [vector.shuffle(vector, lanes) for vector in (total, rest) for lanes in (low, high)]
        total, error = two_sum(*sums[:2])
        rest = sums[2] + sums[3] + error
    return (total + rest).lane(0)


@operation(lambda a, b, start, at, n, vectors: a.dtype)
def residual(a, b, start, at, n, vectors):
    """b.flat[at] minus the product of row a.flat[start] … and row 0 of `vectors`."""
    first = load_first(b, at, 1, vectors)
    parts = [first.real, first.imag] if isinstance(first, Pair) else [first]
    totals = [Variable(part) for part in parts]
    rests = [Variable(part.fill(0)) for part in parts]
    with loop(a.builder, 0, vectors.span) as j:
        begin = j * vectors.lanes.count
        row, x = load_first(a, start + begin, n + begin * -1, vectors), vectors[0, j]
        if isinstance(row, Pair):
            factors = [
                [(row.real, x.real), (-row.imag, x.imag)],
                [(row.real, x.imag), (row.imag, x.real)],
            ]
        else:
            factors = [[(row, x)]]
        for total, rest, pairs in zip(totals, rests, factors, strict=True):
            both = total.get(), rest.get()
            for pair in pairs:
                both = take(*both, *pair)
            total.set(both[0])
            rest.set(both[1])
    found = [collapse(t.get(), r.get()) for t, r in zip(totals, rests, strict=True)]
    return found[0] if len(found) == 1 else Pair(*found)


def residuals(a, b, x, r):
    """r = b - A x of every system; all as `kernels` wants them."""
    systems, n, columns = b.shape
    blocks = -(-n // norm_lanes(a))
    vectors = cleared(norm_tile(1, blocks, a.dtype, a), 1, blocks)
    for m in range(systems):
        for c in range(columns):
            gather(x, m, c, vectors, 0)
            for i in range(n):
                row = m * n + i
                r[m, i, c] = residual(a, b, row * n, row * columns + c, n, vectors)


def kernel(_):
    """The kernel ``residuals(a, b, x, r)``, for systems of any order."""
    return jit(residuals)
