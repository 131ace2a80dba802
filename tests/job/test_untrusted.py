"""Stores that nobody vouches for: whatever they say, only documented errors come out."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored import Stored, files

from dasksolve import BlockErrors, SingularSystemError, check_zarr, solve_zarr
from dasksolve.cli import main

REFUSALS = (ValueError, TypeError, OSError, NotImplementedError)
"""What solve_zarr documents that it raises for its arguments."""
FUZZ = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBERS = st.one_of(
    st.integers(-2, 12), st.sampled_from([2**31, 2**40, 2**62, 2**63, 2**64, 10**30]), st.floats()
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON document something can be changed."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = [(*path, key) for key, _ in items]
    for key in [*found]:
        inner = tree[key[-1]]
        if isinstance(inner, dict | list):
            found += places(inner, key)
    return found


def changed(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A JSON document with something else in one place."""
    copy = json.loads(json.dumps(tree))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copy


@pytest.fixture
def tiny(store: Callable[..., Stored]) -> Stored:
    """Six systems in three chunks."""
    rng = np.random.default_rng(0)
    shapes = (2, 2, 2), (2, 2)
    return store(rng.standard_normal((6, 2, 2)), rng.standard_normal((6, 2)), *shapes)


@pytest.mark.parametrize("zarr_format", [2, 3])
@given(data=st.data())
@FUZZ
def test_metadata_of_an_input(tiny: Stored, zarr_format: int, data: st.DataObject) -> None:
    array = zarr.create_array(
        Path(tiny.a_path).parent / "changed",
        data=tiny.a,
        chunks=(2, 2, 2),
        zarr_format=zarr_format,
        overwrite=True,
    )
    document = Path(array.store_path.store.root, "zarr.json" if zarr_format == 3 else ".zarray")
    metadata = json.loads(document.read_text())
    place = data.draw(st.sampled_from(places(metadata)))
    document.write_text(json.dumps(changed(metadata, place, data.draw(VALUES))))
    for out in (tiny.out, tiny.out + "2"):
        shutil.rmtree(out, ignore_errors=True)
    with suppress(BlockErrors, *REFUSALS):
        solve_zarr(array.store_path.store.root, tiny.b_path, tiny.out, memory_limit="400MiB")


def go_on(tiny: Stored) -> list[str]:
    """Resume a job and check it; return what a refusal says, and let nothing but those pass."""
    refused = []
    for again in (
        lambda: solve_zarr(tiny.a_path, tiny.b_path, tiny.out, resume=True),
        lambda: check_zarr(tiny.a_path, tiny.b_path, tiny.out),
    ):
        try:
            again()
        except (ValueError, BlockErrors) as error:
            refused.append(str(error))
    return refused


