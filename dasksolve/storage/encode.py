"""Encodes a chunk of numbers and their checksum in memory that is there already.

zarr copies all numbers to put the checksum behind them, into memory that has to be faulted in.
"""

import math
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from dasksolve.storage import decode
from dasksolve.storage.decode import Bytes

ROOM = 4
"""Bytes that a checksum takes."""


def is_known(array: Any) -> bool:
    """Whether chunks of an array are its numbers as they are in memory, and their checksum."""
    codecs = array.compressors
    summed = len(codecs) == 1 and isinstance(codecs[0], Crc32cCodec)
    return summed and decode.holds_numbers(array) and decode.is_native(array)


def size(array: Any) -> int:
    """Bytes of a chunk, as it is stored."""
    return math.prod(array.chunks) * array.dtype.itemsize + ROOM


def within(memory: Bytes, array: Any, values: NDArray[Any]) -> Bytes:
    """The numbers of a chunk as they are stored; where the array ends within it, its first.

    They may be in that memory already, at its beginning.
    """
    numbers = memory[:-ROOM]
    chunk = numbers.view(array.dtype).reshape(array.chunks)
    if values.shape != chunk.shape:
        first = values.copy() if np.may_share_memory(values, memory) else values
        chunk[...] = array.fill_value
        chunk[tuple(map(slice, values.shape))] = first
    elif chunk.__array_interface__["data"] != values.__array_interface__["data"]:
        chunk[...] = values
    found = google_crc32c.value(numbers)
    memory[-ROOM:] = np.frombuffer(found.to_bytes(ROOM, "little"), np.uint8)
    return memory
