"""`Options`: how a batch is solved, made and checked once at the door, and carried whole."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import numpy as np

STRUCTURES = (
    "gen",
    "pos",
    "sym",
    "her",
    "upper triangular",
    "lower triangular",
    "diagonal",
    "tridiagonal",
)
LONG_WORDS = {
    "general": "gen",
    "positive definite": "pos",
    "symmetric": "sym",
    "hermitian": "her",
}
"""SciPy's long spellings, and what they are here."""
ON_SINGULAR = ("raise", "nan", "lstsq")

Door = TypeVar("Door", bound=Callable[..., Any])

_INSTEAD = {
    "overwrite_a": "the input is never written to: leave it out",
    "overwrite_b": "the input is never written to: leave it out",
    "check_finite": (
        "NaN and Inf are looked for always, and make NaN of their own system's x alone: leave it "
        "out, and see solve_ex(a, b).status"
    ),
    "transposed": (
        "give solve a.swapaxes(-1, -2), or factor once: dasksolve.factor(a).solve(b, "
        "transposed=True)"
    ),
    "sym_pos": 'write assume_a="pos"',
    "w": "weights= are inverse variances, the squares of numpy.polyfit's w: give weights=w**2",
    "skipna": "NaN is always left out; min_count=P makes NaN of a series with a gap",
}


@dataclass(frozen=True, slots=True)
class Options:
    """How to solve a batch, whatever its shapes."""

    assume_a: str = "gen"
    """Structure of a: one of `STRUCTURES`."""
    lower: bool = False
    """The lower triangle is the one that is read, where the structure leaves a choice."""
    on_singular: str = "raise"
    """What becomes of systems that cannot be solved: one of `ON_SINGULAR`."""
    diagnostics: bool = False
    """Condition and backward error of every system are wanted beside x."""
    refine: bool = False
    """Answers that are not exact enough are refined."""
    rcond: float | None = None
    """Systems whose reciprocal condition number is below it count as singular."""

    @classmethod
    def of(
        cls,
        assume_a: str = "gen",
        lower: bool = False,
        on_singular: str = "raise",
        diagnostics: bool = False,
        refine: bool = False,
        rcond: float | None = None,
    ) -> "Options":
        """Return checked options, each word in its one spelling, or raise what says how to mend."""
        try:
            return _checked(assume_a, lower, on_singular, diagnostics, refine, rcond)
        except TypeError:  # not hashable: neither a word nor a number
            return _checked.__wrapped__(assume_a, lower, on_singular, diagnostics, refine, rcond)

    @property
    def diagnoses(self) -> bool:
        """Whether the condition of every system is needed, be it wanted or not."""
        return self.diagnostics or self.refine or self.rcond is not None


@lru_cache(maxsize=256, typed=True)  # to check them takes as long as to solve a small system
def _checked(
    assume_a: str, lower: bool, on_singular: str, diagnostics: bool, refine: bool, rcond: Any
) -> Options:
    word = _structure(assume_a)
    check_word("on_singular", on_singular, ON_SINGULAR)
    threshold = checked_rcond(rcond)
    check_flags(lower=lower, diagnostics=diagnostics, refine=refine)
    return Options(word, bool(lower), on_singular, bool(diagnostics), bool(refine), threshold)


def _structure(assume_a: Any) -> str:
    if assume_a is None:
        raise ValueError(
            'assume_a=None, SciPy\'s "find out", is not done for batches: say what all the '
            f'matrices are ("gen" is always right), one of {", ".join(map(repr, STRUCTURES))}'
        )
    if assume_a == "banded":
        raise ValueError(
            'assume_a="banded" is not known here: use "tridiagonal" for one diagonal on each side '
            "(or dasksolve.solve_tridiagonal), scipy.linalg.solve_banded for more, system by "
            'system, or "gen"'
        )
    word = short_word(assume_a) if isinstance(assume_a, str) else assume_a
    check_word("assume_a", word, STRUCTURES)
    return word


def short_word(word: str) -> str:
    """The word for a structure that SciPy spells in a longer way, too."""
    return LONG_WORDS.get(word, word)


def checked_rcond(rcond: Any) -> float | None:
    """The threshold as a number, if there is one."""
    if rcond is None:
        return None
    number = isinstance(rcond, int | float | np.number) and not isinstance(rcond, bool)
    if number and 0 <= rcond <= 1:
        return float(rcond)
    raise ValueError(
        f"rcond={rcond!r} must be None, or a number from 0 to 1 such as 1e-10: systems whose "
        "reciprocal condition number is below it count as singular"
    )


def check_flags(**flags: Any) -> None:
    """Refuse what is neither True nor False: "no" would count as true."""
    for name, flag in flags.items():
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"{name}={flag!r} must be True or False")


def check_word(name: str, word: Any, words: tuple[str, ...], besides: str = "") -> None:
    """Refuse a word that is not one of `words`."""
    if word not in words:
        raise ValueError(f"{name}={word!r} is not one of {', '.join(map(repr, words))}{besides}")


def refusing(door: Door) -> Door:
    """Leave ``**unknown`` out of the signature that people see: it is there to be refused."""
    signature = inspect.signature(door)
    known = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    door.__signature__ = signature.replace(parameters=known)  # type: ignore[attr-defined]
    return door


def refuse_unknown(door: Callable[..., Any], unknown: Mapping[str, object]) -> NoReturn:
    """Refuse keywords that a function does not have, and say what to do about those of SciPy."""
    name = next(iter(unknown))
    near = get_close_matches(name, inspect.signature(door).parameters, 1)
    advice = _INSTEAD.get(name) or (f"did you mean {near[0]}?" if near else None)
    where = "labelled." if ".labelled." in door.__module__ else ""
    raise TypeError(
        f"{where}{door.__name__}() has no keyword {name!r}" + (f"; {advice}" if advice else "")
    )
