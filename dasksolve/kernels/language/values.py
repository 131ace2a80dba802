"""Values of a program that is being compiled, with operators that emit machine code."""

from dataclasses import dataclass
from typing import Any

from dasksolve.kernels.language.backend import cgutils, ir
from dasksolve.kernels.language.target import FMA, VECTOR_BYTES

INDEX = ir.IntType(64)


@dataclass(frozen=True)
class Emitted:
    """A value of the program that is being compiled."""

    builder: Any
    value: Any


class Index(Emitted):
    """An integer that is known only when the program runs: a `base`, and a `constant` more.

    What is known while compiling is kept apart, to become a part of instructions that load and
    store: LLVM finds no more than some of it, and would compute each address.
    """

    base: Any
    constant: int

    def __init__(self, builder, base, constant=0):
        for name, part in (("builder", builder), ("base", base), ("constant", constant)):
            object.__setattr__(self, name, part)

    @property
    def value(self):
        if not self.constant:
            return self.base
        return self.builder.add(self.base, INDEX(self.constant))

    def __add__(self, other):
        base, constant = parts_of(other)
        base = self.base if base is None else self.builder.add(self.base, base)
        return Index(self.builder, base, self.constant + constant)

    def __mul__(self, other):
        if isinstance(other, Index):
            bases = Index(self.builder, self.builder.mul(self.base, other.base))
            constants = self.constant * other.constant
            for index, constant in ((self, other.constant), (other, self.constant)):
                if constant:
                    bases = bases + Index(self.builder, index.base) * constant
            return bases + constants
        return Index(self.builder, self.builder.mul(self.base, INDEX(other)), self.constant * other)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other):
        return self + other * -1

    def __floordiv__(self, other):
        """The quotient of numbers that are not negative."""
        return Index(self.builder, self.builder.udiv(self.value, index_value(other)))

    def __mod__(self, other):
        """The remainder of numbers that are not negative."""
        return Index(self.builder, self.builder.urem(self.value, index_value(other)))

    def __eq__(self, other):
        equal = self.builder.icmp_signed("==", self.value, index_value(other))
        return Bits(self.builder, (equal,))

    def __lt__(self, other):
        less = self.builder.icmp_signed("<", self.value, index_value(other))
        return Bits(self.builder, (less,))

    def at_most(self, other):
        return (self < other).choose(self, other)


def parts_of(index):
    """The base, None if there is none, and the constant."""
    return (index.base, index.constant) if isinstance(index, Index) else (None, index)


def index_value(index):
    return index.value if isinstance(index, Index) else ir.Constant(INDEX, index)


def resized(builder, value, kind):
    """A number as a wider or narrower one of its sort."""
    if value.type == kind:
        return value
    if isinstance(kind, ir.IntType):
        wider, narrower = builder.sext, builder.trunc
        return (wider if kind.width > value.type.width else narrower)(value, kind)
    return (builder.fptrunc if kind == ir.FloatType() else builder.fpext)(value, kind)


@dataclass(frozen=True)
class Bits:
    """An emitted mask, in a part for each register that the vectors take.

    Of more than one LLVM would make a whole, and cut that for each use.
    """

    builder: Any
    parts: tuple[Any, ...]

    @property
    def value(self):
        return joined([Vector(self.builder, part) for part in self.parts]).value

    def _logic(self, name, *others):
        masks = (self, *others)
        parts = [mask.parts for mask in masks]
        if len(set(map(len, parts))) > 1:  # of numbers of different size
            parts = [(mask.value,) for mask in masks]
        emit = getattr(self.builder, name)
        return Bits(self.builder, tuple(emit(*values) for values in zip(*parts, strict=True)))

    def __and__(self, other):
        return self._logic("and_", other)

    def __or__(self, other):
        return self._logic("or_", other)

    def __invert__(self):
        return self._logic("not_")

    def choose(self, one, other):
        """Of two indices the one, where this is a single truth value and set; else the other."""
        (truth,), values = self.parts, (index_value(one), index_value(other))
        return Index(self.builder, self.builder.select(truth, *values))


