"""The one compile policy: serial, without the GIL, never raising, cached on disk where possible."""

import gc
import hashlib
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba import types

from dasksolve.errors import PerformanceWarning
from dasksolve.kernels.language.backend import (
    Compiler,
    CompileResultCacheImpl,
    CPUDispatcher,
    FunctionCache,
    IndexDataCacheFile,
    JITCodeLibrary,
    global_compiler_lock,
    rtsys,
)
from dasksolve.kernels.language.target import FMA, VECTOR_BYTES, config

logger = logging.getLogger(__name__)

NO_CACHE = (
    "numba finds no folder for its cache that it may write to, so that every process compiles its "
    "kernels anew, 1 to 8 s each: name one in the environment variable NUMBA_CACHE_DIR"
)
"""What is told where that is so."""

# What is not said here numba takes from the function that calls, if that is being compiled: with
# the fastmath of a user's own a kernel knew no NaN, and was cached so for everybody.
_OPTIONS: Any = {
    "nogil": True,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,
    "fastmath": False,
    "forceinline": False,
}
_DIGEST = hashlib.sha256().digest_size
_HOLDER: Any = {**_OPTIONS, "nopython": True, "no_cpython_wrapper": True, "_nrt": True}
_PART: Any = {**_HOLDER, "_nrt": False}


@cache
def _sources() -> str:
    """A digest of all kernels: numba itself looks at the file of the function alone."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Stored(CompileResultCacheImpl):
    """What is kept of a kernel: not the environments of the functions that went into it.

    Only exceptions with values need them, and to load them imports half of numba: 0.1 s.
    """

    def reduce(self, result: Any) -> Any:
        *kept, _ = super().reduce(result)
        return *kept, ()


class _Sealed(IndexDataCacheFile):
    """Files that begin with a digest of the rest, lest a bit that flipped be run as machine code.

    What has no right digest counts as not there, and is compiled and written anew.
    """

    def _load_index(self) -> Any:
        try:
            version, stamp, overloads = self._opened(self._index_path)
        except (OSError, ValueError):
            return {}
        return overloads if (version, stamp) == (self._version, self._source_stamp) else {}

    def save(self, key: Any, data: Any) -> None:
        """Save with the key: processes that save at once may have given two kernels one name."""
        super().save(key, (key, data))

    def load(self, key: Any) -> Any:
        """What was saved with the key."""
        saved, data = super().load(key) or (None, None)
        return data if saved == key else None

    def _save_index(self, overloads: Any) -> None:
        self._seal(self._index_path, (self._version, self._source_stamp, overloads))

    def _load_data(self, name: str) -> Any:
        return self._opened(self._data_path(name))

    def _save_data(self, name: str, data: Any) -> None:
        self._seal(self._data_path(name), data)

    def is_whole(self, name: str) -> bool:
        """Whether what an entry of the index names can be loaded."""
        with suppress(Exception):
            self._load_data(name)
            return True
        return False

    def _opened(self, path: str) -> Any:
        content = Path(path).read_bytes()
        digest, data = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(data).digest() != digest:
            raise ValueError(f"{path} is damaged")
        return pickle.loads(data)

    def _seal(self, path: str, content: Any) -> None:
        data = self._dump(content)
        with self._open_for_write(path) as file:
            file.write(hashlib.sha256(data).digest() + data)


class _Cache(FunctionCache):
    """A cache that forgets when any kernel changed, and that is never the reason to fail."""

    _impl_class = _Stored

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._name = getattr(function, "unique_name", "")
        self._cache_file: Any = _Sealed(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        if self._name:
            return (signature, codegen.magic_tuple(), self._name, _sources(), VECTOR_BYTES)
        return (*super()._index_key(signature, codegen), _sources(), VECTOR_BYTES)

    def holds(self, signature: Any, target_context: Any) -> bool:
        """Whether it is worth loading."""
        with suppress(Exception):
            key = self._index_key(signature, target_context.codegen())
            name = self._cache_file._load_index().get(key)
            return name is not None and self._cache_file.is_whole(name)
        return False

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        with suppress(Exception):  # a crash may leave an index that ends early
            # Of what numba sets up to compile, in 0.2 s, finished code needs its runtime alone.
            rtsys.initialize(target_context)
            return self._load_overload(signature, target_context)
        return None

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        except Exception:  # a full disk; or that index, which is begun anew
            with suppress(OSError):
                self.flush()


class _PartLibrary(JITCodeLibrary):
    """The code of a function that only kernels call: they optimize and compile it, once.

    Numba would do both for each function that calls others, again and again, and for the machine:
    a kernel took twice the time and the memory to compile.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        return self

    def set_env(self, name: str, env: Any) -> None:
        """Leave out what only exceptions use: there is no machine code to tell it to."""


