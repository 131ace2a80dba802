"""Solving inside functions that numba compiles: `np.linalg.solve` of 3-D arrays, and more."""

from typing import Any

import numpy as np
from numba import from_dtype, types
from numba.extending import overload, register_jitable
from numpy.typing import NDArray

from dasksolve.batch import eager, least_squares
from dasksolve.batch.options import Options
from dasksolve.batch.pieces import piece_size
from dasksolve.batch.problem import describe, solution_dtype
from dasksolve.kernels.calls import call, kernel_for
from dasksolve.kernels.compiling.jit import jit
from dasksolve.kernels.language.backend import NumbaTypeError, as_dtype
from dasksolve.kernels.regression import separate
from dasksolve.status import Status

__all__ = ["lstsq_into", "solve", "solve_into"]

PENDING, OK, SINGULAR = int(Status.PENDING), int(Status.OK), int(Status.SINGULAR)
register_jitable(piece_size)
_least_squares = separate.kernel(0)

_NAN = Options(on_singular="nan")
_NAN_LSTSQ = least_squares.LstsqOptions()

FITS, NOT_SQUARE, OTHER_ROWS, OTHER_BATCH = range(4)


def solve(a: Any, b: Any) -> NDArray[Any]:
    """Solve a batch of dense linear systems inside a function that numba compiles.

    It does inside ``@njit`` what `dasksolve.solve` does outside: the same kernels, the same bits.
    Once dasksolve has been imported, ``np.linalg.solve(a, b)`` means this too there, where a has
    three dimensions; where it has two, that stays numba's own.

    Parameters
    ----------
    a : (M, N, N) or (N, N) array
        Square matrices: float32, float64, complex64 or complex128 in any layout; integers and bool
        become float64.
    b : (N,), (M, N) or (M, N, K) array
        One vector for every system, a stack of vectors, or a stack of matrices; beside an a of two
        dimensions (N,) or (N, K). A first dimension of 1 broadcasts, in a and in b.

    Returns
    -------
    x : (M, N) or (M, N, K) array
        C-contiguous; of one dimension less beside an a of two.

    Raises
    ------
    numpy.linalg.LinAlgError
        A system is singular, or a is not square. Call `solve_into` inside a ``prange``: numba
        loses an exception that is raised there, and with it all that was left for the thread to do.
    ValueError
        The shapes do not fit.
    numba.TypingError
        While compiling: a dtype or a number of dimensions that is none of the above.

    See Also
    --------
    solve_into : says which systems are singular, and raises nothing.

    Notes
    -----
    The first call for an order compiles a kernel or loads it from disk, as `dasksolve.solve` does.
    NaN and Inf, and what is out of range, are treated as in `dasksolve.solve`. No SciPy is needed.

    b is read by the rule of `dasksolve.solve` inside compiled code: (M, N) is a stack of vectors,
    also where M equals N. The same line in Python is NumPy's, which from version 2 on takes such a
    b for one matrix, and returns (M, N, N): write ``dasksolve.nopython.solve`` for a function that
    is to run in both, or ``b[..., None]``.

    Examples
    --------
    >>> import numba, numpy as np, dasksolve
    >>> @numba.njit
    ... def largest(a, b):
    ...     return np.abs(np.linalg.solve(a, b)).max()
    >>> a = np.array([[[2.0, 0.0], [0.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]])
    >>> largest(a, np.array([[2.0, 2.0], [3.0, 5.0]]))
    5.0
    """
    return eager.solve(a, b, Options())


def solve_into(a: Any, b: Any, x: NDArray[Any], status: NDArray[np.int8]) -> None:
    """Solve a batch inside a function that numba compiles, into arrays that are there; never raise.

    Parameters
    ----------
    a : (M, N, N) array
        As in `solve`.
    b : (N,), (M, N) or (M, N, K) array
        As in `solve`.
    x : (M, N) or (M, N, K) array
        The solutions; of the dtype that `solve` would return, and apart from a and b in memory.
        NaN as in `dasksolve.solve` where the status is not OK.
    status : (M,) int8 array
        The `dasksolve.Status` of every system. PENDING, and NaN in x, for all of them where the
        shapes do not fit.

    Raises
    ------
    numba.TypingError
        While compiling: a dtype or a number of dimensions that does not fit. Outside of compiled
        code a dtype that does not is a TypeError.

    Examples
    --------
    >>> import numba, numpy as np
    >>> from dasksolve.nopython import solve_into
    >>> @numba.njit
    ... def solved(a, b):
    ...     x, status = np.empty_like(b), np.empty(len(b), np.int8)
    ...     solve_into(a, b, x, status)
    ...     return x, status
    >>> a = np.array([[[2.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    >>> solved(a, np.array([[2.0, 2.0], [3.0, 5.0]]))
    (array([[1. , 0.5],
           [nan, nan]]), array([0, 1], dtype=int8))
    """
    _begin(a, b, x, status)
    try:
        problem = describe(a.shape, a.dtype, b.shape, b.dtype)
    except ValueError:
        return
    if problem.x_shape == x.shape and problem.batch_shape == status.shape:
        x[...], status[...] = eager.solve_with_status(a, b, problem, _NAN)


