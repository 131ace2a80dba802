"""Times as files state them: numbers of a unit since a date (CF, section 4.4)."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_SECONDS = {
    **dict.fromkeys(("day", "d"), 86400.0),
    **dict.fromkeys(("hour", "hr", "h"), 3600.0),
    **dict.fromkeys(("minute", "min"), 60.0),
    **dict.fromkeys(("second", "sec", "s"), 1.0),
    **dict.fromkeys(("millisecond", "msec", "ms"), 1e-3),
    **dict.fromkeys(("microsecond", "us"), 1e-6),
    **dict.fromkeys(("nanosecond", "ns"), 1e-9),
}
_SINCE = re.compile(
    r"\s*(\w+)\s+since\s+(\d{1,4})-(\d{1,2})-(\d{1,2})"
    r"(?:[T\s]\s*(\d{1,2}):(\d{1,2})(?::(\d{1,2}(?:\.\d*)?))?)?"
    r"\s*(?:Z|UTC|GMT|[+-]?0{1,2}(?::?00)?)?\s*",
    re.IGNORECASE,
)
_REFORM = 1582  # the year in which Gregory's calendar begins


class Count(NamedTuple):
    """What the numbers of a time count, and since when."""

    seconds: float
    """In a unit."""
    date: tuple[float, ...]
    """Year, month, day, hour, minute and second of the date that is 0."""
    calendar: str
    """Whose date it is."""

    def after(self, other: "Count") -> float | None:
        """The seconds from the other's date to this one's; None: the calendar is not NumPy's."""
        if self.calendar != other.calendar:
            return None
        if self.date == other.date:
            return 0.0
        if self.calendar != "proleptic_gregorian":
            return None
        return float((_instant(self.date) - _instant(other.date)) / np.timedelta64(1, "s"))


def count(attributes: Mapping[str, Any]) -> Count | None:
    """What the numbers under these attributes count, if they are times that can be compared."""
    found = _SINCE.fullmatch(str(attributes.get("units", "")))
    if found is None:
        return None
    unit = found[1].lower()
    seconds = _SECONDS.get(unit) or _SECONDS.get(unit.removesuffix("s"))
    if seconds is None:
        return None
    date = tuple(float(part or 0) for part in found.groups()[1:])
    calendar = str(attributes.get("calendar", "standard")).lower()
    if calendar in ("standard", "gregorian"):
        calendar = "proleptic_gregorian" if date[0] > _REFORM else "standard"
    return Count(seconds, date, calendar)


def _instant(date: tuple[float, ...]) -> np.datetime64:
    year, month, day, hour, minute, second = date
    midnight = np.datetime64(f"{year:04.0f}-{month:02.0f}-{day:02.0f}", "us")
    return midnight + np.timedelta64(round((hour * 3600 + minute * 60 + second) * 1e6), "us")
