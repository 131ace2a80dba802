"""What the kernels know of the processor that they are compiled for."""

import os
import platform
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from dasksolve.kernels.language.target import chosen_width, probed, target

on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86")

PROGRAM = """
    import warnings
    import numpy as np
    import dasksolve

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((20, 9, 9)), rng.standard_normal((20, 9, 2))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        s = dasksolve.solve_ex(a, b, refine=True)
        dasksolve.factor(a).solve(b)
    print(s.backward_error.max(), *(w.category.__name__ for w in warned))
"""


@on_x86
@pytest.mark.parametrize(
    ("name", "features", "expected"),
    [
        ("x86-64-v2", "", (16, False, True, False)),
        ("sandybridge", "", (32, False, True, False)),
        ("haswell", "", (32, True, True, False)),
        ("x86-64-v3", "", (32, True, True, False)),
        ("znver3", "", (32, True, True, False)),
        ("haswell", "-fma", (32, False, True, False)),
        ("x86-64", "+avx2,+fma", (32, True, True, False)),
        ("skylake-avx512", "", (64, True, False, False)),
        ("icelake-server", "", (64, True, False, False)),
        ("sapphirerapids", "", (64, True, False, True)),
    ],
)
def test_names_and_features_are_what_llvm_takes_them_for(
    name: str, features: str, expected: tuple[int, bool, bool, bool]
) -> None:
    assert probed(name, features) == expected


def test_the_host_is_what_is_probed_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = target()
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", _without_a_shortcut())
    assert target() == known


def _without_a_shortcut() -> object:
    from llvmlite import binding

    features = binding.get_host_cpu_features()

    class Features(type(features)):  # type: ignore[misc]
        def get(self, name: str, default: object = None) -> object:
            return None

    return lambda: Features(features)


@pytest.mark.parametrize(("word", "expected"), [(None, 32), ("16", 16), ("32", 32), ("64", 64)])
def test_the_width_of_vectors_can_be_chosen(word: str | None, expected: int) -> None:
    assert chosen_width(word, 32) == expected


@pytest.mark.parametrize("word", ["", "0", "8", "48", "128", "wide", "16.0"])
def test_a_width_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"VECTOR_BYTES='.*give 16, 32 or 64"):
        chosen_width(word, 32)


@pytest.mark.slow
@on_x86
@pytest.mark.parametrize(
    ("name", "vector_bytes", "warnings"),
    [
        ("x86-64-v2", "16", ["PerformanceWarning"]),  # no fma
        ("x86-64-v2", "32", ["PerformanceWarning"]),
        ("x86-64-v3", "32", []),
        ("x86-64-v3", "64", []),
    ],
)
def test_any_processor_solves_with_vectors_as_wide_as_its_own_and_wider(
    name: str, vector_bytes: str, warnings: list[str]
) -> None:
    wanted = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env={**os.environ, **wanted, "DASKSOLVE_VECTOR_BYTES": vector_bytes},
        capture_output=True,
        text=True,
        check=True,
    )
    error, *warned = finished.stdout.split()
    assert float(error) < 4 * np.finfo(float).eps
    assert warned == warnings


def assembly(folder: Path, kernel: str) -> str:
    """What a kernel of float64 becomes for AMD's processors before AVX-512."""
    program = f"""
        import numpy as np
        from dasksolve.kernels import fits
        from dasksolve.kernels.cholesky import single
        from dasksolve.kernels.lu import fixed, interleaved
        from dasksolve.kernels.making import compiled

        float64 = np.dtype(float)
        (text,) = {kernel}.inspect_asm().values()
        print(text)
    """
    amd = {"NUMBA_CPU_NAME": "znver3", "NUMBA_CPU_FEATURES": ""}
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        # The folder is empty: of a kernel that is loaded there is no text.
        env={**os.environ, **amd, "DASKSOLVE_VECTOR_BYTES": "32", "NUMBA_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout


@pytest.mark.slow
@on_x86
def test_rows_are_not_exchanged_by_masked_stores(tmp_path: Path) -> None:
    """AMD's processors before AVX-512 take 40 steps for one."""
    text = assembly(tmp_path, "compiled(fixed.kernel, 9, float64, False)")
    assert "vblendvpd" in text
    assert "vmaskmov" not in text


def inner_loops(text: str) -> list[list[str]]:
    """The loops that have none in them."""
    lines = text.splitlines()
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.match(r"\.L\w+:$", line)}
    jumps = ((i, re.match(r"\tj\w+\t(\.L\w+)$", line)) for i, line in enumerate(lines))
    loops = [lines[labels[jump[1]] : i] for i, jump in jumps if jump and labels[jump[1]] < i]
    return [loop for loop in loops if not any(line.startswith(".L") for line in loop[1:])]


def on_the_stack(loops: list[list[str]]) -> list[str]:
    """Where their vectors are stored or loaded there."""
    return [line for loop in loops for line in loop if "mm" in line and "(%rsp)" in line]


@pytest.mark.slow
@on_x86
@pytest.mark.parametrize(
    ("kernel", "least"),
    [
        ("compiled(interleaved.kernel, 0, float64, False)", 8),
        ("fits.regressing(6, float64, float64)", 12),
    ],
)
def test_sums_stay_in_few_registers(kernel: str, least: int, tmp_path: Path) -> None:
    loops = inner_loops(assembly(tmp_path, kernel))
    busy = [loop for loop in loops if sum("vfmadd" in line for line in loop) >= least]
    assert busy
    assert on_the_stack(busy) == []


@pytest.mark.slow
@on_x86
def test_sums_of_one_matrix_stay_in_few_registers(tmp_path: Path) -> None:
    loops = inner_loops(assembly(tmp_path, "compiled(single.kernel, 0, float64, False, False)"))
    straight = [loop for loop in loops if not any("vperm" in line for line in loop)]
    busy = [loop for loop in straight if 8 <= sum("madd" in line for line in loop) <= 16]
    assert busy
    assert on_the_stack(busy) == []
