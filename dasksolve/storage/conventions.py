"""What stored numbers mean by their attributes: the CF conventions, as xarray applies them.

CF Metadata Conventions, sections 2.5.1 (missing data) and 8.1 (packed data); which dtype the
numbers are given is xarray's choice (`xarray.coding.variables`).
"""

import base64
import math
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels

DIMENSIONS = "_ARRAY_DIMENSIONS"
"""Attribute that names dimensions in format 2."""
_ATTRIBUTES = ("_Unsigned", "scale_factor", "add_offset", "_FillValue", "missing_value")
_PIECE = 1 << 14  # numbers: what is in hand of them stays in the cache
_COPY = 1 << 20  # bytes of stored numbers that are copied where they do not lie side by side


@dataclass(frozen=True)
class Packing:
    """How stored numbers become what they mean."""

    stored: np.dtype[Any]
    """What the bytes are read as."""
    dtype: np.dtype[Any]
    """What the numbers become."""
    missing: tuple[Any, ...]
    """Numbers that stand for none: NaN."""
    scale: float | None
    """What each is multiplied by, first."""
    offset: float | None
    """What is added."""

    def __str__(self) -> str:
        parts = [str(self.stored)]
        parts += [f"times {self.scale!r}"] if self.scale is not None else []
        parts += [f"plus {self.offset!r}"] if self.offset is not None else []
        parts += [f"{number!s} is missing" for number in self.missing]
        return ", ".join(parts)

    @property
    def numbers(self) -> tuple[float, float, float] | None:
        """Which is missing, the factor, the summand, as kernels take them; None: they do not."""
        if not self._is_simple:
            return None
        missing = float((*self.missing, np.nan)[0])
        if missing % 1:  # no integer is it; rounded, it might be one
            missing = np.nan
        offset = -0.0 if self.offset is None else self.offset  # keeps the sign of zero
        return missing, 1.0 if self.scale is None else self.scale, offset

    def unpack(self, values: NDArray[Any], into: NDArray[Any]) -> None:
        """Write what stored numbers mean into memory that is there already."""
        axes = sorted(range(into.ndim), key=lambda axis: -abs(into.strides[axis]))
        source, target = values.transpose(axes), into.transpose(axes)
        at_once = source.flags.c_contiguous or source.nbytes <= _COPY
        if self._is_simple and target.flags.c_contiguous and at_once:
            self._unpack_at_once(source, target.reshape(-1))
        else:
            self._unpack_in_pieces(values, into)

    @property
    def _is_simple(self) -> bool:
        """Whether there is a kernel for it."""
        small = self.stored.kind in "iu" and self.stored.itemsize <= 2
        return small and self.dtype.kind == "f" and len(self.missing) < 2

    def _unpack_at_once(self, values: NDArray[Any], into: NDArray[Any]) -> None:
        scale, offset = (self.dtype.type(v or 0) for v in (self.scale, self.offset))
        missing = bool(self.missing), float((*self.missing, 0)[0])
        read = np.require(values, values.dtype.newbyteorder("="), ["C", "A"]).view(self.stored)
        kernels.unpacking(self.stored, self.dtype)(
            read.reshape(-1),
            into,
            *missing,
            self.scale is not None,
            scale,
            self.offset is not None,
            offset,
        )

    def _unpack_in_pieces(self, values: NDArray[Any], into: NDArray[Any]) -> None:
        pieces = np.nditer(
            [values.view(self.stored.newbyteorder(values.dtype.byteorder)), into],
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_flags=[["readonly"], ["writeonly"]],
            op_dtypes=[self.dtype, self.dtype],
            casting="unsafe",
            buffersize=_PIECE,
        )
        nothing = complex(np.nan, np.nan) if self.dtype.kind == "c" else np.nan
        with pieces, np.errstate(all="ignore"):
            for stored, meant in pieces:
                meant[...] = stored
                for number in self.missing:
                    np.copyto(meant, nothing, where=stored == number)
                if self.scale is not None:
                    meant *= self.scale
                if self.offset is not None:
                    meant += self.offset


