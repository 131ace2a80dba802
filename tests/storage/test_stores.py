"""Where paths and URLs lead."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import FsspecStore

from dasksolve.storage import inputs, stores


@pytest.mark.parametrize(
    ("url", "windows", "path"),
    [
        ("file:///data/a.zarr", False, "/data/a.zarr"),
        ("local:///data/a.zarr", False, "/data/a.zarr"),
        ("file://localhost/data/a.zarr", False, "/data/a.zarr"),
        ("file://localhosts/a.zarr", False, "localhosts/a.zarr"),
        ("file:///C:/data/a.zarr", True, "C:/data/a.zarr"),
        ("file:///c:/data/a.zarr", True, "c:/data/a.zarr"),
        ("file:///C:/is/a/folder/here", False, "/C:/is/a/folder/here"),
    ],
)
def test_the_path_of_a_file_url(url: str, windows: bool, path: str) -> None:
    assert stores._path_of(url, windows) == path


@pytest.mark.parametrize("url", ["s3://", "s3a:///"])
def test_a_url_that_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(OSError, match=r"out: cannot open s3.* names no bucket"):
        stores.open_store(url)
    with pytest.raises(OSError, match=r"a: cannot open s3.* names no bucket"):
        inputs.open_input("a", url)


def test_an_output_that_is_seen_through_a_cache_is_refused() -> None:
    url = "simplecache::memory://out"
    store, _ = stores.open_store(url, read_only=True)
    for out in (url, FsspecStore(store.fs, path=store.path)):
        with pytest.raises(ValueError, match=r"is a cache, .* keeps copies of: memory:///?out"):
            stores.open_store(out)


def test_a_cache_that_threads_cannot_read_together_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", data=np.eye(3))
    url = f"filecache::file://{tmp_path}/a"
    given = zarr.open_array(FsspecStore.from_url(url, read_only=True), mode="r")
    advice = f"filecache several threads cannot .* keeps copies of: file://{tmp_path}/a$"
    for a in (url, given):
        with pytest.raises(ValueError, match=f"^a: .*{advice}"):
            inputs.open_input("a", a)
    for out in (url, given.store):
        with pytest.raises(ValueError, match=f"^out: .*{advice}"):
            stores.open_store(out, read_only=True)
    simple, _ = inputs.open_input("a", url.replace("filecache", "simplecache"))
    assert (simple[:] == np.eye(3)).all()
