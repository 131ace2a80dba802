"""Where paths and URLs lead."""

import pytest

from dasksolve.storage import stores


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
