"""Systems and series in memory and in zarr, and what came of them."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from dasksolve import Regression
from dasksolve.job import history

P, N = 40, 3
SHAPE = (P, 12, 20)
TIME = np.linspace(-1, 1, P)
DESIGN = np.stack([np.ones(P), TIME, np.sin(9 * TIME)], axis=1)


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


class Stack(NamedTuple):
    """Series, in memory and in zarr."""

    y: NDArray[Any]
    path: Path
    out: Path

    @property
    def found(self) -> Regression:
        """What a job wrote."""
        group = zarr.open_group(self.out, mode="r")
        values = [group[name][...] if name in group else None for name in Regression._fields]
        return Regression._make(values)


def observations() -> NDArray[Any]:
    """Series with gaps, and of every status."""
    rng = np.random.default_rng(0)
    y = 5 + 2 * TIME[:, None, None] + rng.standard_normal(SHAPE)
    y[rng.random(SHAPE) < 0.3] = np.nan
    y[:, 0, 0], y[3, 1, 1] = np.nan, np.inf
    y[:, 2, 2] = np.nan
    y[:2, 2, 2] = 1  # too few
    y[:, 11, 19] = 0
    return y


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
