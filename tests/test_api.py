"""The one door: what it promises to a reader of its documentation."""

import inspect
from dataclasses import fields

import pytest

import dasksolve
from dasksolve import cli, labelled
from dasksolve.batch.options import Options


def test_policy_is_given_by_name_and_arrays_by_place():
    kinds = {p.name: p.kind for p in inspect.signature(dasksolve.solve).parameters.values()}
    by_name = inspect.Parameter.KEYWORD_ONLY
    assert [name for name, kind in kinds.items() if kind is not by_name] == ["a", "b"]


DOORS = {
    "solve": dasksolve.solve,
    "solve_ex": dasksolve.solve_ex,
    "solve_tridiagonal": dasksolve.solve_tridiagonal,
    "factor": dasksolve.factor,
    "solve_zarr": dasksolve.solve_zarr,
    "labelled.solve": labelled.solve,
    "labelled.solve_ex": labelled.solve_ex,
}
EVERY = {field.name: field.default for field in fields(Options)}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_has_the_defaults_of_the_options(door):
    # What exists to look at systems that fail does not raise for the first of them.
    own = {"on_singular": "nan"} if "_ex" in door or "zarr" in door else {}
    parameters = inspect.signature(DOORS[door]).parameters
    given = {name: p.default for name, p in parameters.items() if name in EVERY}
    if door == "solve_tridiagonal":  # a diagonal there
        del given["lower"]
    assert given == {name: (EVERY | own)[name] for name in given}
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in given)


@pytest.mark.parametrize(
    ("door", "without"),
    [
        ("solve", {"diagnostics", "refine"}),
        ("solve_ex", {"diagnostics"}),
        ("solve_zarr", set()),
        ("labelled.solve", {"diagnostics", "refine"}),
        ("labelled.solve_ex", {"diagnostics"}),
    ],
)
def test_every_door_takes_all_options(door, without):
    assert set(EVERY) - set(inspect.signature(DOORS[door]).parameters) == without


def test_the_command_line_takes_all_options():
    words = vars(cli.parser().parse_args(["solve", "a", "b", "out"]))
    assert {name: words[name] for name in EVERY} == EVERY | {"on_singular": "nan"}
