"""Where paths and URLs lead."""

import pytest
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