class Vector(Emitted):
    """An emitted vector of real numbers or integers."""

    @property
    def count(self):
        return self.value.type.count

    @property
    def integer(self):
        return isinstance(self.value.type.element, ir.IntType)

    def new(self, value):
        return Vector(self.builder, value)

    @property
    def single(self):
        """Whether these are real numbers of single precision."""
        return isinstance(self.value.type.element, ir.FloatType)

    @property
    def bits(self):
        """The bits of real numbers, as integers: of those without sign in the same order."""
        kind = ir.VectorType(ir.IntType(32 if self.single else 64), self.count)
        return self.new(self.builder.bitcast(self.value, kind))

    def numbers(self, like):
        """The real numbers of the type of `like` that have these `bits`."""
        return self.new(self.builder.bitcast(self.value, like.value.type))

    @property
    def ramp(self):
        """0, 1, 2 … in a vector of this type."""
        return self.new(ir.Constant(self.value.type, list(range(self.count))))

    def call(self, name, *others):
        """The LLVM intrinsic `name` of this vector and `others`."""
        vector = self.value.type
        suffix = "f32" if self.single else "f64"
        kind = ir.FunctionType(vector, [vector] * (1 + len(others)))
        name = f"llvm.{name}.v{vector.count}{suffix}"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.new(self.builder.call(function, [self.value, *(o.value for o in others)]))

    def fma(self, y, z):
        """z + self y, rounded once if the processor can."""
        return self.call("fma", y, z) if FMA else self * y + z

    def shuffle(self, other, lanes):
        """Lanes of this vector (0 …) and of `other` (count …), chosen at compile time."""
        chosen = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
        return self.new(self.builder.shuffle_vector(self.value, other.value, chosen))

    @property
    def registers(self):
        """The vectors of which each takes one."""
        kind = self.value.type.element
        bits = kind.width if self.integer else 32 if self.single else 64
        count = max(1, 8 * VECTOR_BYTES // bits)
        if self.count <= count:
            return [self]
        starts = range(0, self.count, count)
        return [self.shuffle(self, range(start, start + count)) for start in starts]

    def lane(self, index):
        return Emitted(self.builder, self.builder.extract_element(self.value, index_value(index)))

    def replaced(self, index, number):
        changed = self.builder.insert_element(self.value, number.value, index_value(index))
        return self.new(changed)

    def fill(self, number):
        """The same number in every lane."""
        kind = self.value.type
        if not isinstance(number, Emitted):
            return self.new(ir.Constant(kind, [number] * kind.count))
        empty = ir.Constant(kind, ir.Undefined)
        value = resized(self.builder, number.value, kind.element)
        first = self.new(self.builder.insert_element(empty, value, index_value(0)))
        return first.shuffle(first, [0] * kind.count)

    def widened(self):
        """The numbers in double precision, in as many lanes."""
        kind = ir.VectorType(ir.DoubleType(), self.count)
        wide = self.value.type == kind
        return self if wide else self.new(self.builder.fpext(self.value, kind))

    def rounded_like(self, other):
        """Numbers in double precision rounded to those of `other`."""
        kind = other.value.type
        same = self.value.type == kind
        return self if same else self.new(self.builder.fptrunc(self.value, kind))

    def as_numbers(self, like, signed):
        """Integers as real numbers of the sort of `like`."""
        convert = self.builder.sitofp if signed else self.builder.uitofp
        kind = ir.VectorType(like.value.type.element, self.count)
        return self.new(convert(self.value, kind))

    def _arithmetic(self, name, other):
        name = name if self.integer else "f" + name
        return self.new(getattr(self.builder, name)(self.value, other.value))

    def __add__(self, other):
        return self._arithmetic("add", other)

    def __sub__(self, other):
        return self._arithmetic("sub", other)

    def __mul__(self, other):
        return self._arithmetic("mul", other)

    def __truediv__(self, other):
        return self._arithmetic("div", other)

    def __rshift__(self, places):
        """Integers moved by so many binary places, zeros from the left."""
        return self.new(self.builder.lshr(self.value, self.fill(places).value))

    def low(self, places):
        """The lowest binary places of integers."""
        return self.new(self.builder.and_(self.value, self.fill((1 << places) - 1).value))

    def __neg__(self):
        negative = self.builder.neg if self.integer else self.builder.fneg
        return self.new(negative(self.value))

    def __abs__(self):
        return self.call("fabs")

    def _compare(self, relation, other):
        if self.integer:
            compare = self.builder.icmp_signed
        else:  # as for a Python float, NaN is unequal to all and in order with none
            ordered, unordered = self.builder.fcmp_ordered, self.builder.fcmp_unordered
            compare = unordered if relation == "!=" else ordered
        pairs = zip(self.registers, other.registers, strict=True)
        return Bits(self.builder, tuple(compare(relation, x.value, y.value) for x, y in pairs))

    def __lt__(self, other):
        return self._compare("<", other)

    def __le__(self, other):
        return self._compare("<=", other)

    def __gt__(self, other):
        return self._compare(">", other)

    def __ge__(self, other):
        return self._compare(">=", other)

    def __eq__(self, other):
        return self._compare("==", other)

    def __ne__(self, other):
        return self._compare("!=", other)


@dataclass(frozen=True, eq=False)
class Pair:
    """An emitted vector of complex numbers: the real parts beside the imaginary parts."""

    real: Vector
    imag: Vector

    @property
    def builder(self):
        return self.real.builder

    @property
    def value(self):
        builder = self.builder
        pair = ir.LiteralStructType([self.real.value.type] * 2)
        half = builder.insert_value(ir.Constant(pair, ir.Undefined), self.real.value, 0)
        return builder.insert_value(half, self.imag.value, 1)

    def lane(self, index):
        return Pair(self.real.lane(index), self.imag.lane(index))

    def replaced(self, index, number):
        real, imag = number.real, number.imag
        return Pair(self.real.replaced(index, real), self.imag.replaced(index, imag))

    def fill(self, number):
        if isinstance(number, Pair):
            return Pair(self.real.fill(number.real), self.imag.fill(number.imag))
        return Pair(self.real.fill(number), self.imag.fill(0))

    def __add__(self, other):
        return Pair(self.real + other.real, self.imag + other.imag)

    def __sub__(self, other):
        return Pair(self.real - other.real, self.imag - other.imag)

    def __neg__(self):
        return Pair(-self.real, -self.imag)

    def __mul__(self, other):
        real = self.real * other.real - self.imag * other.imag
        return Pair(real, self.real * other.imag + self.imag * other.real)

    def __eq__(self, other):
        return (self.real == other.real) & (self.imag == other.imag)

    def __ne__(self, other):
        return (self.real != other.real) | (self.imag != other.imag)


def joined(vectors):
    """One vector of all lanes."""
    vectors = list(vectors)
    while len(vectors) > 1:
        lanes = range(2 * vectors[0].count)
        vectors = [x.shuffle(y, lanes) for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]


def lane_numbers(builder, count):
    """0, 1, 2 … as indices."""
    return Vector(builder, ir.VectorType(INDEX, count)([0] * count)).ramp


def mask_of(builder, flags):
    """The mask of these truth values."""
    return Bits(builder, (ir.VectorType(ir.IntType(1), len(flags))(list(flags)),))


def byte(builder, value):
    """A vector of one integer of eight bits."""
    return Vector(builder, ir.VectorType(ir.IntType(8), 1)([value]))


def real(builder, value):
    """A number in double precision."""
    return Emitted(builder, ir.DoubleType()(value))


def unpaired(builder, pair, part=Vector):
    return Pair(*(part(builder, builder.extract_value(pair, i)) for i in range(2)))
