"""`Problem`: what is to be solved, made from shapes and dtypes, which are refused here."""

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.batch.pieces import PIECE, piece_size

DTYPES = tuple(np.dtype(t) for t in (np.float32, np.float64, np.complex64, np.complex128))


@dataclass(frozen=True, slots=True)
class Problem:
    """A batch of systems ``a[i] x[i] = b[i]``, described by metadata alone."""

    batch_shape: tuple[int, ...]
    """Shape of the batch, after broadcasting."""
    n: int
    """Order of each system."""
    k: int
    """Right-hand sides of each system."""
    dtype: np.dtype[Any]
    """What x is computed in: one of the four that LAPACK knows, in native byte order."""
    vectors: bool
    """b is a stack of vectors, so x has no axis for the right-hand sides."""
    direct: bool
    """There are systems, and a and b are of x's dtype and batch shape: no need to convert them."""
    at_once: bool
    """So few of them, along one axis, that they are solved by one call of a kernel."""
    together: int
    """How many systems a kernel is given at once, at most."""
    shared: tuple[int, ...]
    """Axes of the batch, of systems that are there, along which a has one matrix for several b."""

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of x."""
        return (*self.batch_shape, self.n) if self.vectors else (*self.batch_shape, self.n, self.k)

    @property
    def identity(self) -> NDArray[Any]:
        """The right-hand sides whose solutions are the inverses; of few systems, for each."""
        if not self.at_once:
            return np.eye(self.n, dtype=self.dtype)[(None,) * len(self.batch_shape)]
        ones = np.zeros(self.x_shape, self.dtype)
        ones.reshape(-1, self.n * self.n)[:, :: self.n + 1] = 1
        return ones


@lru_cache(maxsize=1024)  # solving one small system takes less time than describing it
def describe(
    a_shape: tuple[int, ...],
    a_dtype: np.dtype[Any],
    b_shape: tuple[int, ...],
    b_dtype: np.dtype[Any],
) -> Problem:
    """Return the problem that these arrays pose, or raise what tells a person why there is none."""
    dtype = solution_dtype(a=a_dtype, b=b_dtype)  # first: what is no array has no shape
    shapes = f"a has shape {a_shape}, b has shape {b_shape}"
    if len(a_shape) < 2 or a_shape[-1] != a_shape[-2]:
        raise np.linalg.LinAlgError(f"a must be square, of shape (..., N, N): {shapes}")
    batch_shape, k, vectors = right_hand_sides(a_shape, b_shape)
    n, systems = a_shape[-1], math.prod(batch_shape)
    b_batch = b_shape[: -1 if vectors else -2]
    given = a_shape[:-2] == b_batch == batch_shape and a_dtype == b_dtype == dtype
    direct = given and n * k * systems > 0
    a_batch = (1,) * (len(batch_shape) + 2 - len(a_shape)) + a_shape[:-2]
    return Problem(
        batch_shape=batch_shape,
        n=n,
        k=k,
        dtype=dtype,
        vectors=vectors,
        direct=direct,
        at_once=direct
        and len(batch_shape) == 1
        and systems * n * (n + k) * dtype.itemsize <= PIECE,
        together=min(systems, piece_size(n, k, dtype.itemsize)) if n else systems,
        shared=tuple(i for i, one in enumerate(a_batch) if one == 1 < batch_shape[i])
        if n * k * systems
        else (),
    )


def right_hand_sides(
    a_shape: tuple[int, ...], b_shape: tuple[int, ...], rows: str = "N"
) -> tuple[tuple[int, ...], int, bool]:
    """The shape of the batch, how many right-hand sides, and whether they are vectors.

    rows: what the number of equations of a is called.
    """
    shapes = f"a has shape {a_shape}, b has shape {b_shape}"
    n = a_shape[-2]
    vectors = len(b_shape) == 1 or len(b_shape) == len(a_shape) - 1
    if not vectors and len(b_shape) < len(a_shape):
        raise ValueError(
            f"b must be one vector ({rows},), a stack of vectors (..., {rows}) with one axis less "
            f"than a, or a stack of matrices (..., {rows}, K) with at least as many axes as a: "
            f"{shapes}"
        )
    b_batch, b_core = (b_shape[:-1], b_shape[-1:]) if vectors else (b_shape[:-2], b_shape[-2:])
    if b_core[0] != n:
        kind = f"vectors (..., {rows})" if vectors else f"matrices (..., {rows}, K)"
        raise ValueError(
            f"b, a stack of {kind}, has {rows} = {b_core[0]} where a has {n}: {shapes}"
            + _advice(a_shape, b_shape, vectors)
        )
    try:
        batch_shape = np.broadcast_shapes(a_shape[:-2], b_batch)
    except ValueError:
        raise ValueError(
            f"the batch shapes {a_shape[:-2]} of a and {b_batch} of b do not broadcast: {shapes}"
            + _advice(a_shape, b_shape, vectors)
        ) from None
    return batch_shape, 1 if vectors else b_core[1], vectors


def _advice(a_shape: tuple[int, ...], b_shape: tuple[int, ...], vectors: bool) -> str:
    """What to write where b seems to be meant as something else than its axes say."""
    n = a_shape[-2]
    if not vectors and len(b_shape) == len(a_shape) and b_shape[-1] == n:
        wider = _wider("a", a_shape, b_shape[:-1])
        return f"; for several vectors of each a give {wider}" if wider else ""
    if not vectors or len(b_shape) == 1 or b_shape[-2] != n:
        return ""
    advice, turned = "", (*b_shape[:-2], b_shape[-1], n)
    if turned[:-1] == a_shape[:-2]:
        name = "b.T" if len(b_shape) == 2 else "b.swapaxes(-1, -2)"
        advice = f"; {name}, of shape {turned}, is a vector for each a"
    wider = _wider("b", b_shape, a_shape[:-2])
    return f"{advice}; for one matrix of right-hand sides give {wider}" if wider else advice


def _wider(name: str, shape: tuple[int, ...], batch: tuple[int, ...]) -> str | None:
    """Matrices with one axis more, where they then broadcast to a batch."""
    for place, index in ((0, "None"), (len(shape) - 2, "..., None, :, :")):
        wider = (*shape[:place], 1, *shape[place:])
        with suppress(ValueError):
            np.broadcast_shapes(wider[:-2], batch)
            return f"{name}[{index}], of shape {wider}"
    return None


Metadata = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and dtype."""


