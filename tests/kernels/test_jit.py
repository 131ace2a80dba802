"""The disk cache of compiled kernels: found again, never stale, never the reason to fail."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import dasksolve

PROGRAM = """
    import time
    import numpy as np
    from dasksolve.kernels import pick

    start = time.perf_counter()
    kernel = pick("gen", 3, 1, 1, np.dtype(float))
    seconds = time.perf_counter() - start
    a, x, status = np.eye(3)[None] * 2, np.empty((1, 3, 1)), np.empty(1, np.int8)
    kernel(a, np.ones((1, 3, 1)), x, status)
    stats = kernel.stats
    print(int(x[0, 0, 0] == 0.5), sum(stats.cache_hits.values()), seconds)
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package that may be changed."""
    source = Path(dasksolve.__file__).parent
    target = tmp_path / "dasksolve"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def run(package, *, before="", **environment):
    """Solve one system in a new process: (right, cache hits)."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(before) + textwrap.dedent(PROGRAM)],
        cwd=package.parent,
        env={**os.environ, "PYTHONPATH": str(package.parent), **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    right, hits, _ = result.stdout.split()
    return bool(int(right)), int(hits)


def test_a_later_process_loads_the_kernel(package):
    assert run(package) == (True, 0)
    assert run(package) == (True, 1)


APART = """
    from dasksolve.kernels.apart import _wanted
    _wanted.set(True)
"""


@pytest.mark.slow
def test_a_child_compiles_what_is_then_loaded(package):
    assert run(package, before=APART) == (True, 1)
    assert run(package, before=APART + "    import subprocess; subprocess.run = None") == (True, 1)


@pytest.mark.slow
def test_a_child_that_fails_is_no_reason_to_fail(package):
    assert run(package, before=APART + "    import sys; sys.executable = None") == (True, 0)


@pytest.mark.slow
def test_an_index_that_a_crash_cut_short_is_no_reason_to_fail(package):
    run(package)
    for index in package.rglob("*.nbi"):
        index.write_bytes(b"")
    assert [run(package) for _ in range(3)] == [(True, 0), (True, 0), (True, 1)]


@pytest.mark.slow
def test_a_change_to_the_lanes_alone_recompiles(package):
    run(package)
    with (package / "kernels" / "lanes.py").open("a") as lanes:
        lanes.write("\n# changed\n")
    assert run(package) == (True, 0)
    assert run(package) == (True, 1)


@pytest.mark.slow
def test_no_place_for_a_cache(package):
    # A file where numba would make its directories: fails for the superuser too.
    (package / "kernels" / "__pycache__").write_text("")
    blocked = package.parent / "file"
    blocked.write_text("")
    nowhere = {"HOME": str(blocked), "XDG_CACHE_HOME": str(blocked)}
    assert run(package, **nowhere) == (True, 0)


@pytest.mark.slow
def test_a_full_disk(package):
    # Every file that grows fails with EFBIG, as on a full disk with ENOSPC.
    before = """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    """
    assert run(package, before=before) == (True, 0)
    assert run(package)[0]
