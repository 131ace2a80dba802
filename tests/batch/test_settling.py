"""What becomes of singular systems: named, NaN, or solved by least squares."""

import pickle

import numpy as np
import pytest
from families import DTYPES, same_bits, systems

import dasksolve
from dasksolve import Status


def singular(*batch, at=(), n=3):
    a, b = systems(n, *batch)
    for index in at:
        a[index][:, -1] = 0
    return a, b


@pytest.mark.parametrize(
    ("batch", "at", "indices"),
    [
        pytest.param((), [()], [0], id="a single system"),
        pytest.param((20,), [3, 17], [3, 17], id="one axis"),
        pytest.param((4, 5), [(0, 4), (3, 1)], [4, 16], id="two axes"),
        pytest.param((2, 3, 4), [(1, 0, 2), (1, 2, 3)], [14, 23], id="three axes"),
    ],
)
def test_singular_systems_are_named_by_flat_index(batch, at, indices):
    with pytest.raises(dasksolve.SingularSystemError, match="singular, at flat index") as error:
        dasksolve.solve(*singular(*batch, at=at))
    assert error.value.indices.tolist() == indices
    assert error.value.indices.dtype == np.int64
    assert error.value.batch_shape == batch
    assert error.value.status.tolist() == [Status.SINGULAR] * len(indices)


def test_indices_are_counted_over_the_broadcast_batch():
    a, _ = singular(4, 1, at=[(2, 0)])
    with pytest.raises(dasksolve.SingularSystemError, match=r"\(4, 3\) are singular") as error:
        dasksolve.solve(a, np.ones((4, 3, 3)))
    assert error.value.indices.tolist() == [6, 7, 8]


def test_indices_are_counted_over_every_piece_and_thread():
    a, b = singular(60_000, at=[0, 29_999, 59_999])
    with pytest.raises(dasksolve.SingularSystemError, match="3 systems") as error:
        dasksolve.solve(a, b, workers=2)
    assert error.value.indices.tolist() == [0, 29_999, 59_999]


def test_a_singular_matrix_is_an_error_though_there_is_nothing_to_solve():
    with pytest.raises(dasksolve.SingularSystemError, match="flat index 1;"):
        dasksolve.solve(singular(2, at=[1])[0], np.ones((2, 3, 0)))


@pytest.mark.parametrize("batch", [(), (20,), (4, 5)], ids=str)
@pytest.mark.parametrize("k", [None, 2])
def test_lstsq_gives_the_least_squares_solution_of_the_singular_systems_alone(batch, k):
    a, b = systems(3, *batch, k=k)
    expected = dasksolve.solve(a, b)
    at = tuple(length - 2 for length in batch)
    a[at][:, 1] = 0
    expected[at] = np.linalg.lstsq(a[at], b[at])[0]
    assert same_bits(dasksolve.solve(a, b, on_singular="lstsq"), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lstsq_keeps_the_dtype(dtype):
    a, b = np.ones((2, 3, 3), dtype.newbyteorder()), np.ones((2, 3), dtype)
    x = dasksolve.solve(a, b, on_singular="lstsq")
    assert x.dtype == dtype
    assert np.abs(x - 1 / 3).max() < 10 * np.finfo(dtype).eps


def test_lstsq_gives_nan_where_its_solution_overflows():
    a, b = systems(3, 3)
    a[1] = 1e-310
    x, status, rcond, _ = dasksolve.solve_ex(a, b, on_singular="lstsq")
    assert status.tolist() == [0, Status.SINGULAR, 0]
    assert np.isnan(x[1]).all()
    assert rcond[1] == 0


def test_the_error_survives_pickling():
    with pytest.raises(dasksolve.SingularSystemError, match="flat index 4, 16") as error:
        dasksolve.solve(*singular(4, 5, at=[(0, 4), (3, 1)]))
    copy = pickle.loads(pickle.dumps(error.value))
    assert str(copy) == str(error.value)
    assert copy.indices.tolist() == [4, 16]
    assert copy.batch_shape == (4, 5)


def test_complex_numbers_that_are_no_answer_are_nan_in_both_parts():
    a = np.array([[[1, 1], [1, 1.001]], [[1, 1], [1, 1]], [[np.nan, 1], [1, 1]]]) * (1 + 1j)
    found = dasksolve.solve(a, np.ones(2), on_singular="nan", rcond=0.5)
    assert same_bits(found, np.full((3, 2), complex(np.nan, np.nan)))