class _KernelLibrary(JITCodeLibrary):
    """The code of a kernel, whose parts are its own.

    Numba numbers functions as a process compiles them, and machine code that is loaded takes a part
    of that name and number from what was loaded before: another, if another process compiled it.
    """

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and "external" not in function.linkage.name:
                function.linkage = "internal"
        super()._optimize_final_module()


class _KernelCompiler(Compiler):
    """Numba's own compiler, for kernels."""

    _library: Any = _KernelLibrary

    def _compile_bytecode(self) -> Any:
        state = self.state
        state.library = self._library(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return super()._compile_bytecode()


class _PartCompiler(_KernelCompiler):
    """The same, for parts."""

    _library = _PartLibrary


class _Part(CPUDispatcher):
    """A part is compiled once, not again for every constant that is passed to it."""

    def get_call_template(self, args: Any, kws: Any) -> Any:
        return super().get_call_template(tuple(map(types.unliteral, args)), kws)


def part(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call: it is cached as a part of them.

    It counts no references, which would take a tenth of the time of small tiles; hence it can
    neither return nor allocate an array or a tile.
    """
    return _Part(function, targetoptions=_PART, pipeline_class=_PartCompiler)


def holder(function: Callable[..., Any]) -> Any:
    """Compile a part that may."""
    return _Part(function, targetoptions=_HOLDER, pipeline_class=_PartCompiler)


def named(function: Any, name: str) -> Any:
    """Give a kernel a unique name, to be cached by: numba cannot tell parts in its closure."""
    regime = function.__module__.rpartition(".")[2]
    function.__qualname__ = function.unique_name = f"{regime}.{name}"
    return function


def jit(function: Callable[..., Any]) -> Any:
    """Compile a kernel when it is first needed, unless an earlier process did."""
    options = {**_OPTIONS, "nopython": True}
    dispatcher: Any = CPUDispatcher(function, targetoptions=options, pipeline_class=_KernelCompiler)
    try:
        dispatcher._cache = _Cache(function)
    except RuntimeError:  # numba found no place that it may write to
        _tell_of_no_cache()
    return dispatcher


@cache
def _tell_of_no_cache() -> None:
    logger.warning(NO_CACHE)


@cache
def warn_without_fma() -> None:
    """Say once that the processor makes kernels slow, and their last bits others."""
    if not FMA:
        warnings.warn(
            "the processor that numba compiles for has no fused multiply-add: x has other last "
            "bits than on those that have, and is slower to get. If this one has it, unset "
            "NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, or name one that has, such as "
            "NUMBA_CPU_NAME=x86-64-v3",
            PerformanceWarning,
            stacklevel=4,
        )


@contextmanager
def compilation() -> Iterator[None]:
    """Within: compile, alone, and even where NUMBA_DISABLE_JIT leaves functions to Python.

    What kernels are made of is no Python: they run compiled beside a user's functions that do not.
    """
    with collecting_only_new(), global_compiler_lock:
        disabled, config.DISABLE_JIT = config.DISABLE_JIT, 0
        try:
            yield
        finally:
            config.DISABLE_JIT = disabled


@contextmanager
def collecting_only_new() -> Iterator[None]:
    """Within: let the garbage collector pass over what is there already, most of it modules.

    Compiling makes it look at all of that again and again: for a tenth of the time.
    """
    if gc.get_freeze_count():  # somebody else has thought of it
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@cache
def has_cache() -> bool:
    """Whether kernels are cached on disk: not where numba finds no place that it may write to."""
    with suppress(RuntimeError):
        return bool(_Cache(part).cache_path)
    return False


def is_cached(dispatcher: Any, signature: Any) -> bool:
    """Whether an earlier process compiled a kernel for these types."""
    return has_cache() and dispatcher._cache.holds(signature, dispatcher.targetctx)
