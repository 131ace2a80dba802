"""The one door: what it promises to a reader of its documentation."""

import inspect

import pytest

import dasksolve
from dasksolve.batch import eager, lazy


def test_policy_is_given_by_name_and_arrays_by_place():
    kinds = {p.name: p.kind for p in inspect.signature(dasksolve.solve).parameters.values()}
    by_name = inspect.Parameter.KEYWORD_ONLY
    assert [name for name, kind in kinds.items() if kind is not by_name] == ["a", "b"]


@pytest.mark.parametrize("inner", [eager.solve, lazy.solve], ids=["NumPy", "dask"])
def test_both_roads_have_the_defaults_of_the_door(inner):
    door = inspect.signature(dasksolve.solve).parameters
    for name, parameter in inspect.signature(inner).parameters.items():
        assert parameter.default == door[name].default
