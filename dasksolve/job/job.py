"""`Job`: what every task of one run carries with it, and does with it in each process."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from numpy.typing import NDArray
from zarr.storage import LocalStore

from dasksolve import kernels
from dasksolve.job import journal, presence
from dasksolve.job.plan import Plan
from dasksolve.job.presence import Presence
from dasksolve.job.tally import BlockResult, Sums, count
from dasksolve.job.work import Field, Work
from dasksolve.storage import encode, groups, internals, marks, secrets, stores
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.source import Source


@dataclass(frozen=True)
class Job:
    """What every task of one run carries with it."""

    token: str
    task: str
    """What dask calls what is done to a block."""
    work: Work
    plan: Plan
    location: str
    """What the output is called."""
    arrays: dict[str, Any]
    """The open arrays of the output, by the names of the fields."""
    strict: bool
    resume: bool
    durable: bool = False
    """What status speaks of is waited for before it is written."""
    mark: str | None = None
    """Key in the output while this job is the one to write it; None: it is locked instead."""
    looks_from: int | None = None
    """Tasks from this block on look at the output as they end; None: who started the job does."""
    there: Future[None] | None = None
    """The metadata of the output are being written, and no block yet; None: they are there."""
    arithmetic: str = field(default_factory=lambda: kernels.ARITHMETIC)
    """That of the process that started it."""

    @property
    def status(self) -> Any:
        """The array of that name, which is the journal."""
        return self.arrays["status"]

    @property
    def store(self) -> Any:
        """That of the output."""
        return self.status.store

    @property
    def here(self) -> Presence:
        """What this process knows of it."""
        return presence.of(self.token)

    @cached_property
    def written(self) -> dict[str, Source]:
        """The arrays of the output as they are read again."""
        return {name: Source.of(name, array) for name, array in self.arrays.items()}

    @cached_property
    def codecs(self) -> dict[str, internals.Codecs]:
        """How zarr encodes the chunks of the arrays."""
        return {name: internals.Codecs(array) for name, array in self.arrays.items()}

    @cached_property
    def plain(self) -> frozenset[str]:
        """Arrays whose chunks are their numbers as they are in memory, and their checksum."""
        return frozenset(n for n, array in self.arrays.items() if encode.is_known(array))

    @cached_property
    def summed(self) -> frozenset[str]:
        """Arrays whose chunks have no checksum: that of their numbers stands beside status."""
        return frozenset(n for n, array in self.arrays.items() if not groups.is_checked(array))

    @cached_property
    def reuses(self) -> bool:
        """Whether chunks may be encoded in memory that is used again: no store keeps it."""
        return isinstance(self.store, LocalStore) and not self.far

    @property
    def far(self) -> bool:
        """Whether requests are waited for, with nothing to do meanwhile but other blocks."""
        arrays = [*(source.array for source in self.work.sources), *self.arrays.values()]
        return any(stores.is_far(array.store) for array in arrays)

    async def stored(
        self, fields: Sequence[Field], number: int, space: Workspace
    ) -> dict[str, NDArray[Any]]:
        """What is stored of a block in these arrays, by name, lent by the workspace."""
        reading = partial(self._stored, number=number, space=space)
        if isinstance(self.store, LocalStore):  # in turn: what is stored of each is in one buffer
            found = [await reading(field) for field in fields]
        else:
            found = await internals.together(*map(reading, fields))
        return {field.name: values for field, values in zip(fields, found, strict=True)}

    async def _stored(self, field: Field, number: int, space: Workspace) -> NDArray[Any]:
        part = field.among(self.plan.block(number), [(0, length) for length in field.core])
        try:
            source = self.written[field.name]
            values, _ = await source.decoded(await source.fetched(part, space), False, space)
            return values
        except Exception as error:
            raise OSError(
                f"cannot read {field.name} of the output: {secrets.told(error)}; "
                "resume=True (--resume) writes the block again"
            ) from error

    def chunks(self, number: int) -> Iterator[tuple[Any, tuple[int, ...]]]:
        """The chunks of a block in the output, each an array and a place in its grid."""
        place = self.plan.place(number)
        for written in self.work.fields:
            if self.arrays[written.name].size:
                yield self.arrays[written.name], written.chunk(place)

    def keys(self, number: int) -> list[str]:
        """The keys of those in their store."""
        return [internals.key(a, internals.name(a, place)) for a, place in self.chunks(number)]

    def begin(self) -> None:
        """What a process does before it works on blocks."""
        inputs = [source.array for source in self.work.sources]
        seen = [*inputs, self.status]
        meet(self.token, seen, self.store, self.mark, self.arithmetic)

    async def created(self) -> None:
        """Wait for the metadata of the output."""
        if self.there is None:
            return
        if not self.there.done():
            await asyncio.wrap_future(self.there)
        self.there.result()

    async def refuse_late(self) -> None:
        """Keep what a killed client left in the hands of a worker out of the output of another.

        Where a look is waited for, it begins once the last is old, and nobody waits for it yet.
        """
        if self.mark is None or self._age() < marks.LOOK_EVERY:
            return
        if not stores.is_far(self.store):
            await self._look()
            return
        look = self.here.look
        if look is None:
            look = self.here.look = asyncio.ensure_future(self._look())
            look.add_done_callback(partial(_ended, self.here))
        if self._age() >= marks.patience(self.store):
            await look

    def _age(self) -> float:
        """Seconds since this process last saw the mark."""
        return time.monotonic() - self.here.saw_mark

    async def _look(self) -> None:
        assert self.mark is not None
        here, began = self.here, time.monotonic()
        await marks.refuse_unmarked(self.store, self.mark)
        here.saw_mark = began

    def looks(self, number: int) -> bool:
        """Whether the output is looked at while the status of this block is written."""
        last = (number + 1) % self.plan.together == 0 or number + 1 == self.plan.blocks
        return last and self.looks_from is not None and number >= self.looks_from

    def result(
        self, number: int, found: dict[str, Any], *, solving: float = 0.0, **sums: int
    ) -> BlockResult:
        """The result of a block of which these arrays were found, by the names of the fields.

        sums: as `Sums` has them.
        """
        origin = tuple(start for start, _ in self.plan.block(number))
        counts, flagged = count(found["status"], origin, self.plan.batch_shape)
        done, memory = Sums(blocks_done=1, **sums), self.here.gauge.lately()
        worst: dict[str, Any] = self.work.worst(found)
        return BlockResult(number, counts, flagged, done, solving, memory, **worst)

    def failed(self, number: int, error: object) -> BlockResult:
        """The result of a block that could not be solved."""
        is_text = isinstance(error, str)
        failure = secrets.shown(error) if is_text else secrets.told(error)
        return BlockResult(number, failure=failure, memory=self.here.gauge.lately())


def meet(token: str, arrays: Sequence[Any], store: Any, mark: str | None, arithmetic: str) -> None:
    """Make sure, once, that this process sees what the one sees that started the job.

    And computes what that would: the journal says with which arithmetic, and `check` believes it.
    """
    here = presence.of(token)
    with here.meeting:
        if not here.met:
            journal.refuse_other_arithmetic(arithmetic)
            marks.look(arrays, store, mark)
            here.met, here.saw_mark = True, time.monotonic()


def _ended(here: Presence, look: asyncio.Future[None]) -> None:
    """Forget a look that has ended, and its error: who has waited for it knows."""
    here.look = None
    if not look.cancelled():
        look.exception()


Task = Callable[[Job, int, Workspace], Coroutine[Any, Any, BlockResult]]
"""Does one block."""
