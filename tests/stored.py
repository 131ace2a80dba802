"""A batch in memory and in zarr, and what its solution looks like."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from dasksolve.job import history


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


class Session(MemoryStore):
    """A store that is called as those of all sessions of icechunk are."""

    __module__ = "icechunk.store"

    def __str__(self) -> str:
        return "<icechunk.IcechunkStore>\nbranch: main"


def files(path: str | Path) -> dict[str, bytes]:
    """Every file under a folder, with its bytes, but for the name and the times of a run."""
    root = Path(path)
    found = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    for name, content in found.items():
        if name.endswith("zarr.json"):
            metadata = json.loads(content)
            metadata["attributes"].pop(history.ATTRIBUTE, None)
            text = json.dumps(metadata).encode()
            found[name] = re.sub(rb'run\\": \\"[0-9a-f]{32}', b"run", text)
    return found
