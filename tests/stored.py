"""A batch in memory and in zarr, and what its solution looks like."""

from pathlib import Path
from typing import Any, NamedTuple

import zarr
from numpy.typing import NDArray


class Stored(NamedTuple):
    """A batch, in memory and in zarr."""

    a: NDArray[Any]
    b: NDArray[Any]
    a_path: str
    b_path: str
    out: str

    @property
    def x(self) -> NDArray[Any]:
        """What a job wrote as x."""
        return zarr.open_array(self.out + "/x", mode="r")[...]

    @property
    def status(self) -> NDArray[Any]:
        """What a job wrote as status."""
        return zarr.open_array(self.out + "/status", mode="r")[...]


def files(path: str | Path) -> dict[str, bytes]:
    """Every file under a folder, with its bytes."""
    root = Path(path)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
