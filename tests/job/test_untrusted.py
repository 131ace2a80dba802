"""Stores that nobody vouches for: whatever they say, only documented errors come out."""

import functools
import gc
import http.server
import json
import os
import pickle
import re
import shutil
import threading
from collections.abc import Callable, Iterator
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
from dasksolve.batch.options import Options
from dasksolve.cli import main
from dasksolve.job.systems import Systems
from dasksolve.storage import secrets

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


needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")


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
def test_any_metadata_of_an_input_are_solved_or_refused(
    tiny: Stored, zarr_format: int, data: st.DataObject
) -> None:
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
@pytest.mark.filterwarnings("ignore:.* was written with another arithmetic")
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


@pytest.mark.parametrize(
    ("members", "refused"), [([""], 0), (["", "status"], 2)], ids=["group", "group and status"]
)
@pytest.mark.parametrize("attribute", ["[" * 100_000, "{}", '{"version": 1', "\ud800", "1e999"])
def test_a_journal_that_is_no_json(
    tiny: Stored, attribute: str, members: list[str], refused: int
) -> None:
    solve_zarr(tiny.a_path, tiny.b_path, tiny.out)
    for member in members:
        document = Path(tiny.out, member, "zarr.json")
        metadata = json.loads(document.read_text())
        metadata["attributes"]["dasksolve"] = attribute
        document.write_text(json.dumps(metadata))
    assert len(go_on(tiny)) == refused


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


@needs_pipes
@pytest.mark.parametrize("sharded", [False, True], ids=["chunk", "shard"])
def test_a_pipe_in_the_place_of_a_chunk_is_waited_for_by_nobody(
    tiny: Stored, tmp_path: Path, sharded: bool
) -> None:
    shards = (4, 2, 2) if sharded else None
    a = zarr.create_array(tmp_path / "a", data=tiny.a, chunks=(2, 2, 2), shards=shards)
    chunk = Path(a.store.root, "c/1/0/0")
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(BlockErrors, match=r"c/1/0/0 is not a file"):
        solve_zarr(a, tiny.b_path, tiny.out)


@needs_pipes
def test_a_pipe_in_the_place_of_metadata(tiny: Stored) -> None:
    document = Path(tiny.a_path, "zarr.json")
    document.unlink()
    os.mkfifo(document)
    with pytest.raises(OSError, match=r"a: cannot open .*zarr\.json is not a file"):
        solve_zarr(tiny.a_path, tiny.b_path, tiny.out)


@needs_pipes
@pytest.mark.parametrize("member", ["", "status", "x"])
def test_a_pipe_in_the_place_of_metadata_of_an_output(tiny: Stored, member: str) -> None:
    solve_zarr(tiny.a_path, tiny.b_path, tiny.out)
    document = Path(tiny.out, member, "zarr.json")
    document.unlink()
    os.mkfifo(document)
    again = (functools.partial(solve_zarr, **{how: True}) for how in ("resume", "overwrite"))
    for job in (check_zarr, *again):
        with pytest.raises(OSError, match=r"zarr\.json is not a file"):
            job(tiny.a_path, tiny.b_path, tiny.out)


@needs_pipes
def test_a_pipe_in_the_place_of_metadata_around_an_output(tiny: Stored, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "zarr.json")
    assert solve_zarr(tiny.a_path, tiny.b_path, tmp_path / "out").blocks_done


def test_a_file_that_is_far_larger_than_a_chunk_is_not_read(tiny: Stored) -> None:
    with Path(tiny.a_path, "c/1/0/0").open("r+b") as chunk:
        chunk.truncate(1 << 40)  # a hole: no disk is filled
    with pytest.raises(BlockErrors, match=r"has 1,099,511,627,776 bytes, where a chunk has"):
        solve_zarr(tiny.a_path, tiny.b_path, tiny.out)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_codec_that_is_not_installed(tiny: Stored, tmp_path: Path, zarr_format: int) -> None:
    zarr.create_array(tmp_path / "a", data=tiny.a, zarr_format=zarr_format)
    document = tmp_path / "a" / (".zarray" if zarr_format == 2 else "zarr.json")
    metadata = json.loads(document.read_text())
    if zarr_format == 2:
        metadata["compressor"] = {"id": "of_my_lab"}
    else:
        metadata["codecs"].append({"name": "of_my_lab", "configuration": {}})
    document.write_text(json.dumps(metadata))
    with pytest.raises(OSError, match=r"a: cannot open .*of_my_lab"):
        solve_zarr(tmp_path / "a", tiny.b_path, tiny.out)