def describe_bands(lower: Metadata, diagonal: Metadata, upper: Metadata, b: Metadata) -> Problem:
    """Return the problem that the diagonals (..., N) of tridiagonal matrices pose with b."""
    dtype = solution_dtype(lower=lower[1], diagonal=diagonal[1], upper=upper[1], b=b[1])
    shapes = [shape for shape, _ in (lower, diagonal, upper)]
    if min(map(len, shapes)) == 0 or len({shape[-1] for shape in shapes}) > 1:
        raise ValueError(
            "lower, diagonal and upper must be of shape (..., N), all of the same N: they have "
            f"shapes {', '.join(map(str, shapes))} (lower[..., 0] and upper[..., -1] are ignored)"
        )
    try:
        bands = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            "the batch shapes of lower, diagonal and upper do not broadcast: they have shapes "
            f"{', '.join(map(str, shapes))}"
        ) from None
    n = bands[-1]
    given = f"the diagonals have shape {bands}, b has shape {b[0]}"
    if 1 != len(b[0]) < len(bands):
        raise ValueError(
            "b must be one vector (N,), a stack of vectors (..., N) with as many axes as the "
            f"diagonals, or a stack of matrices (..., N, K) with more: {given}"
        )
    vectors = len(b[0]) in (1, len(bands))
    core = -1 if vectors else -2
    if b[0][core] != n:
        kind = "vectors (..., N)" if vectors else "matrices (..., N, K)"
        raise ValueError(
            f"b, a stack of {kind}, has N = {b[0][core]} where the diagonals have {n}: {given}"
        )
    try:
        np.broadcast_shapes(bands[:-1], b[0][:core])
    except ValueError:
        raise ValueError(
            f"the batch shapes {bands[:-1]} of the diagonals and {b[0][:core]} of b do not "
            f"broadcast: {given}"
        ) from None
    return describe((*bands, n), dtype, b[0], dtype)


def describe_inverses(a_shape: tuple[int, ...], a_dtype: np.dtype[Any]) -> Problem:
    """Return the problem of inverting matrices, or of factoring them."""
    if len(a_shape) < 2 or a_shape[-1] != a_shape[-2]:
        solution_dtype(a=a_dtype)
        raise np.linalg.LinAlgError(
            f"a must be square, of shape (..., N, N): it has shape {a_shape}"
        )
    return describe(a_shape, a_dtype, a_shape, a_dtype)


def solution_dtype(**dtypes: np.dtype[Any]) -> np.dtype[Any]:
    """What systems of these dtypes are solved in; or raise what names the one that is none."""
    for name, dtype in dtypes.items():
        number = dtype.kind in "fc" and dtype.newbyteorder("=") in DTYPES
        if not number and dtype.kind not in "biu":
            raise TypeError(
                f"{name} has dtype {dtype}; dasksolve solves float32, float64, complex64 and "
                "complex128 (integers and bool become float64): convert it with astype()"
            )
    dtype = np.result_type(*dtypes.values())
    return dtype.newbyteorder("=") if dtype.kind in "fc" else np.dtype(np.float64)


def undefined(dtype: np.dtype[Any]) -> Any:
    """NaN as a number of a dtype: in both parts of a complex one."""
    return dtype.type(complex(np.nan, np.nan) if dtype.kind == "c" else np.nan)