def lstsq_into(a: Any, b: Any, x: NDArray[Any], status: NDArray[np.int8]) -> None:
    """Solve least squares inside a function that numba compiles, into arrays that are there.

    It does inside ``@njit`` what `dasksolve.lstsq` does outside: the same kernel, the same bits. It
    never raises.

    Parameters
    ----------
    a : (M, P, N) array
        At least as many rows as columns; dtypes as in `solve`. Rows with NaN in a or b are missing.
    b : (P,), (M, P) or (M, P, K) array
        As in `solve`.
    x : (M, N) or (M, N, K) array
        The solutions; of the dtype that `solve` would return, and apart from a and b in memory.
        NaN where the status is not OK.
    status : (M,) int8 array
        The `dasksolve.Status` of every system: OK, RANK_DEFICIENT or NONFINITE. PENDING, and NaN in
        x, for all of them where the shapes do not fit.

    Raises
    ------
    numba.TypingError
        While compiling: a dtype or a number of dimensions that does not fit. Outside of compiled
        code a dtype that does not is a TypeError.

    Examples
    --------
    >>> import numba, numpy as np
    >>> from dasksolve.nopython import lstsq_into
    >>> @numba.njit
    ... def fitted(a, b):
    ...     x, status = np.empty((len(a), a.shape[2])), np.empty(len(a), np.int8)
    ...     lstsq_into(a, b, x, status)
    ...     return x, status
    >>> a = np.array([[[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]])
    >>> fitted(a, np.array([[1.0, 3.0, np.nan, 7.0]]))
    (array([[1., 2.]]), array([0], dtype=int8))
    """
    _begin(a, b, x, status)
    try:
        problem = least_squares.describe(a.shape, a.dtype, b.shape, b.dtype)
    except ValueError:
        return
    core = (problem.n,) if problem.vectors else (problem.n, problem.k)
    if (*problem.batch_shape, *core) == x.shape and problem.batch_shape == status.shape:
        x[...], status[...] = least_squares.lstsq(a, b, None, _NAN_LSTSQ)[:2]


def _begin(a: Any, b: Any, x: NDArray[Any], status: NDArray[np.int8]) -> None:
    """Outside of compiled code: refuse what is refused there, and call all pending."""
    for name, array in (("a", a), ("b", b), ("x", x), ("status", status)):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} is a {type(array).__name__}, which is no array")
    wanted = solution_dtype(a=a.dtype, b=b.dtype), np.dtype(np.int8)
    for name, array, dtype in zip(("x", "status"), (x, status), wanted, strict=True):
        if array.dtype.newbyteorder("=") != dtype:
            raise TypeError(f"{name} has dtype {array.dtype}; an array of {dtype} is needed")
        if not array.flags.writeable:
            raise TypeError(f"{name} is read-only; a writable array is needed")
    x[...], status[...] = np.nan, Status.PENDING


def _problem(a: Any, b: Any) -> Any:
    """What arrays of these types pose, in systems of order 1; a typing error where nothing does."""
    for name, array, most in (("a", a, 3), ("b", b, getattr(a, "ndim", 3))):
        if not isinstance(array, types.Array) or array.ndim > most:
            raise NumbaTypeError(
                f"dasksolve solves a of (N, N) or (M, N, N) and b of (N,) to (M, N, K) inside "
                f"compiled code; {name} is {array}"
                + (": reshape it" if isinstance(array, types.Array) else ", which is no array")
            )
    try:
        return describe((1,) * a.ndim, as_dtype(a.dtype), (1,) * b.ndim, as_dtype(b.dtype))
    except (TypeError, ValueError) as error:
        raise NumbaTypeError(str(error)) from error


@overload(np.linalg.solve, target="cpu")  # so that it is tried before numba's, which is generic
def _numpy_solve(a, b):
    if isinstance(a, types.Array) and a.ndim > 2:
        return _solve(a, b)
    return None


@overload(solve)
def _solve(a, b):
    _problem(a, b)
    if a.ndim == 3:
        return lambda a, b: _solve_stack(a, b)
    return lambda a, b: _solve_stack(np.expand_dims(a, 0), np.expand_dims(b, 0))[0]


