"""The disk cache of compiled kernels: found again, never stale, never the reason to fail."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numba
import numpy as np
import pytest

import dasksolve
from dasksolve.kernels.compiling import jit

PROGRAM = """
    import sys
    import numpy as np
    from dasksolve.kernels import pick

    kernel = pick("gen", 3, 1, 1, np.dtype(float))
    a, x, status = np.eye(3)[None] * 2, np.empty((1, 3, 1)), np.empty(1, np.int8)
    kernel(a, np.ones((1, 3, 1)), x, status)
    stats = kernel.stats
    compiler = "numba.np.arrayobj" in sys.modules
    print(int(x[0, 0, 0] == 0.5), sum(stats.cache_hits.values()), int(compiler))
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package that may be changed."""
    source = Path(dasksolve.__file__).parent
    target = tmp_path / "dasksolve"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


# What numba can do is still there for a user's own functions.
OWN = """
    import numba, dasksolve

    @numba.njit
    def doubled(a, b):
        return [str(int(value)) for value in 2 * dasksolve.nopython.solve(a, b)[0]]

    assert doubled(np.eye(3)[None], np.ones((1, 3))) == ["2"] * 3
"""


def run(package, *, before="", after="", **environment):
    """Solve one system in a new process: (right, cache hits)."""
    result = subprocess.run(
        [sys.executable, "-c", "".join(map(textwrap.dedent, (before, PROGRAM, after)))],
        cwd=package.parent,
        env={**os.environ, "PYTHONPATH": str(package.parent), **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    right, hits, compiler = map(int, result.stdout.split())
    assert compiler != hits, "to load a kernel, numba needs 0.2 s less than to be ready to compile"
    return bool(right), hits


def test_a_later_process_loads_the_kernel_and_not_the_compiler(package):
    assert run(package) == (True, 0)
    assert run(package) == (True, 1)


KEYS = """
    import pickle
    import numpy as np
    from dasksolve import kernels
    from dasksolve.kernels import making

    def show(dispatcher, signature, *door):
        pickle.dumps(door)  # for a child that compiles
        codegen = dispatcher.targetctx.codegen()
        print(dispatcher.py_func.__module__, *dispatcher._cache._index_key(signature, codegen)[2:])
        return dispatcher

    making.ready = show
    d = np.dtype(float)
    for structure in kernels.STRUCTURES:
        for n in (3, 12, 32, 200):
            for lower in (False, True):
                kernels.pick(structure, n, 1, 100, d, False, lower)
    for n in (3, 12, 32):
        for k in (1, 2, 5, 8):
            for transposed in (False, True):
                kernels.substituting(n, k, 100, d, transposed)
    for n in (3, 32, 200):
        kernels.factoring(n, d)
    for dtype in "dD":
        kernels.determining(np.dtype(dtype))
    kernels.tridiagonal_bands(d)
    kernels.residuals(d)
    kernels.regressing(3, d, d)
    kernels.least_squares(d)
"""


@pytest.mark.slow
def test_every_kernel_is_found_again_by_a_later_process():
    # What numba calls a kernel in its index holds all that the kernel closes over.
    program = [sys.executable, "-c", textwrap.dedent(KEYS)]
    one, other = (subprocess.run(program, check=True, capture_output=True).stdout for _ in "ab")
    assert one.count(b"\n") > 30
    assert one == other
    named = [line for line in one.splitlines() if b".regimes" in line]
    assert len(named) > 20
    assert len(named) == len(set(named)), "two kernels have one name"


@pytest.mark.slow
def test_numba_compiles_what_it_likes_after_a_kernel_was_loaded(package):
    run(package)
    assert run(package, after=OWN) == (True, 1)


APART = """
    from dasksolve.kernels.compiling.child import _wanted
    _wanted.set(True)
"""
TOLD = """
    import logging
    told = []

    class Keep(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())

    logging.getLogger("dasksolve").addHandler(Keep())