def test_a_damaged_shard_is_told_in_its_error_alone(
    tiny: Stored, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a = zarr.create_array(
        tmp_path / "a", data=np.tile(tiny.a, (20, 1, 1)), chunks=(2, 2, 2), shards=(60, 2, 2)
    )
    b = zarr.create_array(tmp_path / "b", data=np.tile(tiny.b, (20, 1)), chunks=(120, 2))
    shard = Path(a.store.root, "c/0/0/0")
    shard.write_bytes(shard.read_bytes()[:-9] + bytes(9))
    gc.collect()  # what others have left
    caplog.clear()
    with pytest.raises(BlockErrors, match=r"cannot read shard c/0/0/0"):
        solve_zarr(a, b, tiny.out)
    gc.collect()  # what asyncio has to say of a task, it says when that is deleted
    assert not [record for record in caplog.records if record.name == "asyncio"]


SECRET = "S3CRET"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, whatever the query string."""

    def send_head(self) -> Any:
        self.path = self.path.split("?")[0]
        return super().send_head()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where the test's folder is served, on the loopback."""
    handler = functools.partial(Handler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://user:{SECRET}@127.0.0.1:{server.server_port}/data.zarr"
        server.shutdown()
        thread.join()


def test_no_password_is_kept_or_shown(
    tiny: Stored,
    address: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "dasksolve")
    words = [f"{address}/a", f"{address}/b", tiny.out]
    assert main(["solve", *words]) == 0
    assert main(["check", *words]) == 0
    assert main(["report", tiny.out, "--html", str(tmp_path / "page.html")]) == 0
    assert main(["solve", words[0], tiny.b_path, tiny.out, "--resume", "--debug"]) == 1
    assert main(["solve", f"{address}/none", *words[1:], "--debug"]) == 1
    assert main(["solve", *words[:2], f"{address}/out", "--debug"]) == 1
    Path(tiny.a_path, "c/0/0/0").write_bytes(b"x")
    assert main(["solve", *words[:2], tiny.out + "2"]) == 1
    shown = capfd.readouterr()
    assert "http://***@127.0.0.1" in shown.out
    assert "http://***@127.0.0.1" in shown.err
    assert SECRET not in shown.out + shown.err + caplog.text
    assert SECRET not in repr(Systems.open(*words[:2], Options()))
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert SECRET.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:SECRET@bucket/a", "s3://***@bucket/a"),
        ("https://SECRET@host/a?sig=SECRET&x=1", "https://***@host/a?***"),
        ("cannot open 'http://u:SE@CRET@host/a', for", "cannot open 'http://***@host/a', for"),
        ("simplecache::https://u:SECRET@h/a?b=SECRET, c", "simplecache::https://***@h/a?***, c"),
        ("/data/a@b?c", "/data/a@b?c"),
        ("s3a://key:SECRET@bucket/a?b/c", "s3a://***@bucket/a?b/c"),
        ("simplecache::gs://bucket/a?b", "simplecache::gs://bucket/a?b"),
        ("why? a://b/c@d", "why? a://b/c@d"),
    ],
)
def test_what_is_shown_of_a_url(text: str, shown: str) -> None:
    assert secrets.shown(text) == shown


EVIL = "/data/a\x1b]0;owned\x07\x1b[8m\nok   999\u202e"


def test_nothing_in_an_output_reaches_the_terminal_raw(
    tiny: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    solve_zarr(tiny.a_path, tiny.b_path, tiny.out)
    attributes = zarr.open_group(tiny.out, use_consolidated=False).attrs
    record = json.loads(attributes["dasksolve"])
    record["a"]["location"] = EVIL
    attributes["dasksolve"] = json.dumps(record)
    main(["report", tiny.out])
    main(["solve", tiny.a_path, tiny.b_path, tiny.out, "--resume"])
    main(["solve", EVIL, tiny.b_path, tiny.out + "2"])
    told = capsys.readouterr()
    assert all(c.isprintable() or c == "\n" for c in told.out + told.err)
    assert "\nok   999" not in told.out


@pytest.mark.parametrize(
    ("run", "what"),
    [
        ({"started": "x", "seconds": "abc", "samples": []}, "seconds is 'abc'"),
        ({"started": "x", "seconds": 1, "samples": None}, "samples is None"),
        ({"started": "x", "seconds": 1, "samples": [[1, "a"]]}, "samples is"),
        ({"started": 3, "seconds": 1, "samples": []}, "started is 3"),
        ({"started": "x", "seconds": 1, "samples": [], "bytes_read": "q"}, "bytes_read is 'q'"),
        ({"started": "x", "seconds": 1, "samples": [], "failed": [3]}, "failed is [3]"),
        ("nothing", "the record is 'nothing'"),
    ],
)
def test_a_history_of_odd_types_is_a_clear_error(
    tiny: Stored, run: Any, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    solve_zarr(tiny.a_path, tiny.b_path, tiny.out)
    attributes = zarr.open_group(tiny.out, use_consolidated=False).attrs
    attributes["dasksolve_history"] = json.dumps([run])
    assert main(["report", tiny.out]) == 1
    told = capsys.readouterr().err
    assert what in told
    assert "delete the attribute dasksolve_history" in told
    solve_zarr(tiny.a_path, tiny.b_path, tiny.out, resume=True)
    assert main(["report", tiny.out]) == 0


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
def test_any_option_is_taken_or_refused(tiny: Stored, name: str, data: st.DataObject) -> None:
    shutil.rmtree(tiny.out, ignore_errors=True)
    given = {"a": tiny.a_path, "b": tiny.b_path, "out": tiny.out, name: data.draw(OPTIONS[name])}
    with suppress(SingularSystemError, *REFUSALS):
        solve_zarr(**given)


@given(words=st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), max_size=8))
@settings(FUZZ, max_examples=40)
def test_no_words_of_the_command_line_show_a_traceback(
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
