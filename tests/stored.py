"""A batch in memory and in zarr, and what its solution looks like."""

import json
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
    """Every file under a folder, with its bytes, but not how long the runs took that wrote it."""
    root = Path(path)
    found = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    if "zarr.json" in found:
        metadata = json.loads(found["zarr.json"])
        metadata["attributes"].pop("dasksolve_runs", None)
        found["zarr.json"] = json.dumps(metadata).encode()
    return found