@pytest.mark.slow
@given(data=st.data())
@settings(FUZZ, max_examples=100)
def test_journal(tiny: Stored, data: st.DataObject) -> None:
    shutil.rmtree(tiny.out, ignore_errors=True)
    solve_zarr(tiny.a_path, tiny.b_path, tiny.out)
    attributes = zarr.open_group(tiny.out, use_consolidated=False).attrs
    journal = json.loads(attributes["dasksolve"])
    place = data.draw(st.sampled_from(places(journal)))
    attributes["dasksolve"] = json.dumps(changed(journal, place, data.draw(VALUES)))
    for text in go_on(tiny):
        assert re.search(r"--overwrite|choose another output", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", [".", "x", "status"])
@given(data=st.data())
@settings(FUZZ, max_examples=100)
def test_metadata_of_an_output(tiny: Stored, name: str, data: st.DataObject) -> None:
    shutil.rmtree(tiny.out, ignore_errors=True)
    solve_zarr(tiny.a_path, tiny.b_path, tiny.out)
    document = Path(tiny.out, name, "zarr.json")
    metadata = json.loads(document.read_text())
    place = data.draw(st.sampled_from(places(metadata)))
    document.write_text(json.dumps(changed(metadata, place, data.draw(VALUES))))
    for text in go_on(tiny):
        assert re.search(r"--overwrite|choose another output|resume", text)


@pytest.mark.parametrize("attribute", ["[" * 100_000, "{}", '{"version": 1', "\ud800", "1e999"])
def test_a_journal_that_is_no_json(tiny: Stored, attribute: str) -> None:
    solve_zarr(tiny.a_path, tiny.b_path, tiny.out)
    document = Path(tiny.out, "zarr.json")
    metadata = json.loads(document.read_text())
    metadata["attributes"]["dasksolve"] = attribute
    document.write_text(json.dumps(metadata))
    assert len(go_on(tiny)) == 2


def test_an_array_that_leads_out_of_the_output_is_refused(tiny: Stored, tmp_path: Path) -> None:
    solve_zarr(tiny.a_path, tiny.b_path, tiny.out)
    elsewhere = tmp_path / "elsewhere"
    Path(tiny.out, "x").rename(elsewhere)
    Path(tiny.out, "x").symlink_to(elsewhere)
    Path(tiny.out, "status/c/0").unlink()
    before = files(elsewhere)
    assert ["leads to" in text for text in go_on(tiny)] == [True, True]
    assert files(elsewhere) == before
    solve_zarr(tiny.a_path, tiny.b_path, tiny.out, overwrite=True)
    assert files(elsewhere) == before
    assert not Path(tiny.out, "x").is_symlink()


@pytest.mark.parametrize("dtype", ["<f8", "|O"])
@pytest.mark.parametrize("place", ["compressor", "filters"])
def test_no_pickle_is_ever_loaded(tiny: Stored, tmp_path: Path, dtype: str, place: str) -> None:
    evil = tmp_path / "evil"
    zarr.create_array(evil, data=tiny.a, chunks=(2, 2, 2), zarr_format=2)
    codec = {"id": "pickle", "protocol": 5}
    metadata = json.loads((evil / ".zarray").read_text())
    metadata |= {"dtype": dtype, place: [codec] if place == "filters" else codec}
    (evil / ".zarray").write_text(json.dumps(metadata))
    for chunk in evil.glob("*.0.0"):
        chunk.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(OSError, match="a: cannot open"):
        solve_zarr(evil, tiny.b_path, tiny.out)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(next(evil.glob("*.0.0")).read_bytes())
    assert (tmp_path / "sprung").exists()


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


WORDS = ["--memory", "1GiB", "--workers", "2", "0", "--on-singular", "nan", "--json", "--quiet"]
WORDS += ["--resume", "--overwrite", "--no-strict", "--dry-run", "--assume-a", "gen", "--memory=1"]

OPTIONS = {
    "assume_a": st.one_of(VALUES, st.sampled_from(["gen", "pos"])),
    "lower": VALUES,
    "on_singular": st.one_of(VALUES, st.sampled_from(["nan", "raise", "lstsq"])),
    "diagnostics": VALUES,
    "memory_limit": st.one_of(VALUES, st.sampled_from(["1GiB", "-1", "1e3", "nan", "9" * 40])),
    "workers": VALUES,
    "resume": VALUES,
    "overwrite": VALUES,
    "strict": VALUES,
    "compressors": VALUES,
    "progress": VALUES,
}


@pytest.mark.parametrize("name", OPTIONS)
@given(data=st.data())
@settings(FUZZ, max_examples=12)
def test_options(tiny: Stored, name: str, data: st.DataObject) -> None:
    shutil.rmtree(tiny.out, ignore_errors=True)
    given = {"a": tiny.a_path, "b": tiny.b_path, "out": tiny.out, name: data.draw(OPTIONS[name])}
    with suppress(SingularSystemError, *REFUSALS):
        solve_zarr(**given)


@given(words=st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), max_size=8))
@settings(FUZZ, max_examples=40)
def test_words_of_the_command_line(
    tiny: Stored, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(tiny.out, ignore_errors=True)
    try:
        status = main(["solve", tiny.a_path, tiny.b_path, tiny.out, *words])
    except SystemExit as usage:
        status = int(usage.code or 0)
    errors = capsys.readouterr().err
    assert status in (0, 1, 2)
    assert "Traceback" not in errors
    assert status != 1 or errors.startswith("dasksolve: ")
