"""`Series`: stored series of observations, and how a zarr job fits a block of them."""

import copy
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dasksolve.batch import fit as fits
from dasksolve.batch import regression
from dasksolve.batch.accumulation import Accumulation, state_bytes
from dasksolve.batch.fit import Fit, FitOptions
from dasksolve.batch.pieces import LANES
from dasksolve.errors import PerformanceWarning, warn
from dasksolve.job import compare_series, coordinates, journal, series_inputs
from dasksolve.job.coordinates import Coordinate
from dasksolve.job.plan import Needs, Plan
from dasksolve.job.planning import portions
from dasksolve.job.work import Compared, Field, Solved, Work, status_field, whole_name
from dasksolve.solution import Regression
from dasksolve.status import Status
from dasksolve.storage import encode
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.conventions import Packing
from dasksolve.storage.layout import Block
from dasksolve.storage.source import Fetched, Source

OPTIONS = tuple(field.name for field in fields(FitOptions))
"""What the journal states of how series are fitted."""
T = TypeVar("T")
Give = Callable[[NDArray[Any], NDArray[Any], int], None]
"""Takes some observations, their weights, and the number of the first of them."""
_KEPT = 8 << 20  # bytes of series that are kept whole, to be fitted with care
_WORKING = (16 << 20) + _KEPT  # bytes of the copies, a few pieces each, that fits take