@overload(solve_into)
def _solve_into(a, b, x, status):
    problem = _problem(a, b)
    if a.ndim != 3:
        raise NumbaTypeError(f"a must be of (M, N, N), is {a}; one system is a[i : i + 1]")
    _check_outputs(x, status, problem)
    return lambda a, b, x, status: _solve_stack_into(a, b, x, status)


@overload(lstsq_into)
def _lstsq_into(a, b, x, status):
    problem = _problem(a, b)
    if a.ndim != 3:
        raise NumbaTypeError(f"a must be of (M, P, N), is {a}; one system is a[i : i + 1]")
    _check_outputs(x, status, problem)
    return lambda a, b, x, status: _lstsq_stack_into(a, b, x, status)


def _check_outputs(x, status, problem):
    of_x = from_dtype(problem.dtype), 2 if problem.vectors else 3
    for name, array, wanted in (("x", x, of_x), ("status", status, (types.int8, 1))):
        found = (getattr(array, "dtype", None), getattr(array, "ndim", None))
        if found != wanted or not array.mutable:
            raise NumbaTypeError(
                f"{name} is {array}; a writable array of {wanted[0]} and {wanted[1]} dimensions "
                "is needed"
            )


# Compiled once, and on disk: else each function that solves would take a second more to compile.


@jit
def _solve_stack(a, b):
    b_columns = _columns(b)
    flaw = _misfit(a, b_columns)
    if flaw == NOT_SQUARE:
        raise np.linalg.LinAlgError("a must be square, of shape (M, N, N)")
    if flaw == OTHER_ROWS:
        raise ValueError("the systems in b do not have as many rows as those in a")
    if flaw == OTHER_BATCH:
        raise ValueError("the batches of a and b differ in length, and none has length 1")
    x = _empty(a, b_columns)
    status = np.empty(len(x), np.int8)
    if not _fill(a, b_columns, x, status):
        raise RuntimeError("no kernel could be had; the reason was printed")
    for verdict in status:
        if verdict == SINGULAR:
            raise np.linalg.LinAlgError(
                "Matrix is singular to machine precision: "
                "dasksolve.nopython.solve_into(a, b, x, status) says which"
            )
    return _as_given(x, b)


@jit
def _solve_stack_into(a, b, x, status):
    b_columns, x_columns = _columns(b), _columns(x)
    fits = (
        _misfit(a, b_columns) == FITS
        and len(x) == len(status) == _systems(a, b_columns)
        and x_columns.shape[1:] == b_columns.shape[1:]
    )
    if fits:
        own_x, own_status = _own(x_columns), _own(status)
        fits = _fill(a, b_columns, own_x, own_status)
        _give_back(own_x, x_columns)
        _give_back(own_status, status)
    if not fits:
        x_columns[...] = np.nan
        status[...] = PENDING


@register_jitable
def _misfit(a, b):
    """What is wrong with the shapes of a (M, N, N) and b (M, N, K)."""
    if a.shape[1] != a.shape[2]:
        return NOT_SQUARE
    if b.shape[1] != a.shape[1]:
        return OTHER_ROWS
    if len(a) != len(b) and len(a) != 1 and len(b) != 1:
        return OTHER_BATCH
    return FITS


@register_jitable
def _systems(a, b):
    return len(b) if len(a) == 1 else len(a)


@jit
def _fill(a, b, x, status):
    """Solve into plain x (M, N, K) and status (M,), b (M, N, K); whether there was a kernel."""
    systems, n, k = x.shape
    if systems == 0 or n == 0:
        status[:] = OK
        return True
    begin = kernel_for(n, k, systems, x)
    if begin == 0:
        return False
    if k == 0:  # a may be singular all the same: look at it with a right-hand side of zeros
        _run(begin, a, np.zeros((1, n, 1), x.dtype), np.empty((systems, n, 1), x.dtype), status)
    else:
        _run(begin, a, b, x, status)
    return True


@jit
def _lstsq_stack_into(a, b, x, status):
    b_columns, x_columns = _columns(b), _columns(x)
    systems, rows, n = _systems(a, b_columns), a.shape[1], a.shape[2]
    fits = (
        0 < n <= rows
        and rows == b_columns.shape[1]
        and (len(a) == len(b_columns) or len(a) == 1 or len(b_columns) == 1)
        and len(x) == len(status) == systems
        and x_columns.shape[1] == n
        and x_columns.shape[2] == b_columns.shape[2]
    )
    if not fits:
        x_columns[...] = np.nan
        status[...] = PENDING
        return
    own_x, own_status = _own(x_columns), _own(status)
    k, dtype = own_x.shape[2], own_x.dtype
    size = min(systems, piece_size(rows, max(n, k), own_x.itemsize))
    own_a, own_b = np.empty((size, rows, n), dtype), np.empty((size, rows, k), dtype)
    rss, variances = np.empty((size, k), own_x.real.dtype), np.empty((size, n), own_x.real.dtype)
    rcond, count = np.empty(size), np.empty(size)
    threshold, ones = rows * np.finfo(own_x.real.dtype).eps, np.ones((1, rows), dtype)
    for start in range(0, systems, max(size, 1)):
        stop = min(start + size, systems)
        ready_a, ready_b = _ready(a, start, stop, own_a), _ready(b_columns, start, stop, own_b)
        some = stop - start
        _least_squares(
            ready_a, ready_b, ones, 0, threshold, own_x[start:stop], rss[:some], variances[:some],
            rcond[:some], count[:some], own_status[start:stop], own_a[:0],
        )  # fmt: skip
    _give_back(own_x, x_columns)
    _give_back(own_status, status)


