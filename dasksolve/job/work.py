"""`Work`: what a zarr job reads, makes of it and writes; the job itself is the same for all."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dasksolve.job.coordinates import Coordinate
from dasksolve.job.plan import Needs, Plan
from dasksolve.status import Status
from dasksolve.storage import internals, locations, stores
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.internals import Region
from dasksolve.storage.layout import Block
from dasksolve.storage.source import Fetched, Source

T = TypeVar("T")


@dataclass(frozen=True)
class Field:
    """An array of an output: over the batch, perhaps with axes of its own among those."""

    name: str
    """Name of the array."""
    dtype: np.dtype[Any]
    """The dtype of its numbers."""
    names: tuple[str, ...]
    """Names of its dimensions."""
    core: tuple[int, ...] = ()
    """Lengths of its own axes."""
    at: int | None = None
    """Where they stand; None: after those of the batch."""
    chosen: bool = False
    """Whether its codecs are the user's to choose."""

    def among(self, batch: Sequence[Any], core: Sequence[Any]) -> tuple[Any, ...]:
        """What there is for each axis of the batch, and for each of its own, as they stand."""
        at = len(batch) if self.at is None else self.at
        return (*batch[:at], *core, *batch[at:])

    def shape(self, plan: Plan) -> tuple[int, ...]:
        """That of the array in the output of a job."""
        return self.among(plan.batch_shape, self.core)

    def chunks(self, plan: Plan) -> tuple[int, ...]:
        """Those of the array: one for each block."""
        return self.among(plan.block_shape, [max(n, 1) for n in self.core])

    def region(self, block: Block) -> Region:
        """The part of the array that belongs to a block."""
        return self.among([slice(*r) for r in block], [slice(None)] * len(self.core))

    def chunk(self, place: tuple[int, ...]) -> tuple[int, ...]:
        """Its chunk of a block; place: of the block among the blocks."""
        return self.among(place, (0,) * len(self.core))

    @property
    def system_bytes(self) -> int:
        """Bytes of what belongs to a system."""
        return math.prod(self.core) * self.dtype.itemsize


def status_field(names: tuple[str, ...]) -> Field:
    """The journal; names: of the dimensions of the batch."""
    return Field("status", np.dtype(np.int8), names)


def whole_name(name: str) -> str:
    """What a workspace calls the answers of a whole block, of an array of an output."""
    return f"whole {name}"


class Solved(NamedTuple):
    """What a block was solved to."""

    arrays: dict[str, NDArray[Any]]
    """By the names of the fields."""
    missing: int
    """Chunks that were not stored."""
    seconds: float
    """That a thread took to solve it."""
    reads: int = 1
    """How often its chunks were read."""
    lent: bool = False
    """The workspace lends the arrays by their `whole_name`, with room for a checksum behind."""


class Read(NamedTuple):
    """What is read for a block."""

    chunks: int
    """Stored chunks."""
    bytes: int
    """Bytes of those, decoded."""
    needed: int
    """Bytes of what the block needs of them."""


class Compared(NamedTuple):
    """Where what was stored of a block differs from what it is computed to be."""

    suspects: dict[str, NDArray[np.bool_]]
    """Systems, by a text that says what is wrong with so many of them."""
    diagnostics: dict[str, NDArray[Any]]
    """What was found out beside."""

    def detail(self, suspect: NDArray[np.bool_]) -> str:
        """What more is known of the first of the suspects."""
        if "backward_error" not in self.diagnostics:
            return ""
        error = self.diagnostics["backward_error"][suspect].flat[0]
        return f", with a backward error of {error:.2g}"


class Work(ABC):
    """What a job reads, makes of it and writes."""

    unit: ClassVar[str]
    """What the batch consists of."""
    task: ClassVar[str]
    """What a person at dask's dashboard sees of a block."""

    @property
    @abstractmethod
    def sources(self) -> tuple[Source, ...]:
        """The stored arrays that are read block by block."""

    beside: tuple[Source, ...] = ()
    """Stored arrays that were read before, whole."""

    @property
    @abstractmethod
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the whole batch."""

    @property
    @abstractmethod
    def fields(self) -> tuple[Field, ...]:
        """The arrays that are written; status, which says that the others are there, is last."""

    @property
    @abstractmethod
    def coordinates(self) -> tuple[Coordinate, ...]:
        """Coordinates of the dimensions of the batch."""

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What its blocks take."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What it is known by in the journal: the metadata of what it reads, and its options."""

    @abstractmethod
    def warn(self, plan: Plan) -> None:
        """Say what makes the plan slow."""

    @abstractmethod
    def answers(self, threads: int, *read: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Solve a block of which this was read, in so many threads; return each field's numbers."""

    @abstractmethod
    async def compared(
        self,
        block: Block,
        rows: int,
        stored: dict[str, NDArray[Any]],
        exactly: bool,
        space: Workspace,
    ) -> Compared:
        """Solve a block again, and compare what is stored of it bit by bit, or within bounds."""

    @abstractmethod
    def worst(self, found: dict[str, NDArray[Any]]) -> dict[str, float]:
        """The diagnostics of a block's worst systems, as `BlockResult` has them."""

    async def solved(
        self,
        block: Block,
        _rows: int,
        strict: bool,
        space: Workspace,
        then: Callable[[Solved], Coroutine[Any, Any, T]],
    ) -> T:
        """Read a block, solve it, and return what `then`, in the same thread, makes of it.

        rows: as the plan has them.
        """
        fetched = await self.fetched(block, space)

        async def answered() -> T:
            read, missing = await self.decoded(fetched, strict, space)
            began = time.perf_counter()
            arrays = self.answers(space.threads, *read)
            return await then(Solved(arrays, missing, time.perf_counter() - began))

        return await space.apart(answered)

    async def fetched(
        self, block: Block, space: Workspace, rows: tuple[int, int] | None = None
    ) -> list[tuple[Source, Fetched]]:
        """Ask for what a block needs of each, or of some observations of it, and wait for that."""
        sources = self.sources if rows is None else [s.part(*rows) for s in self.sources]
        if all(stores.is_far(source.array.store) for source in sources):  # one wait for all
            found = await internals.together(*(source.fetched(block, space) for source in sources))
        else:
            found = [await source.fetched(block, space) for source in sources]
        return list(zip(sources, found, strict=True))

    async def decoded(
        self, fetched: list[tuple[Source, Fetched]], strict: bool, space: Workspace
    ) -> tuple[list[NDArray[Any]], int]:
        """Return the numbers of what was fetched, and how many chunks are not stored."""
        parts = [await source.decoded(one, strict, space) for source, one in fetched]
        return [values for values, _ in parts], sum(missing for _, missing in parts)

    def read_for(self, block: Block) -> Read:
        """What is read for a block."""
        layouts = [source.layout for source in self.sources]
        return Read(
            sum(layout.touched(block) for layout in layouts),
            sum(layout.read_bytes(block) for layout in layouts),
            sum(layout.needed_bytes(block) for layout in layouts),
        )


def described(source: Source) -> dict[str, Any]:
    """What a stored array is known by."""
    array = source.array
    return {
        "shape": list(array.shape),
        "chunks": list(array.chunks),
        "shards": list(array.shards) if array.shards else None,
        "dtype": str(array.dtype),
        "fill_value": str(array.fill_value),
        "packing": str(source.packing) if source.packing else None,
        "location": source.location if locations.has_location(array.store) else None,
    }


def fill_value(field: Field) -> Any:
    """What stands where nothing is written yet."""
    if field.name == "status":
        return int(Status.PENDING)
    return np.nan if field.dtype.kind in "fc" else 0
