"""The one door to what zarr keeps to itself; every other file uses its public names alone.

zarr cannot read a chunk into memory that is there, run codecs in the thread that calls, or say
whether a chunk is stored. What that takes, and what would make it needless:

==============================  ===================================================================
`zarr.core.sync.sync`           Connections of a store belong to zarr's own event loop: a public way
                                to run a coroutine there.
`zarr.core.array_spec`          The codecs want to be told what a chunk is: public functions that
`async_array.codec_pipeline`    decode the bytes of one, and encode its numbers.
`async_array.config`
`codec._decode_single`
`codec._encode_single`
`async_array.getitem`           To read on a loop of the caller's choice: documented, but
                                `AsyncArray` is not promised to stay.
`metadata.encode_chunk_key`     Name of a chunk in its store: a public function.
`metadata.data_type`            The same array with another fill value: `Array.chunk_is_stored`, or
`zarr.Array(zarr.AsyncArray)`   `nchunks_initialized` for one chunk.
`FsspecStore.fs._rm_file`       To delete what has exactly this name: `FsspecStore.delete`, which
                                takes [, * and ? of a key for a pattern.
`WrapperStore._store`           What a store is that is wrapped in others: named in its docstring.
==============================  ===================================================================
"""

import asyncio
import atexit
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from dataclasses import replace
from functools import cache, partial
from glob import has_magic
from typing import Any, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.abc.codec import BaseCodec
from zarr.buffer import default_buffer_prototype
from zarr.core.array_spec import ArraySpec
from zarr.core.sync import sync
from zarr.storage import FsspecStore, StorePath, WrapperStore

from dasksolve.storage.backlog import PATIENT

Place = tuple[int, ...]
"""Of a chunk, in the grid of chunks."""
Region = tuple[slice, ...]
T = TypeVar("T")

USED = (
    "async_array.codec_pipeline.__iter__",
    "async_array.config.order",
    "async_array.getitem",
    "metadata.data_type.to_json_scalar",
    "metadata.dtype",
    "metadata.encode_chunk_key",
    "metadata.fill_value",
    "metadata.to_dict",
    "with_config",
)
"""What is used of an open array besides what zarr documents for users."""
PATIENCE = 10.0
"""Seconds that one who was interrupted waits for a store that gives no sign of life."""
_asked: ContextVar[set[asyncio.Task[Any]] | None] = ContextVar("asked", default=None)
"""What is on its way of what is given up if somebody interrupts it."""
_hurried: ContextVar[bool] = ContextVar("hurried", default=False)


def innermost(store: Any) -> Any:
    """The store that others are wrapped around."""
    while isinstance(store, WrapperStore):
        store = store._store
    return store


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on the event loop of zarr, to which the connections of stores belong."""
    _end_quietly()
    return sync(_noted(asyncio.wait_for(work, PATIENCE) if _hurried.get() else work))


def begin(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Begin to run it there, and go on meanwhile."""

    async def there() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    return asyncio.run_coroutine_threadsafe(_noted(work), run(there()))