def packing(array: Any) -> Packing | None:
    """How the numbers of an array are packed, by its attributes; None: they are what they say."""
    stored = array.dtype.newbyteorder("=")
    if stored.kind not in "biufc":
        return None
    found = {name: array.attrs[name] for name in _ATTRIBUTES if name in array.attrs}
    if array.metadata.zarr_format == 2:
        # xarray reads those arrays alone that name their dimensions, and of them the fill value
        # as a missing one. Elsewhere zarr's default of 0 is a number like any other.
        found.pop("_FillValue", None)
        if DIMENSIONS in array.attrs and array.fill_value is not None:
            found["_FillValue"] = array.fill_value
    signs = {("i", "true"): "u", ("u", "false"): "i"}
    kind = signs.get((stored.kind, str(found.get("_Unsigned"))))
    read = np.dtype(f"{kind}{stored.itemsize}") if kind else stored
    missing = [*_numbers("missing_value", found.get("missing_value"), stored)]
    fills = _fills(found.get("_FillValue"), stored)
    missing += [_as_read(number, stored, read) if kind else number for number in fills]
    scale, offset = (_factor(name, found.get(name)) for name in ("scale_factor", "add_offset"))
    if not missing and scale is None and offset is None and read == stored:
        return None
    dtype = _dtype(read, scale, offset, bool(missing))
    return Packing(read, dtype, tuple(dict.fromkeys(missing)), scale, offset)


def described(array: Any) -> dict[str, Any]:
    """The attributes of an array that mean the same in format 3."""
    attributes = {name: value for name, value in array.attrs.items() if name != DIMENSIONS}
    fill = array.fill_value
    if array.metadata.zarr_format == 2 and DIMENSIONS in array.attrs and fill is not None:
        if array.dtype.kind == "f" and not np.isnan(fill):
            attributes["_FillValue"] = base64.b64encode(struct.pack("<d", fill)).decode()
        elif array.dtype.kind in "iu":
            attributes["_FillValue"] = int(fill)
    return attributes


def _fills(value: Any, stored: np.dtype[Any]) -> Iterator[Any]:
    """The number that stands for none; text of an integer is a slip, which xarray refuses, too."""
    if stored.kind in "iu":
        whole = not (isinstance(value, float) and math.isfinite(value) and value % 1)
        if not (whole and isinstance(value, int | float | np.integer | None)):
            raise _unusable("_FillValue", value)
    return _numbers("_FillValue", value, stored)


def _numbers(name: str, value: Any, stored: np.dtype[Any]) -> Iterator[Any]:
    """The numbers that an attribute lists, but for NaN, which needs no other to stand for it."""
    if stored.kind == "c" and isinstance(value, list) and len(value) == 2:
        value = complex(*(_float(name, part) for part in value))
    numbers = np.ravel([] if value is None else value)
    if numbers.dtype.kind not in "biufcU":
        raise _unusable(name, value)
    for number in numbers:
        parsed = np.float64(_float(name, str(number))) if number.dtype.kind == "U" else number
        if not np.isnan(parsed):
            yield parsed


def _float(name: str, value: Any) -> float:
    """A number, or what stands for one: xarray writes floats to format 3 in base64."""
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        return float(struct.unpack("<d", base64.b64decode(value, validate=True))[0])
    except (TypeError, ValueError, struct.error):
        raise _unusable(name, value) from None


def _as_read(number: Any, stored: np.dtype[Any], read: np.dtype[Any]) -> Any:
    """A number that an attribute gives as it is stored, as its bytes are read."""
    limits = np.iinfo(stored)
    return np.array(number, stored).view(read)[()] if limits.min <= number <= limits.max else number


def _factor(name: str, value: Any) -> Any:
    """A scale or an offset; one number in a list is a number, too."""
    if isinstance(value, list) and len(value) == 1:
        [value] = value
    if value is None:
        return None
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not (usable and abs(value) <= sys.float_info.max):
        raise _unusable(name, value)
    return value if abs(value) < 2**31 else float(value)


def _dtype(
    read: np.dtype[Any], scale: float | None, offset: float | None, missing: bool
) -> np.dtype[Any]:
    """The dtype that xarray gives to the numbers; where it would cut some off, float64."""
    if read.kind == "c":
        return read
    if offset is not None or isinstance(scale, float):
        return np.dtype(np.float64)
    if scale is not None:
        return np.dtype(np.float64 if missing or read.kind == "f" else np.int64)
    if missing and read.kind != "f":
        return np.dtype(np.float32 if read.itemsize <= 2 else np.float64)
    return read


def _unusable(name: str, value: Any) -> ValueError:
    return ValueError(
        f"its attribute {name} is {value!r}, which is no number to decode with; correct it, or "
        "read the numbers as they are stored with mask_and_scale=False (--no-mask-and-scale)"
    )
