"""What is solved, what it is solved in, and what is refused."""

import re

import dask.array as da
import numpy as np
import pytest

import dasksolve
from dasksolve.batch.problem import DTYPES, describe
from dasksolve.errors import flat_indices

F8 = np.dtype(np.float64)


def shapes(a_shape, b_shape):
    return describe(a_shape, F8, b_shape, F8)


@pytest.mark.parametrize(
    ("a_shape", "b_shape", "x_shape"),
    [
        pytest.param((3, 3), (3,), (3,), id="one system"),
        pytest.param((3, 3), (3, 2), (3, 2), id="one system, K columns"),
        pytest.param((5, 3, 3), (5, 3), (5, 3), id="a stack of vectors"),
        pytest.param((5, 3, 3), (5, 3, 2), (5, 3, 2), id="a stack of matrices"),
        pytest.param((5, 3, 3), (3,), (5, 3), id="one vector for every system"),
        pytest.param((7, 5, 3, 3), (3,), (7, 5, 3), id="one vector for every system of two axes"),
        pytest.param((3, 3, 3), (3, 3), (3, 3), id="vectors, though M == N"),
        pytest.param((3, 3), (5, 3, 2), (5, 3, 2), id="one matrix for every b"),
        pytest.param((3, 3), (3, 3), (3, 3), id="K == N"),
        pytest.param((7, 5, 3, 3), (7, 5, 3), (7, 5, 3), id="two batch axes"),
        pytest.param((7, 1, 3, 3), (1, 5, 3), (7, 5, 3), id="both broadcast"),
        pytest.param((5, 3, 3), (7, 1, 3, 2), (7, 5, 3, 2), id="b has more batch axes"),
        pytest.param((1, 3, 3), (5, 3), (5, 3), id="size one"),
        pytest.param((1, 3, 3), (0, 3), (0, 3), id="size one against none"),
        pytest.param((0, 3, 3), (3,), (0, 3), id="no systems"),
        pytest.param((5, 0, 0), (5, 0), (5, 0), id="N is zero"),
        pytest.param((5, 3, 3), (5, 3, 0), (5, 3, 0), id="K is zero"),
    ],
)
def test_b_is_read_by_its_ndim_alone(a_shape, b_shape, x_shape):
    assert shapes(a_shape, b_shape).x_shape == x_shape


