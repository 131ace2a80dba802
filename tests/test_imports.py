"""Imports point down, from what people touch to the kernels, and never in a circle."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dasksolve

PACKAGE = Path(dasksolve.__file__).parent
FLOORS = [
    {"errors", "solution", "status"},  # the words that every floor speaks in
    {"kernels"},
    {"storage"},
    {"batch"},
    {"job"},
    {"__init__", "api", "labelled", "nopython"},
    {"command"},
    {"__main__", "cli"},
]
"""Wings, and modules of the top level: the lowest first."""
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that one of them imports, but for the sake of types."""
    tree = ast.parse(path.read_text())
    typing = [node for node in tree.body if isinstance(node, ast.If)]
    for node in {*ast.walk(tree)} - {node for block in typing for node in ast.walk(block)}:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, inner = name.partition(".")
            if top == "dasksolve":
                package = inner.rpartition(".")[0]
                tried = (inner, f"{inner}.__init__", package, f"{package}.__init__", "__init__")
                yield next(module for module in tried if module in MODULES)


DOCUMENTED = {"_asdict", "_exit", "_fields", "_getframe", "_getvalue", "_make", "_replace"}
"""Public for all their underscore: of named tuples, of the system, and of numba's structures."""
PRIVATE = {
    "batch.internals": {"_meta"},
    "kernels.compiling.jit": {
        *("_cache_path", "_data_path", "_dump", "_ensure_finalized", "_final_module", "_impl"),
        *("_index_path", "_load_overload", "_open_for_write", "_source_stamp", "_version"),
    },
    "storage.buffers": {"_set_running_loop"},
    "storage.internals": {"_decode_single", "_encode_single", "_rm_file", "_store"},
}
"""What modules use that a library keeps to itself, each of which a test of theirs looks for."""
INSIDE = {"batch.internals": r"dask\.(array\.core|layers)", "storage.internals": r"zarr\.core"}
"""Modules of libraries, likewise, besides numba's: see `kernels/language/backend`."""


def private(path: Path) -> Iterator[str]:
    """The names that begin with _ and are used of something, but not made, in a module."""
    made, used = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            made.add(node.id)
        elif isinstance(node, ast.Attribute):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.attr)
    return (name for name in used - made if name.startswith("_") and not name.endswith("__"))


GRAPH = {module: {*imported(path)} - {module} for module, path in MODULES.items()}


def floor(module: str) -> int:
    """Where a module is: the number of its floor."""
    if module == "command.interrupt":  # which imports nothing, so that it can come first
        return 0
    return next(i for i, wings in enumerate(FLOORS) if module.partition(".")[0] in wings)


def test_imports_point_down() -> None:
    assert not [(a, b) for a, found in GRAPH.items() for b in found if floor(b) > floor(a)]


def test_imports_form_no_circle() -> None:
    assert len([*TopologicalSorter(GRAPH).static_order()]) == len(MODULES)


def test_what_libraries_keep_to_themselves_stands_behind_one_door_each() -> None:
    found = {module: {*private(path)} - DOCUMENTED for module, path in MODULES.items()}
    assert {module: names for module, names in found.items() if names} == PRIVATE


@pytest.mark.parametrize(("door", "inside"), INSIDE.items())
def test_modules_that_libraries_keep_to_themselves_are_imported_there_alone(
    door: str, inside: str
) -> None:
    pattern = re.compile(rf"^ *(from|import) {inside}\b", re.MULTILINE)
    assert [m for m, path in MODULES.items() if pattern.search(path.read_text())] == [door]


def test_numpy_arrays_are_solved_without_importing_what_they_do_not_need() -> None:
    program = """
import sys
import numpy as np
import dasksolve

a = np.array([[[2.0, 1.0], [1.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]]])
dasksolve.solve_ex(a, np.ones(2))
dasksolve.inv(a, on_singular="nan")
dasksolve.factor(a).solve(np.ones(2))
dasksolve.lstsq(a, np.ones(2), on_deficient="lstsq")
dasksolve.regress(np.ones((5, 2)), np.ones((5, 1)))
dasksolve.solve_tridiagonal(*np.ones((3, 2)), np.ones(2), on_singular="lstsq")
assert {*dasksolve.__all__} <= {*dir(dasksolve)}
try:
    dasksolve.solve(a, np.ones(2))
except dasksolve.SingularSystemError:
    print(*{"dask.array", "distributed", "matplotlib", "pandas", "xarray"} & {*sys.modules})
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("\n", "")


def test_who_asks_for_help_does_not_wait_for_what_jobs_need() -> None:
    program = """
import sys
from dasksolve import cli

try:
    cli.main(["--help"])
except SystemExit:
    print(*{"dask.array", "distributed", "pandas", "xarray"} & {*sys.modules}, "end")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout.splitlines()[-1], run.stderr) == ("end", "")


def test_a_job_need_not_import_what_graphs_are_made_of() -> None:
    program = """
import sys
import dasksolve

dasksolve.solve_zarr
assert "dask.array" in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    "name", ["*", "Report", pytest.param("check_zarr", marks=pytest.mark.slow)]
)
def test_what_the_package_offers_is_there(name: str) -> None:
    program = (
        f"from dasksolve import {name}\n"
        "import dasksolve\n"
        f"for name in dasksolve.__all__ if {name!r} == '*' else [{name!r}]:\n"
        "    assert globals()[name] is getattr(dasksolve, name)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_what_it_does_not_offer_is_not() -> None:
    with pytest.raises(AttributeError, match="module 'dasksolve' has no attribute 'solve_zar'"):
        dasksolve.solve_zar  # noqa: B018
