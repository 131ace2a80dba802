"""A job whose store is gone from some request on: resumed, overwritten, it is as if undisturbed."""

from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore, WrapperStore

from dasksolve import BlockErrors, solve_zarr

Contents = dict[str, Any]
"""Of a store."""
ARRAYS = ("x", "status", "rcond", "backward_error")


class GoneError(OSError):
    """What a store that is gone says."""


class Mortal(WrapperStore):
    """A store that is gone before so many changes of it, for every request from then on."""

    def __init__(self, store: Any, left: int) -> None:
        super().__init__(store)
        self.left = left

    def ask(self, changes: bool = True) -> None:
        self.left -= changes
        if self.left < 0:
            raise GoneError

    async def set(self, *arguments: Any, **options: Any) -> None:
        self.ask()
        await super().set(*arguments, **options)

    async def delete(self, key: str) -> None:
        self.ask()
        await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        self.ask()
        await super().delete_dir(prefix)

    async def get(self, *arguments: Any, **options: Any) -> Any:
        self.ask(changes=False)
        return await super().get(*arguments, **options)

    async def exists(self, key: str) -> bool:
        self.ask(changes=False)
        return await super().exists(key)


def inputs(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    group = zarr.create_group(MemoryStore())
    return tuple(
        group.create_array(name, data=rng.standard_normal(shape), chunks=(2, *shape[1:]))
        for name, shape in (("a", (6, 3, 3)), ("b", (6, 3)))
    )


def solved(pair: Any, store: Any, **how: bool) -> None:
    solve_zarr(*pair, store, workers=1, diagnostics=True, **how)


def held(contents: Contents) -> dict[str, bytes]:
    group = zarr.open_group(MemoryStore(contents), mode="r")
    return {name: group[name][...].tobytes() for name in ARRAYS}


def killed(pair: Any, contents: Contents, changes: int, **how: bool) -> bool:
    """Whether a job came to its end before so many changes."""
    try:
        solved(pair, Mortal(MemoryStore(contents), changes), **how)
    except (GoneError, BlockErrors, OSError):
        return False
    return True


@pytest.fixture(autouse=True)
def blocks_of_one_chunk(many_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dasksolve.storage.marks.LOOK_EVERY", 0.0)  # nobody else writes


def begun(which: str, old: Any, new: Any) -> Contents:
    """What is there when the job begins that is to be stopped."""
    contents: Contents = {}
    if which == "overwrite":
        solved(old, MemoryStore(contents))
    elif which == "resume":
        assert not killed(new, contents, 10)
    return contents


@pytest.mark.parametrize(
    ("which", "step"),
    [
        ("overwrite", 5),
        *(pytest.param(which, 1, marks=pytest.mark.slow) for which in ("first", "resume")),
        pytest.param("overwrite", 1, marks=pytest.mark.slow),
    ],
)
def test_a_job_whose_store_is_gone_at_any_request_is_resumed_and_overwritten(
    which: str, step: int
) -> None:
    old, new = inputs(0), inputs(1)
    undisturbed: Contents = {}
    solved(new, MemoryStore(undisturbed))
    expected, start = held(undisturbed), begun(which, old, new)
    how = {} if which == "first" else {which: True}
    changes, ended = 0, False
    while not ended:
        left = dict(start)
        ended = killed(new, left, changes, **how)
        for then in ("resume", "overwrite"):
            found = dict(left)
            solved(new, MemoryStore(found), **{then: True})
            # An overwriting job that has changed nothing yet leaves the old output whole.
            untouched = which == "overwrite" and then == "resume" and same(left, start)
            assert held(found) == (held(start) if untouched else expected), (changes, then)
        changes += step
    assert changes > 10


def same(one: Contents, other: Contents) -> bool:
    """Whether two stores hold the same, save for a job's mark."""
    keys = {key for key in one.keys() | other.keys() if not key.endswith(".partial")}
    return all(
        key in one and key in other and one[key].to_bytes() == other[key].to_bytes() for key in keys
    )
