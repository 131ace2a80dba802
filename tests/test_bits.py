"""The same bits on every processor that has fma: those of the hashes in bits.json."""

import bits
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
