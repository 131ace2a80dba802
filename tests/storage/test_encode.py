"""Encoding into memory that is there already."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from dasksolve.storage import buffers, encode, internals


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16", "i4"])
@pytest.mark.parametrize("shape", [(6, 4), (6, 3), (2, 4), (1, 1)])
@pytest.mark.parametrize("there", [False, True], ids=["elsewhere", "there"])
def test_the_bytes_are_those_of_zarr(
    tmp_path: Path, dtype: str, shape: tuple[int, int], there: bool
) -> None:
    options: dict[str, Any] = {"fill_value": 7, "compressors": Crc32cCodec()}
    array = zarr.create_array(tmp_path / "a", shape=(12, 8), chunks=(6, 4), dtype=dtype, **options)
    values = np.random.default_rng(0).uniform(0, 100, shape).astype(dtype)
    wanted = buffers.here(internals.Codecs(array).encode(values)).to_bytes()
    memory = np.zeros(encode.size(array), np.uint8)
    if there:
        place = memory[: values.nbytes].view(dtype).reshape(shape)
        place[...] = values
        values = place
    assert encode.is_known(array)
    found = encode.within(memory, array, values)
    assert np.shares_memory(found, memory)
    assert found.tobytes() == wanted


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"compressors": None}, id="none"),
        pytest.param({"compressors": ZstdCodec()}, id="zstd"),
        pytest.param({"compressors": [ZstdCodec(), Crc32cCodec()]}, id="two"),
        pytest.param({"serializer": BytesCodec(endian="big")}, id="the other end first"),
        pytest.param({"zarr_format": 2, "compressors": None}, id="format 2"),
        pytest.param({"shards": (6, 2)}, id="shards"),
    ],
)
def test_what_is_left_to_zarr(tmp_path: Path, options: dict[str, Any]) -> None:
    how = {"compressors": Crc32cCodec(), **options}
    array = zarr.create_array(tmp_path / "a", shape=(6, 2), chunks=(3, 2), dtype="f8", **how)
    assert not encode.is_known(array)
