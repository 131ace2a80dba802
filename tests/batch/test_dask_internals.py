"""What the batch uses of dask besides its public names: all of it is there, and means the same."""

import dask
import dask.array as da
import numpy as np

from dasksolve.batch import internals


def test_dask_still_says_what_its_blocks_are() -> None:
    lazy = da.ones(4, chunks=2)
    assert hasattr(lazy, "_meta"), f"dask {dask.__version__}: mend batch/internals.py"
    assert internals.kind(lazy) is np.ndarray
    assert internals.kind(da.ma.masked_equal(lazy, 1)) is np.ma.MaskedArray


def test_dask_still_tells_a_block_where_it_begins() -> None:
    origins = internals.Origins(((2, 3), (4,)))
    places = da.blockwise(
        lambda origin: np.full((1, 1), sum(origin)),
        "ij",
        origins,
        "ij",
        dtype=int,
        meta=np.empty((0, 0), int),
        adjust_chunks={"i": (1, 1), "j": (1,)},
        align_arrays=False,
    )
    assert places.compute(scheduler="sync").tolist() == [[0], [2]]


def test_dask_still_tries_a_function_that_has_no_dtype() -> None:
    tried = []

    def function(block: np.ndarray) -> np.ndarray:
        tried.append(internals.infers_dtype())
        return block

    da.ones(4, chunks=2).map_blocks(function).compute(scheduler="sync")
    assert True in tried, f"dask {dask.__version__}: mend batch/internals.py"
    assert tried[-2:] == [False, False]
