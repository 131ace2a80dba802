"""The one door to numba's inside: nothing goes past it, and what is gone is named."""

import ast
import re
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest
from numba.core.registry import cpu_target

import dasksolve
from dasksolve.kernels import calls
from dasksolve.kernels.language import backend

PACKAGE = Path(dasksolve.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
DOOR = Path(backend.__file__)
INSIDE = ("llvmlite", "numba.core", "numba.np")

# What `backend` hands on, and what is taken from it, with what it is for.
NAMES = {
    "AbstractTemplate": "operations: the types of what they return",
    "CPUDispatcher": "compiling kernels and their parts, whatever NUMBA_DISABLE_JIT says",
    "CompileResultCacheImpl": "the disk cache: what is kept of a kernel",
    "Compiler": "compiling parts without optimizing them twice",
    "FunctionCache": "the disk cache",
    "IndexDataCacheFile": "the disk cache: files with a digest",
    "JITCodeLibrary": "parts: code that only kernels call",
    "NumbaTypeError": "refusing arrays while a user's function is compiled",
    "as_dtype": "NumPy's dtype of an array that compiled code is given",
    "binding": "the processor, by LLVM's names",
    "cgutils": "emitting loops, branches, globals and calls of LLVM's intrinsics",
    "config": "the processor that numba is told to compile for, and NUMBA_DISABLE_JIT",
    "get_host_cpu_features": "the features of the processor, as numba has them",
    "global_compiler_lock": "compiling alone, and not while the process forks",
    "infer_global": "operations: known to numba by name",
    "initialize_llvm": "asking LLVM before numba has",
    "ir": "LLVM's types, constants and instructions",
    "rtsys": "loading a kernel without what compiles",
    "signature": "operations: the types of their arguments",
}
ATTRIBUTES = {
    "backend.binding": {
        "Target.from_default_triple": "the machine, to ask which vectors it has",
        "get_host_cpu_features": "the width of a vector",
        "get_host_cpu_name": "the processor",
        "parse_assembly": "the machine, to ask which vectors it has",
    },
    "backend.cgutils": {
        "add_global_variable": "the table of kernels' addresses",
        "alloca_once_value": "variables of emitted loops",
        "create_struct_proxy": "arrays and tiles",
        "for_range_slice": "loops",
        "get_or_insert_function": "LLVM's intrinsics",
        "if_likely": "asking Python",
        "if_unlikely": "asking Python",
        "is_not_null": "asking Python",
        "is_null": "asking Python",
        "unpack_tuple": "the shape of an array",
    },
    "numba.core.config": {
        "CPU_FEATURES": "the processor that is compiled for",
        "CPU_NAME": "the processor that is compiled for",
        "DISABLE_JIT": "compiling all the same",
        "ENABLE_AVX": "the width of a vector",
    },
    "numba.core.pythonapi.PythonAPI": dict.fromkeys(
        (
            "call_method",
            "decref",
            "err_occurred",
            "err_write_unraisable",
            "get_null_object",
            "gil_ensure",
            "gil_release",
            "import_module",
            "long_as_longlong",
            "long_from_longlong",
        ),
        "asking Python for a kernel, from compiled code",
    ),
    "numba.core.base.BaseContext": {
        "get_dummy_value": "operations that return nothing",
        "get_python_api": "asking Python",
        "insert_const_string": "asking Python",
        "make_array": "arrays",
        "make_tuple": "operations that return several values",
    },
    "numba.core.cpu.CPUContext": {
        "call_conv": "calling a kernel at its address",
        "codegen": "where compiled code is kept",
        "enable_nrt": "tiles that hold their buffer",
        "nrt": "tiles that hold their buffer",
    },
    "numba.core.callconv.CPUCallConv": {
        "call_function": "calling a kernel at its address",
        "get_function_type": "calling a kernel at its address",
    },
    "numba.core.runtime.context.NRTContext": {"incref": "tiles that hold their buffer"},
    "backend.Compiler": {"_compile_bytecode": "parts: a library of their own"},
    "backend.CPUDispatcher": {
        "compile": "compiling a kernel when it is needed",
        "disable_compile": "one kernel for what can and what cannot be written to",
        "get_call_template": "parts: compiled once for all constants",
    },
    "backend.CompileResultCacheImpl": {"reduce": "the disk cache: what is kept of a kernel"},
    "backend.FunctionCache": {
        "_index_key": "the disk cache: forgets when a kernel changes",
        "_load_overload": "the disk cache: loads without what compiles",
        "cache_path": "whether there is a disk cache",
        "flush": "the disk cache: begun anew where it is damaged",
        "load_overload": "the disk cache",
        "save_overload": "the disk cache",
    },
    "backend.IndexDataCacheFile": dict.fromkeys(
        (
            "_data_path",
            "_dump",
            "_load_data",
            "_load_index",
            "_open_for_write",
            "_save_data",
            "_save_index",
        ),
        "the disk cache: files with a digest",
    ),
    "backend.JITCodeLibrary": dict.fromkeys(
        (
            "_ensure_finalized",
            "_finalize_final_module",
            "_optimize_final_module",
            "codegen",
            "enable_object_caching",
            "get_pointer_to_function",
        ),
        "parts: code that only kernels call",
    ),
}


def imported(path):
    """The modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_goes_past_the_door(path):
    past = [
        module
        for module in imported(path)
        if any(module == name or module.startswith(f"{name}.") for name in INSIDE)
    ]
    assert path == DOOR or not past, f"import it from {backend.__name__} instead"


def test_every_name_that_comes_through_is_listed_here():
    assert sorted(backend.__all__) == sorted(NAMES)
    text = "\n".join(path.read_text() for path in SOURCES)
    for module in ("cgutils", "binding"):
        used = set(re.findall(rf"\b{module}\.(\w+)", text))
        assert used == {name.split(".")[0] for name in ATTRIBUTES[f"backend.{module}"]}


def found(place):
    if place.startswith("backend."):
        return getattr(backend, place.removeprefix("backend."))
    module, name = place.rsplit(".", 1)
    return getattr(import_module(module), name)


@pytest.mark.parametrize(
    ("place", "name", "purpose"),
    [
        pytest.param(place, name, purpose, id=f"{place}.{name}")
        for place, names in ATTRIBUTES.items()
        for name, purpose in names.items()
    ],
)
def test_what_is_taken_from_inside_is_still_there(place, name, purpose):
    value = found(place)
    for part in name.split("."):
        value = getattr(value, part, None)
        assert value is not None or part in vars(found(place)), (
            f"numba has no {place}.{name} any more, which is for: {purpose}"
        )


OBJECTS = {
    "cache": ("_cache_path", "_impl", "_impl.filename_base", "_impl.locator.get_source_stamp"),
    "file": ("_index_path", "_source_stamp", "_version"),
    "library": ("_final_module.functions", "_finalized"),
}
"""What only an object has of what `compiling/jit` takes: how a kernel is kept and compiled."""


@pytest.mark.parametrize(
    ("thing", "name"), [(thing, name) for thing, names in OBJECTS.items() for name in names]
)
def test_what_is_taken_from_an_object_is_still_there(thing, name, tmp_path):
    made = {
        "cache": lambda: backend.FunctionCache(calls.address),
        "file": lambda: backend.IndexDataCacheFile(str(tmp_path), "kernel", source_stamp=1),
        "library": lambda: cpu_target.target_context.codegen().create_library("kernel"),
    }
    try:
        attrgetter(name)(made[thing]())
    except AttributeError as error:
        raise AssertionError(f"numba has no {name} of a {thing} any more: mend jit.py") from error