def _run(begin, a, b, x, status):
    """Call the kernel at `begin`: as a and b are, or on a copy of one piece after the other."""


@overload(_run)
def _run_as_they_are_or_in_pieces(begin, a, b, x, status):
    plain = _is_plain(a, x.dtype) and _is_plain(b, x.dtype)

    def run(begin, a, b, x, status):
        systems, n, k = x.shape
        if plain and len(a) == systems and len(b) == systems:
            call(begin, a, b, x, status)
            return
        size = min(systems, piece_size(n, k, x.itemsize))
        own_a, own_b = np.empty((size, n, n), x.dtype), np.empty((size, n, k), x.dtype)
        for start in range(0, systems, size):
            stop = min(start + size, systems)
            ready_a, ready_b = _ready(a, start, stop, own_a), _ready(b, start, stop, own_b)
            call(begin, ready_a, ready_b, x[start:stop], status[start:stop])

    return run


def _is_plain(array, dtype):
    """Whether a kernel can take arrays of this type, if they are of `dtype`, as they are."""
    return array.dtype == dtype and array.layout == "C" and array.aligned


def _ready(array, start, stop, own):
    """array[start:stop], broadcast, as a kernel wants it: copied to `own` if it is not so yet."""


@overload(_ready)
def _ready_as_it_is_or_copied(array, start, stop, own):
    plain = _is_plain(array, own.dtype)
    rows_first, systems_first = array.layout == "C", array.layout == "F"

    def ready(array, start, stop, own):
        count, (rows, columns) = stop - start, own.shape[1:]
        if len(array) > 1 and plain:
            return array[start:stop]
        if len(array) == 1:
            for m in range(count if start == 0 else 0):
                for i in range(rows):
                    for j in range(columns):
                        own[m, i, j] = array[0, i, j]
        elif systems_first:
            for i in range(rows):
                for j in range(columns):
                    for m in range(count):
                        own[m, i, j] = array[start + m, i, j]
        elif rows_first:
            size = rows * columns
            flat = array.reshape(array.size)[start * size : stop * size]
            own_flat = own.reshape(own.size)
            for i in range(len(flat)):
                own_flat[i] = flat[i]
        else:
            for m in range(count):
                for i in range(rows):
                    for j in range(columns):
                        own[m, i, j] = array[start + m, i, j]
        return own[:count]

    return ready


def _columns(values):
    """Vectors (N,) or (M, N), or matrices (M, N, K), as matrices (M, N, K), not copied if large."""


@overload(_columns)
def _as_columns(values):
    if values.ndim == 3:
        return lambda values: values
    if values.ndim == 1:
        return lambda values: values.copy().reshape((1, len(values), 1))
    if values.layout == "C":
        return lambda values: values.reshape((*values.shape, 1))
    return lambda values: np.expand_dims(values, 2)


def _as_given(x, b):
    """x (M, N, K), without its columns if b was of vectors."""


@overload(_as_given)
def _as_vectors_or_matrices(x, b):
    if b.ndim == 3:
        return lambda x, b: x
    return lambda x, b: x.reshape(x.shape[:2])


def _empty(a, b):
    """A new array for x (M, N, K)."""


@overload(_empty)
def _empty_x(a, b):
    dtype = from_dtype(_problem(a, b).dtype)
    return lambda a, b: np.empty((_systems(a, b), b.shape[1], b.shape[2]), dtype)


def _own(array):
    """The array, or one like it that a kernel can write to."""


@overload(_own)
def _own_plain(array):
    if _is_plain(array, array.dtype):
        return lambda array: array
    dtype = array.dtype
    return lambda array: np.empty(array.shape, dtype)


def _give_back(own, array):
    """Copy to the array what was written to its `_own`."""


@overload(_give_back)
def _give_back_if_copied(own, array):
    if _is_plain(array, array.dtype):
        return lambda own, array: None

    def copy(own, array):
        array[...] = own

    return copy
