"""What the package uses of zarr besides its public names: all of it is there, and in one file."""

import inspect
import re
from operator import attrgetter
from pathlib import Path
from typing import Any

import fsspec
import pytest
import zarr
from fsspec.asyn import AsyncFileSystem
from zarr.abc.codec import BaseCodec
from zarr.core.array_spec import ArraySpec
from zarr.storage import LoggingStore, MemoryStore, WrapperStore

import dasksolve
from dasksolve.storage import internals

PRIVATE = re.compile(
    r"zarr\.core|async_array|codec_pipeline|encode_chunk_key|ArraySpec|concurrent_map|store_path"
    r"|with_config|metadata\.data_type|code_single|_rm_file|WrapperStore"
)


SHARDS_ALONE = "metadata.data_type.to_json_scalar"  # which are of format 3


@pytest.mark.parametrize(
    ("zarr_format", "what"),
    [(n, what) for n in (2, 3) for what in internals.USED if (n, what) != (2, SHARDS_ALONE)],
)
def test_zarr_still_has(zarr_format: Any, what: str) -> None:
    array = zarr.create_array(MemoryStore(), shape=(3, 2), dtype="f8", zarr_format=zarr_format)
    try:
        attrgetter(what)(array)
    except AttributeError as error:
        raise AssertionError(
            f"zarr {zarr.__version__} has no {what} of an array: mend storage/internals.py"
        ) from error


@pytest.mark.parametrize("what", ["decode", "encode"])
def test_codecs_of_zarr_work_on_one_chunk(what: str) -> None:
    single = getattr(BaseCodec, f"_{what}_single", None)
    assert single is not None, f"zarr {zarr.__version__}: mend Codecs in storage/internals.py"
    assert [*inspect.signature(single).parameters][2:] == ["chunk_spec"]


def test_fsspec_deletes_a_file_of_one_name() -> None:
    found = getattr(AsyncFileSystem, "_rm_file", None)
    assert found is not None, f"fsspec {fsspec.__version__}: mend delete in storage/internals.py"
    assert [*inspect.signature(found).parameters][:2] == ["self", "path"]


def test_a_wrapper_of_zarr_says_what_it_is_around() -> None:
    store = MemoryStore()
    assert internals.innermost(WrapperStore(LoggingStore(store))) is store


def test_what_zarr_wants_to_know_of_a_chunk() -> None:
    wanted = list(inspect.signature(ArraySpec).parameters)
    assert wanted == ["shape", "dtype", "fill_value", "config", "prototype"], (
        f"zarr {zarr.__version__} describes chunks by {wanted}: mend storage/internals.py"
    )


def test_nothing_else_in_the_package_knows_it() -> None:
    root = Path(dasksolve.__file__).parent
    found = {
        f"{path.relative_to(root)}:{number}"
        for path in root.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if PRIVATE.search(line) and path != Path(internals.__file__)
    }
    assert not found
