"""Inside functions that numba compiles: which arrays, threads and processes can solve there."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
from families import read_only, unaligned
from numba.core.errors import TypingError

import dasksolve
from dasksolve import Status, kernels, nopython
from dasksolve.kernels import calls, making
from dasksolve.kernels.language.lanes import width


@numba.njit
def numpys(a, b):
    return np.linalg.solve(a, b)


@numba.njit
def ours(a, b):
    return nopython.solve(a, b)


@numba.njit
def into(a, b, x, status):
    nopython.solve_into(a, b, x, status)


@numba.njit
def fitted(a, b, x, status):
    nopython.lstsq_into(a, b, x, status)


@numba.njit(parallel=True)
def in_prange(a, b, x, status):
    for i in numba.prange(len(a)):
        nopython.solve_into(a[i], b[i], x[i], status[i])


def batch(systems, n, k=None, dtype="f8"):
    rng = np.random.default_rng(systems + n)
    shapes = (systems, n, n), ((systems, n) if k is None else (systems, n, k))
    arrays = [rng.standard_normal(s) + 1j * rng.standard_normal(s) for s in shapes]
    return [(z if np.dtype(dtype).kind == "c" else z.real).astype(dtype) for z in arrays]


def same(x, y):
    return x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y, equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "k"),
    [
        ("d", None),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in (("f", 3), ("D", None), ("F", 2))),
    ],
)
def test_the_bits_are_those_of_solve(dtype, k):
    for systems, n in ((1, 2), (37, 2), (1, 40), (37, 40)):  # four kernels
        a, b = batch(systems, n, k, dtype)
        assert same(numpys(a, b), dasksolve.solve(a, b))


def strided(values):
    return np.repeat(values, 2, axis=1)[:, ::2]


LAYOUTS = {
    "all but plain": (lambda values: np.asfortranarray(values, np.complex64), strided),
    "F": (np.asfortranarray, np.copy),
    "read-only integers": (lambda values: read_only(values.astype(int)), np.asfortranarray),
    "reversed": (lambda values: values[::-1], strided),
    "read-only": (read_only, read_only),
    "unaligned": (unaligned, unaligned),
    "bool": (np.bool_, np.int8),
    "real a, complex b": (np.float32, np.complex128),
}


@pytest.mark.slow
@pytest.mark.parametrize(("a_layout", "b_layout"), LAYOUTS.values(), ids=LAYOUTS)
def test_any_layout_and_a_mixture_of_dtypes(a_layout, b_layout):
    a, b = batch(5000, 8)  # two pieces
    a, b = a_layout(4 * a), b_layout(b)
    x = dasksolve.solve(a, b, on_singular="nan")
    own, status = np.empty((8, len(x)), x.dtype).T, np.empty((len(x), 2), np.int8)[:, 0]
    into(a, b, own, status)
    assert same(own, x)


B_SHAPES = {
    "one vector": ((5, 4, 4), (4,)),
    "one vector, broadcast": ((5, 4, 4), (1, 4)),
    "one matrix": ((5, 4, 4), (1, 4, 3)),
    "one a": ((1, 4, 4), (5, 4)),
    "as many systems as rows": ((4, 4, 4), (4, 4)),
    "no systems": ((0, 4, 4), (0, 4)),
    "order 0": ((5, 0, 0), (5, 0)),
    "no columns": ((5, 4, 4), (5, 4, 0)),
    "a alone": ((4, 4), (4,)),
}
SLOW_SHAPES = "a alone", "one matrix", "no columns"


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        pytest.param(*shapes, id=name, marks=pytest.mark.slow if name in SLOW_SHAPES else [])
        for name, shapes in B_SHAPES.items()
    ],
)
def test_the_rule_for_b(a_shape, b_shape):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(a_shape), rng.standard_normal(b_shape)
    assert same(ours(a, b), dasksolve.solve(a, b))
    assert same(nopython.solve(a, b), dasksolve.solve(a, b))  # outside of compiled code too


@pytest.mark.slow
def test_2d_calls_stay_numbas_own():
    a, b = batch(1, 5)
    x = numpys(a[0], b[0])
    np.testing.assert_allclose(x, np.linalg.solve(a[0], b[0]), rtol=1e-10)
    with pytest.raises(np.linalg.LinAlgError, match=r"singular to machine precision\.$"):
        numpys(np.zeros((2, 2)), np.zeros(2))


RUN_TIME = {
    "singular": ((3, 2, 2), (3, 2), np.linalg.LinAlgError, "singular to machine precision"),
    "no square": ((3, 2, 3), (3, 2), np.linalg.LinAlgError, "square"),
    "sizes": ((3, 2, 2), (3, 3), ValueError, "as many rows"),
    "batches": ((3, 2, 2), (2, 2), ValueError, "differ in length"),
}


@pytest.mark.parametrize(("a", "b", "error", "text"), RUN_TIME.values(), ids=RUN_TIME)
def test_errors_of_solve(a, b, error, text):
    with pytest.raises(error, match=text):
        numpys(np.zeros(a), np.zeros(b))


TYPING = {
    "4-D a": ((1, 2, 2, 2), "f8", (2,), "f8", "reshape it"),
    "4-D b": ((2, 2, 2), "f8", (1, 1, 2, 2), "f8", "reshape it"),
    "float16": ((2, 2, 2), "f2", (2, 2), "f8", "float16; dasksolve solves float32"),
}


@pytest.mark.parametrize(("a", "a_type", "b", "b_type", "text"), TYPING.values(), ids=TYPING)
def test_what_cannot_be_solved_is_refused_while_compiling(a, a_type, b, b_type, text):
    with pytest.raises(TypingError, match=text):
        numpys(np.zeros(a, a_type), np.zeros(b, b_type))


def test_solve_into_names_what_failed_and_never_raises():
    a, b = batch(6, 3)
    a[1], a[2, 0, 0], b[4, 2] = 0, np.nan, np.inf
    x, status = np.empty((6, 3)), np.empty(6, np.int8)
    for solve_into in (into, nopython.solve_into):
        x[...], status[...] = 0, 9
        solve_into(a, b, x, status)
        wanted = [0, Status.SINGULAR, Status.NONFINITE, 0, Status.NONFINITE, 0]
        assert status.tolist() == wanted
        assert same(x, dasksolve.solve(a, b, on_singular="nan"))


@pytest.mark.parametrize("solve_into", [into, nopython.solve_into], ids=["compiled", "Python"])
@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 2, 2), (2, 2), (3, 2), 3),
        ((3, 2, 3), (3, 2), (3, 2), 3),
        ((3, 2, 2), (3, 2), (3, 2), 2),
        ((3, 2, 2), (3, 2), (2, 2), 3),
        ((3, 2, 2), (3, 3), (3, 2), 3),
    ],
)
def test_solve_into_leaves_what_does_not_fit_pending(shapes, solve_into):
    a, b, x, status = map(np.ones, shapes)
    status = status.astype(np.int8)
    solve_into(a, b, x, status)
    assert np.isnan(x).all()
    assert (status == Status.PENDING).all()


@pytest.mark.parametrize(
    ("x", "status", "name"),
    [
        (np.empty((3, 2), "f4"), np.empty(3, "i1"), "x is"),
        (np.empty((3, 2, 1)), np.empty(3, "i1"), "x is"),
        (read_only(np.empty((3, 2))), np.empty(3, "i1"), "x is"),
        (np.empty((3, 2)), np.empty(3), "status is"),
    ],
)
def test_solve_into_refuses_other_outputs_while_compiling(x, status, name):
    with pytest.raises(TypingError, match=f"{name} .*is needed"):
        into(np.ones((3, 2, 2)), np.ones((3, 2)), x, status)


@pytest.mark.parametrize("function", [nopython.solve_into, nopython.lstsq_into])
@pytest.mark.parametrize(
    ("a_type", "x_type", "status_type", "text"),
    [
        ("f8", "f4", "i1", "x has dtype float32; an array of float64"),
        ("c16", "f8", "i1", "x has dtype float64; an array of complex128"),
        ("f8", "f8", "bool", "status has dtype bool; an array of int8"),
    ],
)
def test_outputs_of_other_dtypes_are_refused_in_python_too(
    function, a_type, x_type, status_type, text
):
    a, b, x, status = np.ones((3, 2, 2), a_type), np.ones((3, 2)), np.ones((3, 2)), np.ones(3)
    with pytest.raises(TypeError, match=text):
        function(a, b, x.astype(x_type), status.astype(status_type))


@pytest.mark.parametrize("function", [nopython.solve_into, nopython.lstsq_into])
@pytest.mark.parametrize("place", range(4))
def test_what_is_no_array_that_can_be_used_is_named_in_python_too(function, place):
    given = [np.ones((3, 2, 2)), np.ones((3, 2)), np.ones((3, 2)), np.ones(3, "i1")]
    name = ("a", "b", "x", "status")[place]
    one = given[place]
    given[place] = one.tolist()
    with pytest.raises(TypeError, match=f"^{name} is a list, which is no array$"):
        function(*given)
    one.flags.writeable = False
    given[place] = one
    if name in ("x", "status"):
        with pytest.raises(TypeError, match=f"^{name} is read-only; a writable array is needed$"):
            function(*given)


def test_what_is_no_array_is_called_so():
    one = numba.njit(lambda a: nopython.solve(a, 1.0))
    with pytest.raises(TypingError, match="b is float64, which is no array"):
        one(np.ones((1, 2, 2)))


@pytest.mark.slow
def test_in_prange():
    a, b = batch(60, 11)
    a, b = a.reshape(6, 10, 11, 11), b.reshape(6, 10, 11)
    a[3, 4] = 0
    x, status = np.empty_like(b), np.empty(b.shape[:2], np.int8)
    in_prange(a, b, x, status)
    assert same(x, dasksolve.solve(a, b, on_singular="nan"))
    assert np.argwhere(status).tolist() == [[3, 4]]


@pytest.mark.slow
def test_threads_that_ask_for_the_same_kernel_at_once():
    a, b = batch(8, 3)
    without_the_gil = numba.njit(nogil=True)(numpys.py_func)
    without_the_gil(a[:0], b[:0])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: without_the_gil(a, b), range(8)))
    assert all(same(x, dasksolve.solve(a, b)) for x in found)


@pytest.mark.parametrize("dtype", "fdFD")
def test_a_slot_of_the_table_has_one_kernel(dtype, monkeypatch):
    monkeypatch.setattr(making, "compiled", lambda *which: which)
    rng = np.random.default_rng(0)
    lanes, seen = width(np.dtype(dtype)), {}
    for n in (1, 2, 5, 12, 16, 17, 40, 100, 150, 255, 256, 300, 2000):
        for systems in (1, 2, 3, 7, 9, 17, 33, 1000, *rng.integers(1, 200, 10)):
            for k in (1, 2, 3, 16, 50, 200, n // 2, n, 2 * n):
                if k:
                    place = calls.slot(n, k, int(systems), lanes)
                    which = "gen", n, k, int(systems), np.dtype(dtype)
                    kernel = kernels.pick.__wrapped__(*which)  # which are not to be remembered
                    assert seen.setdefault(place, kernel) == kernel


CACHED = """
import numba, numpy as np