@dataclass(frozen=True)
class Series(Work):
    """Stored series, and what is fitted to them."""

    y: Source
    """Its numbers are as they are stored."""
    packing: Packing | None
    """What they mean."""
    weights: Source | NDArray[Any]
    """Those of the numbers in y, stored as y is; or (P,), those of the observations."""
    fit: Fit
    names: tuple[str, ...]
    """Dimension names of the coefficients, as they stand."""
    stated: dict[str, Any]
    """What the journal says of all this."""
    beside: tuple[Source, ...]
    """The design and the weights, where they are stored."""
    coordinates: tuple[Coordinate, ...] = ()

    unit, task = "series", "regress_block"

    @classmethod
    def open(
        cls,
        y: Any,
        design: Any,
        weights: Any,
        options: FitOptions,
        *,
        mask_and_scale: bool = True,
        strict: bool = True,
    ) -> "Series":
        """Open y and what goes with it, and describe what is to be fitted."""
        if isinstance(y, str | os.PathLike) and series_inputs.numpy_path("y", y):
            raise ValueError(
                f"y must be a zarr array: {y} is a file of NumPy's, as a design may be"
            )
        source = Source.open("y", y, 0, mask_and_scale)
        shape, dtype = source.array.shape, source.dtype
        terms = series_inputs.opened("design", design, mask_and_scale)
        fit = fits.describe(shape, dtype, series_inputs.whole(terms, strict), options)
        source = source.with_axis(fit.axis)
        given = series_inputs.opened("weights", weights, mask_and_scale)
        weighing = series_inputs.weights_of(given, fit, strict)
        names = series_inputs.dimension_names(source, fit, terms)
        stated = {
            "y": series_inputs.identity(source),
            "design": series_inputs.identity(fit.design),
            "weights": series_inputs.identity(weighing),
            "files": series_inputs.files(design=(design, terms), weights=(weights, given)),
            "options": {
                **{name: getattr(fit, name) for name in OPTIONS if name != "ridge"},
                "ridge": fits.checked_ridge(options.ridge, fit.n).tolist(),
            },
        }
        batch = (*names[: fit.axis], *names[fit.axis + 1 :])
        term = names[fit.axis]
        taken = (*Regression._fields, term, *series_inputs.second(term))
        found = coordinates.find((source,), batch, fit.batch_shape, taken)
        if isinstance(terms, Source):
            found += coordinates.of_terms(terms, term)
            coordinates.refuse_other_places(source, terms, (fit.axis,))
        if isinstance(given, Source):
            every = range(len(shape)) if isinstance(weighing, Source) else (fit.axis,)
            coordinates.refuse_other_places(source, given, every)
        read = tuple(array for array in (terms, given) if isinstance(array, Source))
        return cls(source.packed(), source.packing, weighing, fit, names, stated, read, found)

    @property
    def sources(self) -> tuple[Source, ...]:
        """y, and its weights if each number has its own."""
        return (self.y, self.weights) if isinstance(self.weights, Source) else (self.y,)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of y without the observations."""
        return self.fit.batch_shape

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields of `Regression`, status last."""
        fit, at = self.fit, self.fit.axis
        batch = (*self.names[:at], *self.names[at + 1 :])
        term, whole, number = self.names[at], np.dtype(np.int32), np.dtype(np.float64)
        found = [
            Field("coef", fit.dtype, self.names, (fit.n,), at, chosen=True),
            Field("stderr", fit.dtype, self.names, (fit.n,), at, chosen=True),
            Field("rss", fit.dtype, batch, chosen=True),
            Field("count", whole, batch),
            Field("rcond", number, batch),
        ]
        if fit.covariance:
            names = (*batch, term, *series_inputs.second(term))
            found.append(Field("covariance", fit.dtype, names, (fit.n, fit.n), chosen=True))
        return (*found, status_field(batch))

    @property
    def needs(self) -> Needs:
        """What blocks of series take."""
        own = [field.system_bytes for field in self.fields]
        wide = [field.system_bytes for field in self.fields if field.core]
        return Needs(
            batch_shape=self.batch_shape,
            layouts=tuple(source.layout for source in self.sources),
            names=tuple(source.name for source in self.sources),
            answer_bytes=sum(wide),
            beside_bytes=sum(own) - sum(wide) + 8,  # the places of those that are fitted with care
            working=_WORKING,
            state_bytes=state_bytes(self.fit, len(self.sources) > 1) if self.fit.fast else 0,
            unit=self.unit,
            divisible=True,
            aligned=all(s.layout.chunks[:-1] == self.y.layout.chunks[:-1] for s in self.sources),
        )

    def identity(self) -> dict[str, Any]:
        """The metadata of y, digests of the design and of weights in memory, and the options."""
        return copy.deepcopy(self.stated)

    def warn(self, plan: Plan) -> None:
        """Say so where a chunk is read for several blocks."""
        if plan.amplification <= 2:
            return
        layout = self.y.layout
        warn(
            f"y is stored in chunks of {layout.stored(layout.chunks)}, which split its series of "
            f"{len(self.fit.design)} observations, and what is to be kept of those under one chunk "
            f"does not fit in memory together: every byte of it is read {plan.amplification:g} "
            "times. Raise the memory limit, or store y in chunks of whole series",
            PerformanceWarning,
        )

    def answers(self, threads: int, *read: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Fit a block of y."""
        y, *own = read
        weights, fit = self._weights(y, own), replace(self.fit, shape=y.shape)
        found = regression.run(y, weights, fit, threads, packing=self.packing)
        return self._by_field(found)

    def _weights(
        self, y: NDArray[Any], own: list[NDArray[Any]], rows: slice = slice(None)
    ) -> NDArray[Any]:
        """Those that belong to some observations, of which this was read."""
        if isinstance(self.weights, Source):
            return np.broadcast_to(own[0], y.shape)
        return self.weights[rows]

    async def solved(
        self,
        block: Block,
        rows: int,
        strict: bool,
        space: Workspace,
        then: Callable[[Solved], Coroutine[Any, Any, T]],
    ) -> T:
        """Read a block and fit it, as much at a time as there are chunks or observations."""
        if rows:
            return await space.apart(then, await self._accumulated(block, rows, strict, space))
        several = list(portions(self.needs, block))
        if len(several) == 1:
            return await super().solved(block, rows, strict, space, then)
        lengths = [stop - start for start, stop in block]
        found = {
            f.name: space.array(whole_name(f.name), f.among(lengths, f.core), f.dtype, encode.ROOM)
            for f in self.fields
        }
        missing, seconds = 0, 0.0
        for part in several:
            put = partial(self._put, found, block, part)
            solved = await super().solved(part, rows, strict, space, put)
            missing, seconds = missing + solved.missing, seconds + solved.seconds
        return await space.apart(then, Solved(found, missing, seconds, lent=True))

    async def _put(
        self, whole: dict[str, NDArray[Any]], block: Block, part: Block, solved: Solved
    ) -> Solved:
        """Put the answers of a part among those of its block."""
        axes = zip(part, block, strict=True)
        where = tuple((start - first, stop - first) for (start, stop), (first, _) in axes)
        for field in self.fields:
            whole[field.name][field.region(where)] = solved.arrays[field.name]
        return solved

    async def _accumulated(self, block: Block, rows: int, strict: bool, space: Workspace) -> Solved:
        """Read a block some observations after the others, twice, and fit it."""
        fit, missing, seconds, reads = self.fit, 0, 0.0, 0
        batch = [stop - start for start, stop in block]
        shape = (*batch[: fit.axis], len(fit.design), *batch[fit.axis :])
        most = max(LANES, _KEPT // (16 * len(fit.design)))
        series = Accumulation(fit, shape, rows, self.packing, most, space.threads)

        async def add(to: Give, start: int, fetched: list[tuple[Source, Fetched]]) -> None:
            nonlocal missing, seconds
            (y, *own), gone = await self.decoded(fetched, strict, space)
            missing += gone
            weights = self._weights(y, own, slice(start, start + rows))
            began = time.perf_counter()
            to(y, weights, start)
            seconds += time.perf_counter() - began

        async def give(to: Give) -> None:
            nonlocal missing, reads
            reads += 1
            missing = 0
            for start in range(0, len(fit.design), rows):
                stop = min(start + rows, len(fit.design))
                fetched = await self.fetched(block, space, (start, stop))
                await space.apart(add, to, start, fetched)

        await give(series.add)
        await space.computed(series.turn)
        await give(series.add)
        found = await space.computed(series.answers)
        while await space.computed(series.care, found):  # more than were kept on the way
            await give(series.keep)
        return Solved(self._by_field(series.regression(found)), missing, seconds, reads)

    async def compared(
        self,
        block: Block,
        rows: int,
        stored: dict[str, NDArray[Any]],
        exactly: bool,
        space: Workspace,
    ) -> Compared:
        """Fit a block again, and compare."""

        async def other(anew: Solved) -> Compared:
            return compare_series.compared(anew.arrays, stored, self.fit, exactly)

        return await self.solved(block, rows, False, space, other)

    def worst(self, found: dict[str, NDArray[Any]]) -> dict[str, float]:
        """The worst condition of the series that have coefficients."""
        fine = found["status"] == Status.OK
        if not fine.any():
            return {}
        return {"worst_rcond": float(np.min(found["rcond"], where=fine, initial=np.inf))}

    def _by_field(self, found: Regression) -> dict[str, NDArray[Any]]:
        return {field.name: getattr(found, field.name) for field in self.fields}


def options_of(record: journal.Record, location: str) -> FitOptions:
    """Return the options that a record states."""
    stated = journal.fields(record, "options", location)
    if {*stated} != {*OPTIONS}:
        raise journal.damaged(location, f"its options are {stated}")
    if isinstance(stated["ridge"], list) and len({*map(repr, stated["ridge"])}) == 1:
        stated = {**stated, "ridge": stated["ridge"][0]}  # which any other design can have, too
    return FitOptions(**stated)
