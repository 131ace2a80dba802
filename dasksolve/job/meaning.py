"""What the numbers of coordinates mean by their attributes, and where two mean the same."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasksolve.storage import conventions, times


class Meaning(NamedTuple):
    """What the numbers of a coordinate mean."""

    packing: conventions.Packing | None
    units: str | None
    """With the calendar, if there is one."""
    since: times.Count | None
    """Where they are times: what they count."""

    @classmethod
    def of(cls, array: Any) -> "Meaning":
        try:
            packing = conventions.packing(array)
        except ValueError:  # it is copied as it is, whatever it means
            packing = None
        units, calendar = (array.attrs.get(name) for name in ("units", "calendar"))
        said = " ".join(units.split()) if isinstance(units, str) else None
        if said and isinstance(calendar, str):
            said += f", {calendar}"
        return cls(packing, said, times.count(array.attrs))

    def read(self, stored: NDArray[Any]) -> NDArray[Any]:
        if self.packing is None:
            return stored
        values = np.empty(stored.shape, self.packing.dtype)
        self.packing.unpack(stored, values)
        return values

    def shift(self, other: "Meaning") -> tuple[float, float, float] | None:
        """The factor of these numbers, and that of the other's, to which the third is added.

        None: they do not mean the same, whatever they are.
        """
        as_they_are = 1.0, 1.0, 0.0
        if self.since is None or other.since is None:
            differ = len({self.units, other.units} - {None}) > 1
            return None if differ else as_they_are
        later = other.since.after(self.since)
        if later is None:
            return None
        factors = self.since.seconds, other.since.seconds
        return as_they_are if later == 0 and factors[0] == factors[1] else (*factors, later)


def equal(
    left: NDArray[Any], right: NDArray[Any], factor: float, other: float, summand: float
) -> NDArray[np.bool_]:
    """Where numbers, times or texts are equal; in another unit, as far as doubles tell."""
    kinds = {a.dtype.kind if a.dtype.kind not in "UT" else "T" for a in (left, right)}
    if len(kinds) > 1 and kinds & set("TmM"):
        return np.zeros(left.shape, bool)
    if (factor, other, summand) == (1, 1, 0):
        found = np.asarray(left == right)
    else:
        left, right = left * np.float64(factor), right * np.float64(other) + summand
        most = np.maximum(np.maximum(abs(left), abs(right)), abs(summand))
        found = abs(left - right) <= 4 * np.finfo(float).eps * most
    missing = [np.isnan(a) if a.dtype.kind in "fcmM" else np.False_ for a in (left, right)]
    return np.asarray(found | (missing[0] & missing[1]))