"""


@pytest.mark.slow
def test_a_child_compiles_what_is_then_loaded(package):
    assert run(package, before=APART) == (True, 1)
    assert run(package, before=APART + "    import subprocess; subprocess.run = None") == (True, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("executable", "reason"),
    [
        ("None", "could not begin: "),
        ("'no such file'", "could not begin: "),
        (repr(shutil.which("false")), "ended with 1"),
    ],
)
def test_a_child_that_fails_is_no_reason_to_fail(package, executable, reason):
    before = APART + TOLD + f"    import sys; sys.executable = {executable}\n"
    after = f"""
        [line] = told
        assert "100 MiB more than the memory limit" in line and {reason!r} in line, told
    """
    assert run(package, before=before, after=after) == (True, 0)


@pytest.mark.slow
def test_an_index_that_a_crash_cut_short_is_no_reason_to_fail(package):
    run(package)
    for index in package.rglob("*.nbi"):
        index.write_bytes(b"")
    assert [run(package) for _ in range(2)] == [(True, 0), (True, 1)]


@pytest.mark.slow
def test_machine_code_with_a_flipped_bit_is_compiled_anew(package):
    run(package)
    [code] = package.rglob("*.nbc")
    whole = bytearray(code.read_bytes())
    whole[whole.find(b"\x7fELF") + len(whole) // 2] ^= 1
    code.write_bytes(whole)
    assert [run(package) for _ in range(2)] == [(True, 0), (True, 1)]


def test_no_flipped_bit_of_a_cache_goes_unseen(tmp_path):
    cache = jit._Sealed(str(tmp_path), "kernel", source_stamp=1)
    cache.save("key", {"code": b"machine code" * 9})
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    for path, whole in files.items():
        for place in range(0, 8 * len(whole), 7):
            bad = bytearray(whole)
            bad[place // 8] ^= 1 << place % 8
            path.write_bytes(bad)
            if path.suffix == ".nbi":
                assert cache.load("key") is None
            else:
                with pytest.raises(ValueError, match="is damaged"):
                    cache.load("key")
        path.write_bytes(whole)
    assert cache.load("key") == {"code": b"machine code" * 9}
    other = jit._Sealed(str(tmp_path), "kernel", source_stamp=2)
    assert other.load("key") is None


def test_processes_that_save_at_once_do_not_find_what_the_other_compiled(tmp_path):
    one, other = (jit._Sealed(str(tmp_path), "kernel", source_stamp=1) for _ in "ab")
    one.save("one", 1)
    (index,) = tmp_path.glob("*.nbi")
    written = index.read_bytes()
    index.unlink()  # the other looked before it was there
    other.save("other", 2)
    index.write_bytes(written)
    assert (one.load("one"), other.load("other")) == (None, None)
    one.save("one", 1)
    other.save("other", 2)
    assert (one.load("one"), other.load("other")) == (1, 2)


@pytest.mark.slow
def test_a_change_to_the_lanes_alone_recompiles(package):
    run(package)
    with (package / "kernels" / "language" / "lanes.py").open("r+") as lanes:
        lanes.seek(0, os.SEEK_END)
        lanes.write("\n# changed\n")
    assert run(package) == (True, 0)
    assert run(package) == (True, 1)


@pytest.mark.slow
def test_vectors_of_another_width_recompile(package):
    widths = "16", "32", "16"
    found = [run(package, DASKSOLVE_VECTOR_BYTES=width) for width in widths]
    assert found == [(True, 0), (True, 0), (True, 1)]


@pytest.mark.slow
def test_no_place_for_a_cache(package):
    # A file where numba would make its directories: fails for the superuser too.
    for folder in [package / "kernels", *(package / "kernels").glob("*/")]:
        (folder / "__pycache__").write_text("")
    blocked = package.parent / "file"
    blocked.write_text("")
    nowhere = {"HOME": str(blocked), "XDG_CACHE_HOME": str(blocked)}
    after = """
        pick("pos", 3, 1, 1, np.dtype(float))
        assert len(told) == 1 and "NUMBA_CACHE_DIR" in told[0], told
    """
    assert run(package, before=TOLD, after=after, **nowhere) == (True, 0)
    for words in (["solve", "a", "b", "out"], ["report", "out"]):
        ended = subprocess.run(
            [sys.executable, "-m", "dasksolve", *words],
            cwd=package.parent,
            env={**os.environ, "PYTHONPATH": str(package.parent), **nowhere},
            capture_output=True,
            text=True,
        )
        told = ["dasksolve: warning: numba finds no folder"] if words[0] == "solve" else []
        *found, error = ended.stderr.splitlines()
        assert [line[:41] for line in found] == told
        assert re.match("dasksolve: .*there is no ", error)


@pytest.mark.slow
def test_a_full_disk(package):
    # Every file that grows fails with EFBIG, as on a full disk with ENOSPC.
    before = """
        import resource, signal, sys
        sys.dont_write_bytecode = True  # Python itself would cut its modules short
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    """
    assert run(package, before=before) == (True, 0)
    assert run(package)[0]


def python(program, **environment):
    """Run a program in a new process."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_kernels_are_compiled_where_functions_are_left_to_python():
    program = """
        import numba, numpy as np, dasksolve

        @numba.njit
        def solved(a, b):
            return dasksolve.nopython.solve(a, b)

        x, status = np.empty((1, 2)), np.empty(1, np.int8)
        dasksolve.nopython.solve_into(2 * np.eye(2)[None], np.ones((1, 2)), x, status)
        print(type(solved).__name__, solved(2 * np.eye(2)[None], np.ones((1, 2))), x, status)
    """
    result = python(program, NUMBA_DISABLE_JIT="1")
    assert (result.stdout, result.stderr) == ("function [[0.5 0.5]] [[0.5 0.5]] [0]\n", "")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_forks_when_nothing_is_being_compiled():
    program = """
        import os, signal, threading, warnings
        import numpy as np, dasksolve
        from numba.core.compiler_lock import global_compiler_lock

        warnings.simplefilter("ignore")  # forked while there are threads
        compiles, forked = threading.Event(), threading.Event()

        def compile():
            with global_compiler_lock:
                compiles.set()
                forked.wait(1)

        thread = threading.Thread(target=compile)
        thread.start()
        compiles.wait()
        child = os.fork()
        forked.set()
        if child == 0:
            signal.alarm(60)
            dasksolve.solve(np.eye(2), np.ones(2))
            os._exit(0)
        thread.join()
        print(os.waitpid(child, 0)[1])
    """
    result = python(program)
    assert (result.stdout, result.stderr) == ("0\n", "")


@pytest.mark.parametrize("compiled", [jit.jit, jit.part, jit.holder])
def test_a_function_that_calls_a_kernel_lends_it_no_options(compiled, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def is_nan(value):
        return value != value

    kernel = compiled(is_nan)
    calls = numba.njit(fastmath=True, forceinline=True)(lambda value: kernel(value))
    assert calls(np.nan)


BOTH = """
import sys, numpy as np, dasksolve
for word in sys.argv[1:]:
    read = np.eye(5, dtype=bool) if word == "diagonal" else np.tri(5, dtype=bool).T
    a = np.where(read, 2 * np.eye(5), np.nan) * np.ones((40, 1, 1), np.complex64)
    a[3] = np.where(read, 0, np.nan)
    b = np.ones((40, 5), np.complex64)
    x = dasksolve.solve(a.astype(np.complex64), b, assume_a=word, on_singular="lstsq")
    assert np.isfinite(x).all(), word
"""


@pytest.mark.slow
def test_kernels_of_several_processes_are_used_by_one(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for words in (["diagonal"], ["upper triangular"], ["upper triangular", "diagonal"]):
        subprocess.run([sys.executable, "-c", BOTH, *words], check=True, env=environment)