@pytest.mark.parametrize(
    ("a_shape", "b_shape", "error", "text"),
    [
        pytest.param(
            (5, 3, 4),
            (5, 3),
            np.linalg.LinAlgError,
            r"square.*a has shape \(5, 3, 4\), b has shape \(5, 3\)",
            id="not square",
        ),
        pytest.param((3,), (3,), np.linalg.LinAlgError, r"square.*\(3,\)", id="a is a vector"),
        pytest.param((), (3,), np.linalg.LinAlgError, r"square.*\(\)", id="a is a number"),
        pytest.param(
            (5, 3, 3),
            (5, 4),
            ValueError,
            r"vectors \(\.\.\., N\), has N = 4 where a has 3: .*\(5, 3, 3\).*\(5, 4\)",
            id="vectors of another length",
        ),
        pytest.param(
            (5, 3, 3),
            (5, 2, 3),
            ValueError,
            r"matrices \(\.\.\., N, K\), has N = 2 where a has 3: .*\(5, 3, 3\).*\(5, 2, 3\)",
            id="matrices of another length",
        ),
        pytest.param(
            (5, 3, 3),
            (4, 3),
            ValueError,
            r"\(5,\) of a and \(4,\) of b do not broadcast: .*\(5, 3, 3\).*\(4, 3\)",
            id="another batch",
        ),
        pytest.param(
            (5, 3, 3), (0, 3), ValueError, r"\(5,\) of a and \(0,\) of b", id="an empty batch"
        ),
        pytest.param(
            (5, 3, 3), (), ValueError, r"\(5, 3, 3\), b has shape \(\)", id="b is a number"
        ),
        pytest.param(
            (7, 5, 3, 3),
            (5, 3),
            ValueError,
            r"one axis less than a.*\(7, 5, 3, 3\), b has shape \(5, 3\)",
            id="neither vectors nor matrices",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_both_in_the_text(a_shape, b_shape, error, text):
    with pytest.raises(error, match=text):
        shapes(a_shape, b_shape)


@pytest.mark.parametrize(
    ("a", "b", "x"),
    [
        *[pytest.param(str(t), str(t), str(t), id=str(t)) for t in DTYPES],
        pytest.param("f4", "f8", "f8", id="float32 and float64"),
        pytest.param("f4", "c8", "c8", id="float32 and complex64"),
        pytest.param("f8", "c8", "c16", id="float64 and complex64"),
        pytest.param("c8", "f8", "c16", id="complex64 and float64"),
        pytest.param("i8", "i8", "f8", id="integers"),
        pytest.param("u8", "i8", "f8", id="integers of both signs"),
        pytest.param("i1", "?", "f8", id="small integers and bool"),
        pytest.param("?", "?", "f8", id="bool"),
        pytest.param("i1", "f4", "f4", id="int8 and float32"),
        pytest.param("f4", "i8", "f8", id="float32 and int64"),
        pytest.param("?", "c8", "c8", id="bool and complex64"),
        pytest.param(">f8", "<f8", "=f8", id="both byte orders"),
        pytest.param(">c8", ">f4", "=c8", id="big-endian"),
        pytest.param(">i4", "f4", "f8", id="big-endian integers"),
    ],
)
def test_dtype_of_the_solution(a, b, x):
    problem = describe((3, 3), np.dtype(a), (3,), np.dtype(b))
    assert (problem.dtype, problem.dtype.isnative) == (np.dtype(x), True)


@pytest.mark.parametrize("place", ["a", "b"])
@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("f2", "float16"),
        (np.longdouble, np.dtype(np.longdouble).name),
        (np.clongdouble, np.dtype(np.clongdouble).name),
        ("O", "object"),
        ("U3", "<U3"),
        ("S3", r"\|S3"),
        (np.dtypes.StringDType(), r"StringDType\(\)"),
        ("M8[s]", r"datetime64\[s\]"),
        ("m8[s]", r"timedelta64\[s\]"),
        ("V4", r"\|V4"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_other_dtypes_are_refused_by_name(place, dtype, name):
    dtypes = {"a": F8, "b": F8} | {place: np.dtype(dtype)}
    with pytest.raises(TypeError, match=rf"^{place} has dtype {name};.*convert it with astype\(\)"):
        describe((3, 3), dtypes["a"], (3,), dtypes["b"])


def test_what_is_no_array_is_refused_by_its_dtype():
    with pytest.raises(TypeError, match=r"^a has dtype object"):  # a scipy.sparse matrix, say
        describe((), np.dtype(object), (3,), F8)


@pytest.mark.parametrize(
    ("a_shape", "b_shape", "advice"),
    [
        ((3, 3), (500, 3), r"give a\[None\], of shape \(1, 3, 3\)"),
        ((4, 3, 3), (4, 5, 3), r"give a\[\.\.\., None, :, :\], of shape \(4, 1, 3, 3\)"),
        ((5, 3, 3), (3, 3), r"give b\[None\], of shape \(1, 3, 3\)"),
        ((5, 3, 3), (3, 2), r"give b\[None\], of shape \(1, 3, 2\)"),
        ((4, 5, 3, 3), (4, 3, 2), r"give b\[\.\.\., None, :, :\], of shape \(4, 1, 3, 2\)"),
        ((5, 3, 3), (3, 5), r"b\.T, of shape \(5, 3\), is a vector .*; .* give b\[None\]"),
        ((4, 5, 3, 3), (4, 3, 5), r"b\.swapaxes\(-1, -2\), of shape \(4, 5, 3\), is a vector"),
    ],
)
def test_advice_where_an_axis_is_missing_or_two_are_exchanged_works(a_shape, b_shape, advice):
    a, b = np.broadcast_to(2 * np.eye(3), a_shape), np.ones(b_shape)
    with pytest.raises(ValueError, match=advice) as error:
        dasksolve.solve(a, b)
    given = re.findall(r"(?<= )(a\[.+?\]|b[.\[].+?), of shape (\(.+?\))", str(error.value))
    assert given
    for words, shape in given:
        array = eval(words)
        assert str(array.shape) == shape
        x = dasksolve.solve(array, b) if words[0] == "a" else dasksolve.solve(a, array)
        assert (x == 0.5).all()


def test_no_advice_is_given_that_does_not_work():
    with pytest.raises(ValueError, match=r"b has shape \(6, 5, 3\)$"):
        dasksolve.solve(np.ones((4, 3, 3)), np.ones((6, 5, 3)))


@pytest.mark.parametrize("kind", ["NumPy", "dask"])
@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("assume_a", "spd", "assume_a='spd' is not one of 'gen', 'pos'"),
        ("on_singular", "warn", "on_singular='warn' is not one of 'raise', 'nan', 'lstsq'"),
    ],
)
def test_unknown_words_are_refused_before_anything_is_solved(kind, option, value, text):
    a = np.eye(3) if kind == "NumPy" else da.from_array(np.eye(3))
    with pytest.raises(ValueError, match=text):
        dasksolve.solve(a, np.ones(3), **{option: value})


@pytest.mark.parametrize(
    ("block", "origin", "batch", "inside", "whole"),
    [
        pytest.param((), (), (), [0], [0], id="no batch"),
        pytest.param((4,), (8,), (20,), [0, 3], [8, 11], id="one axis"),
        pytest.param((2, 3), (4, 6), (10, 10), [0, 2, 3, 5], [46, 48, 56, 58], id="two axes"),
        pytest.param((2, 1, 2), (0, 2, 1), (2, 3, 4), [0, 3], [9, 22], id="three axes"),
    ],
)
def test_indices_into_a_block_are_counted_over_the_batch(block, origin, batch, inside, whole):
    found = flat_indices(np.array(inside), block, origin, batch)
    assert (found.tolist(), found.dtype) == (whole, np.dtype(np.int64))


@pytest.mark.parametrize(
    ("systems", "n", "together"), [(3, 2, 3), (10**6, 32, 256), (10**6, 512, 1), (5, 0, 5)]
)
def test_systems_that_a_kernel_is_given_at_once(systems, n, together):
    # Kernels are chosen by it: one that fills its lanes with systems wastes them on a single one.
    assert describe((systems, n, n), F8, (systems, n), F8).together == together
