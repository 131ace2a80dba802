"""What the errors say, and what survives the way between processes."""

import copy
import pickle

import numpy as np
import pytest

from dasksolve import BlockErrors, PerformanceWarning, Report, SingularSystemError, Status
from dasksolve.errors import BlockFailure, counted, retold


def singular(count, batch_shape=(40,)):
    return SingularSystemError(np.arange(count) * 2, batch_shape, np.full(count, 1, np.int8))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        pytest.param(1, "1 system of a batch of shape (40,) is singular, at flat index 0;", id="1"),
        pytest.param(
            2, "2 systems of a batch of shape (40,) are singular, at flat index 0, 2;", id="2"
        ),
        pytest.param(10, "are singular, at flat index 0, 2, 4, 6, 8, 10, 12, 14, 16, 18;", id="10"),
        pytest.param(11, "11 systems of", id="11: the count"),
        pytest.param(11, "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, …;", id="11: the first ten"),
        pytest.param(1, 'on_singular="nan" gives NaN', id="what to do: nan"),
        pytest.param(1, '"lstsq" their least-squares solution', id="what to do: lstsq"),
    ],
)
def test_singular_systems_are_counted_and_the_first_ten_named(count, text):
    assert text in str(singular(count))


@pytest.mark.parametrize(
    ("number", "things", "text"),
    [
        (0, "blocks", "0 blocks"),
        (1, "blocks", "1 block"),
        (2000, "blocks", "2,000 blocks"),
        (1, "series", "1 series"),
        (1, "right-hand sides", "1 right-hand side"),
    ],
)
def test_one_thing_has_no_plural(number: int, things: str, text: str) -> None:
    assert counted(number, things) == text


@pytest.mark.parametrize("base", [np.linalg.LinAlgError, ValueError])
def test_what_people_catch_already_catches_it(base):
    assert issubclass(SingularSystemError, base)


@pytest.mark.parametrize(
    "clone",
    [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_a_clone_of_the_error_is_whole(clone):
    few = singular(12, (4, 10))
    error = SingularSystemError(few.indices, few.batch_shape, few.status, "/somewhere/out")
    found = clone(error)
    assert type(found) is SingularSystemError
    assert str(found) == str(error)
    assert found.location == "/somewhere/out"
    assert found.indices.tolist() == error.indices.tolist()
    assert found.status.tolist() == error.status.tolist()
    assert found.batch_shape == (4, 10)


def test_the_error_of_a_block_is_counted_over_the_batch():
    error = singular(2, (2, 3)).within((10, 10), (4, 6))
    assert error.indices.tolist() == [46, 48]
    assert error.batch_shape == (10, 10)
    assert "batch of shape (10, 10) are singular, at flat index 46, 48;" in str(error)


def test_performance_warnings_are_shown_to_users():
    assert issubclass(PerformanceWarning, UserWarning)


def block_errors(count):
    report = Report(
        out="out.zarr",
        systems=100,
        batch_shape=(100,),
        counts={Status.OK: 60, Status.PENDING: 40},
        flagged=(),
        blocks=20,
        blocks_done=20 - count,
        blocks_resumed=0,
        chunks_missing=0,
        bytes_read=0,
        bytes_written=0,
        seconds=1.0,
        peak_memory=0,
        worst_rcond=0.5,
        worst_backward_error=1e-16,
    )
    failures = [BlockFailure(i, ((5 * i, 5 * i + 5),), "OSError: no") for i in range(count)]
    return BlockErrors(failures, report, "the others are written")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        pytest.param(2, "2 of 20 blocks failed; the others are written", id="the count"),
        pytest.param(2, "\n  block 1 [5:10]: OSError: no", id="each with its range and cause"),
        pytest.param(12, "\n  … and 2 more", id="ten at most"),
    ],
)
def test_failed_blocks_are_listed(count, text):
    assert text in str(block_errors(count))


def test_failed_blocks_survive_pickling():
    error = block_errors(12)
    found = pickle.loads(pickle.dumps(error))
    assert str(found) == str(error)
    assert (found.failures, found.report) == (error.failures, error.report)


def test_status_values_are_those_that_are_stored():
    assert {status.name: int(status) for status in Status} == {
        "PENDING": -1,
        "OK": 0,
        "SINGULAR": 1,
        "ILL_CONDITIONED": 2,
        "NONFINITE": 3,
        "NOT_POSITIVE_DEFINITE": 4,
        "RANK_DEFICIENT": 5,
        "TOO_FEW": 6,
    }


def test_the_error_says_what_is_wrong_with_a_system():
    status = np.array([Status.NOT_POSITIVE_DEFINITE], np.int8)
    assert "is not positive definite, at flat" in str(SingularSystemError([0], (1,), status))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(13, "no"), PermissionError),
        (ConnectionResetError("reset"), ConnectionResetError),
        (type("Ours", (FileNotFoundError,), {})("lost"), FileNotFoundError),
        (OSError(28, "full"), OSError),
        (RuntimeError("other"), OSError),
    ],
    ids=repr,
)
def test_an_error_of_the_system_is_told_in_other_words_and_stays_what_it_is(error, kind):
    told = retold(error, f"here: {error}")
    assert type(told) is kind
    assert str(told) == f"here: {error}"
