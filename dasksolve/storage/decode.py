"""Decompresses a chunk into memory that is there already, which zarr cannot.

A worker of dask gives every large buffer back to the system, to be faulted in anew at the next
block: a job of zstd chunks took 1.6 times the processor time there that it took on threads.
"""

import bz2
import lzma
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numcodecs.blosc import Blosc
from numcodecs.bz2 import BZ2
from numcodecs.gzip import GZip
from numcodecs.lz4 import LZ4
from numcodecs.lzma import LZMA
from numcodecs.zlib import Zlib
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

Bytes = NDArray[np.uint8]


def is_known(array: Any) -> bool:
    """Whether the chunks of an array are compressed by a codec that can."""
    codecs = array.compressors
    return holds_numbers(array) and len(codecs) == 1 and type(codecs[0]) in _KNOWN


def is_raw(array: Any) -> bool:
    """Whether the chunks of an array are its numbers as they are in memory."""
    return holds_numbers(array) and not array.compressors and is_native(array)


def holds_numbers(array: Any) -> bool:
    """Whether the chunks of an array are its numbers, through compressors at most."""
    plain = array.shards is None and not array.filters
    return plain and isinstance(array.serializer, BytesCodec)


def is_native(array: Any) -> bool:
    """Whether numbers are stored in the byte order of memory."""
    return bool(stored_dtype(array) == np.dtype(array.dtype))


def refuse_false(array: Any, stored: Bytes) -> None:
    """Refuse a chunk that says it is longer than it is, or than a chunk: zarr would believe it."""
    codecs = list(array.compressors)
    while codecs and isinstance(codecs[-1], Crc32cCodec):
        stored = stored[:-4]
        codecs.pop()
    size = _SIZES.get(type(codecs[-1])) if codecs else None
    if size is None:
        return
    most = _most(array)
    says = size(stored)
    if says is None and isinstance(codecs[-1], ZstdCodec | Zstd):
        Zstd().decode(stored, out=np.empty(most, np.uint8))  # more than that: an error
    elif says is not None and says > most:
        raise ValueError(f"it says that it holds {says:,} bytes, where a chunk has {most:,}")


def refuse_size(array: Any, numbers: Bytes) -> None:
    """Refuse the numbers of a chunk that are too few or too many: NumPy would speak of shapes."""
    exact = math.prod(array.chunks) * array.dtype.itemsize
    if numbers.size != exact:
        raise ValueError(f"it holds {numbers.size:,} bytes, where a chunk has {exact:,}")


def _most(array: Any) -> int:
    """Bytes that a chunk can have before it is compressed: more than its numbers by filters."""
    exact = math.prod(array.chunks) * array.dtype.itemsize
    last = [codec for codec in array.compressors if not isinstance(codec, Crc32cCodec)]
    return 16 * exact + 1024 if array.filters or len(last) > 1 else exact


def inflated(array: Any, stored: Bytes) -> Bytes | None:
    """The bytes of a chunk whose codec does not say how many they are; None: it is another codec.

    Never more than a chunk has: zarr would take what memory there is.
    """
    codecs = array.compressors
    make = _STREAMS.get(type(codecs[0])) if len(codecs) == 1 else None
    if make is None:
        return None
    most, rest = _most(array), stored.data
    parts: list[bytes] = []
    while rest:
        stream = make(codecs[0])
        left = most - sum(len(part) for part in parts)
        parts.append(stream.decompress(rest, left + 1))
        if len(parts[-1]) > left:
            raise ValueError(f"it holds more than the {most:,} bytes that a chunk has")
        if not stream.eof:
            raise ValueError("it ends too early")
        rest = stream.unused_data
    return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), np.uint8)


def into(memory: Bytes, array: Any, stored: Bytes) -> NDArray[Any] | None:
    """Return the numbers of a chunk, in `memory`; None: it does not say that it fits exactly."""
    codec, size = _KNOWN[type(array.compressors[0])]
    if size(stored) != memory.size:
        return None
    codec.decode(stored, out=memory)
    return memory.view(stored_dtype(array)).reshape(array.chunks)


def stored_dtype(array: Any) -> np.dtype[Any]:
    """What the bytes of a chunk are, once they are decompressed."""
    endian, dtype = array.serializer.endian, np.dtype(array.dtype)
    return dtype.newbyteorder(getattr(endian, "value", endian)) if endian else dtype


def _zstd_size(stored: Bytes) -> int | None:
    """Bytes that a frame holds, if its header says so: RFC 8878, section 3.1.1.1."""
    head = stored[:18].tobytes()
    if len(head) < 18 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = head[4]
    single = flags >> 5 & 1
    start = 6 - single + (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[flags >> 6]
    if not length:
        return None
    size = int.from_bytes(head[start : start + length], "little")
    return size + 256 if length == 2 else size


def _blosc_size(stored: Bytes) -> int | None:
    """Bytes that a chunk holds: Blosc's header, of 16 bytes."""
    head = stored[:16].tobytes()
    whole = int.from_bytes(head[12:16], "little")
    if len(head) < 16 or whole != stored.size:  # blosc itself would read on, beyond the end
        raise ValueError(f"a blosc chunk of {whole} bytes has {stored.size}")
    return int.from_bytes(head[4:8], "little")


def _lz4_size(stored: Bytes) -> int | None:
    """Bytes that a chunk holds: numcodecs puts them first."""
    return int.from_bytes(stored[:4].tobytes(), "little") if stored.size >= 4 else None


_STREAMS: dict[type, Callable[[Any], Any]] = {
    GzipCodec: lambda _: zlib.decompressobj(31),
    GZip: lambda _: zlib.decompressobj(31),
    Zlib: lambda _: zlib.decompressobj(),
    BZ2: lambda _: bz2.BZ2Decompressor(),
    LZMA: lambda codec: lzma.LZMADecompressor(codec.format, filters=codec.filters),
}
_SIZES: dict[type, Callable[[Bytes], int | None]] = {
    ZstdCodec: _zstd_size,
    Zstd: _zstd_size,
    BloscCodec: _blosc_size,
    Blosc: _blosc_size,
    LZ4: _lz4_size,
}
_KNOWN: dict[type, tuple[Any, Callable[[Bytes], int | None]]] = {
    ZstdCodec: (Zstd(), _zstd_size),
    BloscCodec: (Blosc(), _blosc_size),
}
