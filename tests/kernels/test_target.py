"""What the kernels know of the processor that they are compiled for."""

import os
import platform
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from dasksolve.kernels.language.target import chosen_width, probed, target

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


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86")
@pytest.mark.parametrize(
    ("name", "features", "expected"),
    [
        ("x86-64-v2", "", (16, False, False)),
        ("sandybridge", "", (32, False, False)),
        ("haswell", "", (32, True, False)),
        ("x86-64-v3", "", (32, True, False)),
        ("haswell", "-fma", (32, False, False)),
        ("x86-64", "+avx2,+fma", (32, True, False)),
        ("skylake-avx512", "", (64, True, False)),
        ("icelake-server", "", (64, True, False)),
        ("sapphirerapids", "", (64, True, True)),
    ],
)
def test_names_and_features_are_what_llvm_takes_them_for(
    name: str, features: str, expected: tuple[int, bool, bool]
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
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86")
@pytest.mark.parametrize(
    ("name", "warnings"), [("x86-64-v2", ["PerformanceWarning"]), ("x86-64-v3", [])]
)
def test_without_fma_systems_are_solved_with_a_warning(name: str, warnings: list[str]) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env={**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    error, *warned = finished.stdout.split()
    assert float(error) < 4 * np.finfo(float).eps
    assert warned == warnings