@numba.njit(cache=True, parallel={parallel})
def solved(a, b):
    x = np.empty_like(b)
    for i in numba.prange(len(a)):
        x[i] = np.linalg.solve(a[i], b[i])
    return x
"""
USER = """
{first}
import numpy as np, cached
a = np.stack([np.eye(7) * (i + 1) for i in range(6)])
x = cached.solved(a.reshape(2, 3, 7, 7), np.ones((2, 3, 7)))
print(x[1, :, 0].tolist(), sum(cached.solved.stats.cache_hits.values()))
"""


def python(code, folder, **environment):
    """Run code in a process of its own; what it prints."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    run = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.slow
def test_cached_on_disk_for_a_process_that_has_not_even_imported_dasksolve(tmp_path, parallel):
    (tmp_path / "cached.py").write_text(CACHED.format(parallel=parallel))
    root = str(Path(dasksolve.__file__).parent.parent)
    for first, hits in (("import dasksolve", 0), ("", 1)):
        printed = python(USER.format(first=first), tmp_path, PYTHONPATH=root)
        assert printed == f"{[1 / 4, 1 / 5, 1 / 6]} {hits}\n"


def test_code_cached_for_other_kernels_calls_none(monkeypatch):
    a, b = batch(3, 23)  # an order whose slot is still empty
    numpys(a[:0], b[:0])
    reasons = []
    monkeypatch.setattr(calls, "INTERFACE", -1)
    monkeypatch.setattr(sys, "unraisablehook", lambda reason: reasons.append(reason.exc_value))
    with pytest.raises(RuntimeError, match="the reason was printed"):
        numpys(a, b)
    assert "another version of dasksolve" in str(reasons[0])
    x, status = np.empty_like(b), np.empty(3, np.int8)
    into(a, b, x, status)
    assert set(status) == {Status.PENDING}


