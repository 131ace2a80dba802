"""The same bits on every processor that has fma: those of the hashes in bits.json."""

import os
import platform
import subprocess
import sys

import bits
import numpy as np
import pytest

from dasksolve import kernels
from dasksolve.kernels.language.target import FMA


@pytest.mark.skipif(not FMA, reason="without fma, products are rounded")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=pytest.mark.slow if case.slow else [])
        for case in bits.cases()
    ],
)
def test_answers_have_the_bits_of_every_other_machine(case: bits.Case) -> None:
    found = bits.hashes(case)
    assert bits.differing(found, bits.stored()["hashes"][str(case)]) == []


@pytest.mark.skipif(not FMA, reason="without fma, products are rounded")
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names of x86-64")
@pytest.mark.parametrize(
    "cases",
    ["regress float64 3", "polyfit float64 2"]
    + [
        pytest.param(c, marks=pytest.mark.slow)
        for c in ("regress", "lstsq", "factor", "gen", " 17")
    ],
)
def test_neither_numpys_vectors_nor_blas_have_a_say_in_bits(cases: str) -> None:
    oldest = {"NPY_DISABLE_CPU_FEATURES": _of_numpy(), "OPENBLAS_CORETYPE": "Prescott"}
    command = [sys.executable, bits.__file__, "--only", cases]
    subprocess.run(command, env=os.environ | oldest, check=True)


def _of_numpy() -> str:
    """What NumPy uses of this processor beyond what it cannot do without."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return " ".join(found)


def test_a_name_that_no_case_has_is_not_taken_for_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bits.py", "--only", "gen float16"])
    with pytest.raises(SystemExit, match="2"):
        bits.main()
    assert "no case has 'gen float16' in its name" in capsys.readouterr().err


def test_hashes_are_of_this_arithmetic_and_of_cases_that_there_are() -> None:
    stored = bits.stored()
    assert stored["arithmetic"] == kernels.ARITHMETIC
    assert set(stored["hashes"]) == set(map(str, bits.cases()))
