"""Decompressing into memory that is there already."""

from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from dasksolve.storage import buffers, decode, internals
from dasksolve.storage.inputs import layout
from dasksolve.storage.source import Source


def stored(tmp_path: Path, values: np.ndarray, **options: Any) -> tuple[Any, np.ndarray]:
    """An array of one chunk, and the bytes of that."""
    array = zarr.create_array(tmp_path / "a", data=values, chunks=values.shape, **options)
    key = array.metadata.encode_chunk_key((0,) * values.ndim)
    return array, np.fromfile(tmp_path / "a" / key, np.uint8)


@pytest.mark.parametrize("codec", [ZstdCodec(), ZstdCodec(checksum=True, level=9), BloscCodec()])
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("count", [1, 4, 30, 300, 100_000], ids=lambda count: f"{count} numbers")
def test_the_numbers_are_those_of_zarr(tmp_path: Path, codec: Any, endian: str, count: int) -> None:
    values = np.random.default_rng(0).standard_normal((count, 1))
    array, chunk = stored(tmp_path, values, compressors=codec, serializer=BytesCodec(endian=endian))
    assert decode.is_known(array)
    memory = np.empty(values.nbytes, np.uint8)
    decoded = decode.into(memory, array, chunk)
    if decoded is None:  # too small to have a header that can be trusted
        assert chunk.size < 18
        return
    assert np.shares_memory(decoded, memory)
    assert np.array_equal(decoded, values)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"compressors": GzipCodec()}, id="gzip"),
        pytest.param({"compressors": None}, id="none"),
        pytest.param({"compressors": [ZstdCodec(), Crc32cCodec()]}, id="two"),
        pytest.param({"zarr_format": 2}, id="format 2"),
        pytest.param({"shards": (6, 2)}, id="shards"),
    ],
)
def test_what_is_left_to_zarr(tmp_path: Path, options: dict[str, Any]) -> None:
    array = zarr.create_array(tmp_path / "a", shape=(6, 2), chunks=(3, 2), dtype="f8", **options)
    assert not decode.is_known(array)


@pytest.mark.parametrize("codec", [ZstdCodec(), BloscCodec()])
def test_a_chunk_of_another_size_is_left_to_zarr(tmp_path: Path, codec: Any) -> None:
    array, chunk = stored(tmp_path, np.arange(300.0), compressors=codec)
    for size in (2399, 2401):
        assert decode.into(np.empty(size, np.uint8), array, chunk) is None


@pytest.mark.parametrize(
    ("codec", "message"),
    [(ZstdCodec(), "Zstd decompression error"), (BloscCodec(), r"a blosc chunk of \d+ bytes has")],
)
def test_a_chunk_that_was_cut_is_an_error(tmp_path: Path, codec: Any, message: str) -> None:
    array, chunk = stored(tmp_path, np.random.default_rng(0).random(300), compressors=codec)
    with pytest.raises((ValueError, RuntimeError), match=message):
        decode.into(np.empty(2400, np.uint8), array, chunk[:-9])


BOMBS = [
    pytest.param({"compressors": ZstdCodec()}, numcodecs.Zstd(), 50_000, id="zstd"),
    pytest.param({"compressors": [ZstdCodec(), Crc32cCodec()]}, None, 50_000, id="zstd, summed"),
    pytest.param({"compressors": BloscCodec()}, numcodecs.Blosc("zstd"), 50_000, id="blosc"),
    pytest.param(
        {"compressors": numcodecs.LZ4(), "zarr_format": 2}, numcodecs.LZ4(), 50_000, id="lz4"
    ),
    pytest.param(
        {"compressors": numcodecs.Zstd(), "zarr_format": 2}, numcodecs.Zstd(), 50_000, id="format 2"
    ),
]


@pytest.mark.parametrize(("options", "codec", "size"), BOMBS)
def test_a_chunk_that_says_it_is_larger_than_a_chunk_is_refused(
    tmp_path: Path, options: dict[str, Any], codec: Any, size: int
) -> None:
    array = zarr.create_array(tmp_path / "a", shape=(30,), chunks=(30,), dtype="f8", **options)
    honest = (codec or numcodecs.Zstd()).encode(np.zeros(240, np.uint8))
    large = (codec or numcodecs.Zstd()).encode(np.zeros(size, np.uint8))
    honest, large = (
        np.frombuffer(bytes(chunk) + (b"sums" if codec is None else b""), np.uint8)
        for chunk in (honest, large)
    )
    decode.refuse_false(array, honest)
    with pytest.raises(ValueError, match=r"says that it holds 50,000 bytes, where a chunk has"):
        decode.refuse_false(array, large)


@pytest.mark.parametrize(("count", "fits"), [(30, True), (31, False), (10**6, False)])
def test_a_zstd_chunk_that_does_not_say_how_large_it_is(
    tmp_path: Path, count: int, fits: bool
) -> None:
    array = zarr.create_array(
        tmp_path / "a", shape=(30,), chunks=(30,), dtype="f8", compressors=ZstdCodec()
    )
    chunk = np.frombuffer(streamed(np.zeros(8 * count, np.uint8)), np.uint8)
    if fits:
        decode.refuse_false(array, chunk)
    else:
        with pytest.raises((ValueError, RuntimeError), match=r"too small|decompression error"):
            decode.refuse_false(array, chunk)


INFLATED = [
    pytest.param({"compressors": GzipCodec()}, numcodecs.GZip(), id="gzip"),
    *(
        pytest.param(
            {"compressors": codec, "zarr_format": 2, **more},
            codec,
            id=f"{codec.codec_id}, filtered" if more else codec.codec_id,
        )
        for codec in (numcodecs.GZip(), numcodecs.Zlib(), numcodecs.BZ2(), numcodecs.LZMA())
        for more in ({}, {"order": "F", "filters": numcodecs.Delta("i8")})
    ),
]


@pytest.mark.filterwarnings("ignore:Numcodecs codecs:UserWarning")
@pytest.mark.parametrize(("options", "codec"), INFLATED)
def test_what_codecs_make_that_do_not_say_how_much(
    tmp_path: Path, options: dict[str, Any], codec: Any
) -> None:
    values = np.random.default_rng(0).integers(0, 50, (20, 6))
    array = zarr.create_array(tmp_path / "a", data=values, chunks=(10, 6), **options)
    source = Source("a", array, layout(array, "a", 1))
    with buffers.lent() as space:
        read, _ = source.read(((3, 17),), True, space)
        assert np.array_equal(read, values[3:17])
        chunk = tmp_path / "a" / internals.name(array, (1, 0))
        whole = chunk.read_bytes()
        half = len(whole) // 2
        for bad, message in (
            (codec.encode(np.zeros(10**6, np.uint8)), "holds more than the [0-9,]+ bytes"),
            (whole[:half], "ends too early"),
        ):
            chunk.write_bytes(bad)
            with pytest.raises(OSError, match=message):
                source.read(((3, 17),), True, space)
    buffers.free_all()


def streamed(values: np.ndarray) -> bytes:
    """A zstd frame of raw and repeated blocks that leaves its size out: RFC 8878, section 3.1.1."""
    frame = b"\x28\xb5\x2f\xfd" + bytes([0, 0x58])  # a window of 2 MiB, no size
    whole = values.size
    while True:
        count = min(whole, 1 << 17)
        whole -= count
        frame += (count << 3 | 0b10 | (whole == 0)).to_bytes(3, "little") + b"\0"
        if not whole:
            return frame
