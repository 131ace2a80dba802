"""Imports point down, from what people touch to the kernels, and never in a circle."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

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