def _noted(work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """The same, among what is given up if who asks for it, in this thread, is interrupted."""
    asked = _asked.get()
    if asked is None:
        return work

    async def noted() -> T:
        task = asyncio.current_task()
        assert task is not None
        asked.add(task)
        try:
            return await work
        finally:
            asked.discard(task)

    return noted()


class Helpers(ThreadPoolExecutor):
    """Threads that ask stores for something, beside the one that calls.

    Ctrl-C gives up what any of them waits for: a store that does not answer may take hours to fail.
    """

    def __enter__(self) -> "Helpers":
        super().__enter__()
        self._before = _asked.set(set())
        return self

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        """As ever, where what is asked for is known."""
        return super().submit(copy_context().run, function, *arguments, **options)

    def __exit__(self, *raised: Any) -> None:
        asked = _asked.get() or ()
        _asked.reset(self._before)
        if _is_interrupt(raised[1]):
            for task in [*asked]:
                task.get_loop().call_soon_threadsafe(task.cancel)
        super().__exit__(*raised)


@contextmanager
def hurried() -> Iterator[None]:
    """Within: what is done at an end waits for each request a while only, if that is a Ctrl-C."""
    before = _hurried.set(_is_interrupt(sys.exception()))
    try:
        yield
    finally:
        _hurried.reset(before)


def _is_interrupt(error: BaseException | None) -> bool:
    return not isinstance(error, Exception | None)


@cache
def _end_quietly() -> None:
    """Cancel what is still on its way when the program ends, before zarr closes its loop.

    Where one request fails, zarr abandons those beside it; each of them that meets a closed loop
    ends with a traceback.
    """

    async def cancel() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def end() -> None:
        with suppress(Exception):
            sync(cancel(), timeout=5)

    atexit.register(end)


async def each(
    work: Callable[[T], Coroutine[Any, Any, None]], items: Iterable[T], most: int
) -> None:
    """Do the same for each item, `most` at a time; raise the first error once all have ended."""
    turns = asyncio.Semaphore(most)

    async def in_turn(item: T) -> None:
        async with turns:
            await work(item)

    await together(*map(in_turn, items))


async def together(*works: Coroutine[Any, Any, T]) -> list[T]:
    """Do all at the same time; raise the first error once all have ended."""
    if len(works) == 1:
        return [await works[0]]
    ended = await asyncio.gather(*works, return_exceptions=True)
    for error in ended:
        if isinstance(error, BaseException):
            raise error
    return ended  # type: ignore[return-value]  # none is an error


def at_once() -> int:
    """How many requests zarr has on their way at a time."""
    return int(zarr.config.get("async.concurrency"))


def readers() -> int:
    """How many threads zarr reads files in, at most."""
    return int(zarr.config.get("threading.max_workers") or min(32, (os.cpu_count() or 1) + 4))


def name(array: Any, place: Place) -> str:
    """What a chunk, or a shard, is called in its array: the first along axes that are left out."""
    return str(array.metadata.encode_chunk_key(place + (0,) * (array.ndim - len(place))))


def key(array: Any, file: str) -> str:
    """The key of a file of an array in its store."""
    return f"{array.path}/{file}" if array.path else file


async def stored(places: Iterable[tuple[Any, str]]) -> list[bool]:
    """Whether there are files of these keys in these stores, all asked for at once."""
    return await together(*(store.exists(key) for store, key in places))


def names(store: Any, folder: str = "") -> list[str]:
    """What stands in a folder of a store, "" for its top."""

    async def listed() -> list[str]:
        return [name async for name in store.list_dir(folder)]

    return run(listed())


async def put(array: Any, file: str, content: bytes | NDArray[np.uint8] | Buffer) -> None:
    """Write a file of an array, on the loop that runs."""
    if isinstance(content, bytes):
        content = default_buffer_prototype().buffer.from_bytes(content)
    elif isinstance(content, np.ndarray):
        content = default_buffer_prototype().buffer.from_array_like(content)
    await array.store.set(key(array, file), content)


async def put_empty(store: Any, key: str) -> None:
    """Write a file of no bytes."""
    await store.set(key, default_buffer_prototype().buffer.from_bytes(b""))


async def delete(store: Any, key: str) -> None:
    """Delete a file, if it is there."""
    if not _is_pattern(store, key):
        await store.delete(key)
        return
    with suppress(FileNotFoundError, *store.allowed_exceptions):
        await store.fs._rm_file(f"{store.path}/{key}" if store.path else key)


async def delete_folder(store: Any, folder: str) -> None:
    """Delete all files that there are in a folder."""
    if not _is_pattern(store, folder):
        await store.delete_dir(folder)
        return
    keys = [key async for key in store.list_prefix(f"{folder}/")]
    await each(partial(delete, store), keys, at_once())


def _is_pattern(store: Any, key: str) -> bool:
    """Whether fsspec would delete what is called otherwise: of run[1].zarr, all of run1.zarr."""
    return isinstance(store, FsspecStore) and has_magic(f"{store.path}/{key}")


async def fetch(array: Any, file: str) -> NDArray[np.uint8] | None:
    """The bytes of a file of an array; None: it is not stored."""
    found = await array.store.get(key(array, file), PATIENT)
    return None if found is None else np.asarray(found.as_numpy_array())


class Codecs:
    """How zarr encodes and decodes the chunks of an array.

    Its pipeline makes a task of each step of each chunk, 1 ms for a block; this takes a tenth.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.prototype, metadata = default_buffer_prototype(), array.metadata
        config = replace(array.async_array.config, order=array.order)  # format 2 has its own
        chunk = ArraySpec(
            tuple(array.chunks), metadata.dtype, metadata.fill_value, config, self.prototype
        )
        self.steps: list[tuple[Any, ArraySpec]] = []
        for codec in array.async_array.codec_pipeline:
            self.steps.append((codec, chunk))
            chunk = codec.resolve_metadata(chunk)

    async def decode(self, stored: NDArray[np.uint8]) -> NDArray[Any]:
        """A chunk as zarr decodes it."""
        found: Any = self.prototype.buffer.from_array_like(stored)
        for codec, chunk in reversed(self.steps):
            if type(codec).decode is BaseCodec.decode:
                found = await codec._decode_single(found, chunk)
            else:
                [found] = await codec.decode([(found, chunk)])
        return np.asarray(found.as_numpy_array())

    async def encode(self, values: NDArray[Any]) -> Buffer:
        """The numbers of a chunk as zarr stores them; where the array ends within it, its first."""
        array = self.array
        if values.shape != array.chunks:
            whole = np.full(array.chunks, array.fill_value, array.dtype)
            whole[tuple(map(slice, values.shape))] = values
            values = whole
        found: Any = self.prototype.nd_buffer.from_numpy_array(values)
        for codec, chunk in self.steps:
            if type(codec).encode is BaseCodec.encode:
                found = await codec._encode_single(found, chunk)
            else:
                [found] = await codec.encode([(found, chunk)])
        return found


async def read(array: Any, region: Region) -> NDArray[Any]:
    """A region of an array, on the loop that runs."""
    return np.asarray(await array.async_array.getitem(region))


def described(store: Any, path: str, metadata: Any) -> Any:
    """The array of a store that has these metadata, without reading them there."""
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=StorePath(store, path)))


def filled_otherwise(array: Any, fill: Any) -> Any:
    """The same array, were its metadata to say that its fill value is another: of format 3."""
    scalar = array.metadata.data_type.to_json_scalar(fill, zarr_format=3)
    metadata = {**array.metadata.to_dict(), "fill_value": scalar}
    return described(array.store, array.path, metadata)


def uncompressed(array: Any) -> Any:
    """The same array, were its chunks stored without its compressors."""
    metadata: Any = array.metadata.to_dict()
    if array.metadata.zarr_format == 2:
        metadata = {**metadata, "compressor": None}
    else:
        metadata = {**metadata, "codecs": metadata["codecs"][: -len(array.compressors)]}
    return described(array.store, array.path, metadata)


def storing_all(array: Any) -> Any:
    """The same array, that writes chunks of nothing but the fill value, too."""
    return array.with_config({"write_empty_chunks": True})