APART = """
import numpy as np
from dasksolve.kernels import calls, compiling_apart, pick
with compiling_apart(True):
    for n in (1, 2):
        pick("gen", n, 1, 1, np.dtype("d"))
print(*(calls.address(calls.INTERFACE, ord("d"), n, 1, 1) for n in (1, 2)))
"""


@pytest.mark.slow
def test_kernels_compiled_apart_are_told_apart_though_they_have_one_name(tmp_path):
    root = str(Path(dasksolve.__file__).parent.parent)
    first, second = python(APART, tmp_path, PYTHONPATH=root, NUMBA_CACHE_DIR=str(tmp_path)).split()
    assert first != second


NO_SCIPY = """
import importlib.util
assert importlib.util.find_spec("scipy") is None
import numba, numpy as np, dasksolve

@numba.njit
def solved(a, b):
    return np.linalg.solve(a, b)

x = solved(np.full((1, 2, 2), 1.0) + np.eye(2), np.ones((1, 2)))
np.testing.assert_allclose(x, [[1 / 3, 1 / 3]], rtol=1e-15)
"""


@pytest.mark.slow
def test_without_scipy(tmp_path):
    """In an environment that has all that this one has, but for SciPy."""
    for folder in {Path(m.__file__).parent.parent for m in (np, numba, dasksolve)}:
        for entry in folder.iterdir():
            link = tmp_path / entry.name
            if (
                not entry.name.startswith(("scipy", "__editable__", "_dasksolve"))
                and not link.exists()
            ):
                link.symlink_to(entry)
    command = [sys.executable, "-S", "-c", NO_SCIPY]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def overdetermined(*b_shape, dtype=np.float64):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 7, 3)), rng.standard_normal(b_shape)
    a[2, :, 1], a[3, 0, 0], b[..., 1] = a[2, :, 0], np.inf, b[..., 1]
    a[4, 5, 2] = np.nan
    return a.astype(dtype), b.astype(dtype)


