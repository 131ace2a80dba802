"""The kernels of regressions: the same bits whatever the width of the machine's vectors."""

import os
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import hashlib
    import numpy as np
    import dasksolve

    rng, digest = np.random.default_rng(0), hashlib.sha256()
    for dtype in (np.float64, np.float32):
        for n in (2, 7):
            design, y = rng.standard_normal((50, n)), rng.standard_normal((50, 45)).astype(dtype)
            y[rng.random(y.shape) < 0.3] = np.nan
            y[n + 1 :, 3] = np.nan  # for the careful way
            weights = rng.random(y.shape)
            for axis in (0, 1):
                given = (y, weights) if axis == 0 else (y.T.copy(), weights.T.copy())
                for values in dasksolve.regress(
                    given[0], design, axis=axis, weights=given[1], covariance=True
                ):
                    digest.update(values.tobytes())
    print(digest.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("vector_bytes", ["16", "32"])
def test_vectors_of_any_width_give_the_same_bits(vector_bytes):
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    narrow = {**os.environ, "DASKSOLVE_VECTOR_BYTES": vector_bytes}
    found = [subprocess.check_output(program, env=env) for env in (os.environ, narrow)]
    assert found[0] == found[1]


CACHED = """
    import numpy as np
    from dasksolve.kernels import fits

    dtype = np.dtype("float64")
    made = [fits.regressing(1, dtype, dtype), fits.least_squares(dtype), *fits.adding(1, dtype)[2:]]
    print([sum(kernel.stats.cache_hits.values()) for kernel in made])
"""


@pytest.mark.slow
def test_another_process_finds_all_of_them_cached(tmp_path):
    """What is in a closure must not tell them apart: parts are others in each process."""
    program = [sys.executable, "-c", textwrap.dedent(CACHED)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    found = [subprocess.check_output(program, env=environment, text=True) for _ in range(2)]
    assert [text.strip() for text in found] == ["[0, 0, 0, 0, 0]", "[1, 1, 1, 1, 1]"]
