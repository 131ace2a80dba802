"""What `help()` says: every public name is documented, and every example in it runs."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import dasksolve
from dasksolve import labelled, nopython
from dasksolve.command import arguments
from dasksolve.job import page

MODULES = [
    info.name
    for info in pkgutil.walk_packages(dasksolve.__path__, "dasksolve.")
    if not info.name.endswith("__main__")
]
PUBLIC = {name: getattr(dasksolve, name) for name in dasksolve.__all__ if name[0] != "_"}
FUNCTIONS = [value for value in PUBLIC.values() if inspect.isfunction(value)]
FUNCTIONS += [labelled.solve, labelled.solve_ex, nopython.solve, nopython.solve_into]
FUNCTIONS += [nopython.lstsq_into, labelled.regress, labelled.polyfit, page.page]
RECORDS = [dasksolve.Report, dasksolve.Solution, dasksolve.Status, dasksolve.Factorization]
RECORDS += [dasksolve.Regression, dasksolve.LeastSquares]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n == nopython.__name__ else []) for n in MODULES],
)
def test_the_examples_of_a_module_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_a_function_says_what_it_takes_returns_and_raises(function):
    text = inspect.getdoc(function)
    sections = re.findall(r"^(\w[\w ]*)\n-+$", text, re.M)
    returns = ["Returns"] if inspect.signature(function).return_annotation is not None else []
    order = ["Parameters", *returns, "Raises", "Examples"]
    assert [section for section in sections if section in order] == order
    parameters = re.split(r"^\w[\w ]*\n-+\n", text, flags=re.M)[1]
    named = re.findall(r"^(\w[\w, ]*)(?: :|$)", parameters, re.M)
    named = [name for line in named for name in line.split(", ")]
    assert sorted(named) == sorted(inspect.signature(function).parameters)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_record_says_what_its_fields_are(record):
    if dataclasses.is_dataclass(record):
        fields = [field.name for field in dataclasses.fields(record)]
    else:
        fields = list(getattr(record, "_fields", None) or record.__members__)
    attributes = inspect.getdoc(record).split("Attributes\n")[1]
    assert re.findall(r"^(\w+) : ", attributes, re.M) == fields


def test_every_public_name_and_method_has_a_docstring():
    for name, value in PUBLIC.items():
        assert inspect.getdoc(value), name
        for member, method in inspect.getmembers(value, inspect.isfunction):
            own = method.__module__.startswith("dasksolve") and member[0] != "_"
            assert not own or inspect.getdoc(method), f"{name}.{member}"


def commands():
    """The help of the command line and of each of its commands."""
    top = arguments.parser()
    [choices] = [a.choices for a in top._actions if isinstance(a.choices, dict)]
    return {"": top, **choices}


@pytest.mark.parametrize("name", commands())
def test_help_fits_a_terminal_of_80_columns(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    parser = commands()[name]
    text = parser.format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert all(action.help for action in parser._actions if not isinstance(action.choices, dict))