@pytest.mark.parametrize("layout", ["C", pytest.param("F", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("b_shape", "function"),
    [
        *(  # compiled for each number of dimensions
            pytest.param(shape, fitted, id=f"{shape}-compiled", marks=pytest.mark.slow)
            for shape in ((7,), (9, 7), (9, 7, 2))
        ),
        *(
            pytest.param(shape, nopython.lstsq_into, id=f"{shape}-Python")
            for shape in ((7,), (9, 7), (9, 7, 2))
        ),
    ],
)
def test_least_squares_have_the_bits_of_lstsq(b_shape, layout, function):
    a, b = overdetermined(*b_shape)
    wanted = dasksolve.lstsq_ex(a, b)
    x, status = np.empty_like(wanted.x), np.empty(9, np.int8)
    function(np.asarray(a, order=layout), np.asarray(b, order=layout), x, status)
    np.testing.assert_array_equal(x, wanted.x)
    np.testing.assert_array_equal(status, wanted.status)
    assert status.tolist() == [0, 0, Status.RANK_DEFICIENT, Status.NONFINITE, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(fitted, id="compiled", marks=pytest.mark.slow),
        pytest.param(nopython.lstsq_into, id="Python"),
    ],
)
@pytest.mark.parametrize(
    "shapes", [((9, 7, 3), (9, 6)), ((9, 2, 3), (9, 2)), ((9, 7, 4), (9, 7))], ids=str
)
def test_least_squares_that_do_not_fit_stay_pending(shapes, function):
    x, status = np.zeros((9, 3)), np.zeros(9, np.int8)
    function(np.ones(shapes[0]), np.ones(shapes[1]), x, status)
    assert np.isnan(x).all()
    assert set(status) == {Status.PENDING}
