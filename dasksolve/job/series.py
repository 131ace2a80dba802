"""`Series`: stored series of observations, and how a zarr job fits a block of them."""

import copy
import hashlib
import os
import time
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from dasksolve.batch import fit as fits
from dasksolve.batch.accumulation import Accumulation, state_bytes
from dasksolve.batch.arrays import as_observations
from dasksolve.batch.fit import Fit
from dasksolve.batch.lazy_regression import fit_block
from dasksolve.batch.pieces import LANES
from dasksolve.batch.weights import checked_weights
from dasksolve.errors import PerformanceWarning
from dasksolve.job import coordinates, journal
from dasksolve.job.compare import other, other_bits
from dasksolve.job.coordinates import Coordinate
from dasksolve.job.plan import Needs, Plan
from dasksolve.job.planning import portions
from dasksolve.job.work import Compared, Done, Field, Work, described, status_field
from dasksolve.solution import Regression
from dasksolve.status import Status
from dasksolve.storage.buffers import Workspace
from dasksolve.storage.conventions import Packing
from dasksolve.storage.layout import Block
from dasksolve.storage.source import Fetched, Source

OPTIONS = ("axis", "ridge", "rcond", "min_count", "on_deficient", "covariance")
"""What the journal states of how series are fitted."""
T = TypeVar("T")
Give = Callable[[NDArray[Any], NDArray[Any], int], None]
"""Takes some observations, their weights, and the number of the first of them."""
_LARGE = 1 << 28  # bytes: more is no design
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

    unit = "series"

    @classmethod
    def open(
        cls,
        y: Any,
        design: Any,
        weights: Any = None,
        *,
        axis: int = 0,
        ridge: Any = None,
        rcond: float | None = None,
        min_count: int | None = None,
        on_deficient: str = "nan",
        covariance: bool = False,
        mask_and_scale: bool = True,
        strict: bool = True,
    ) -> "Series":
        """Open y and what goes with it, and describe what is to be fitted."""
        if isinstance(y, str | os.PathLike) and Path(y).suffix == ".npy":
            raise ValueError(
                f"y must be a zarr array: {y} is a file of NumPy's, as a design may be"
            )
        source = Source.open("y", y, 0, mask_and_scale)
        shape, dtype = source.array.shape, source.dtype
        options = (axis, ridge, rcond, min_count, on_deficient, covariance)
        terms = _given("design", design, mask_and_scale)
        fit = fits.describe(shape, dtype, _read(terms, strict), *options)
        source = source.with_axis(fit.axis)
        given = _given("weights", weights, mask_and_scale)
        weighing = _weights(given, fit, strict)
        names = _dimension_names(source, fit, terms)
        stated = {
            "y": described(source),
            "design": _digest(fit.design),
            "weights": described(weighing) if isinstance(weighing, Source) else _digest(weighing),
            "options": {
                **{name: getattr(fit, name) for name in OPTIONS if name != "ridge"},
                "ridge": fits.checked_ridge(ridge, fit.n).tolist(),
            },
        }
        batch = (*names[: fit.axis], *names[fit.axis + 1 :])
        found = coordinates.find((source,), batch, fit.batch_shape)
        if isinstance(terms, Source):
            found += coordinates.of_terms(terms, names[fit.axis])
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
            names = (*batch, term, *_second(term))
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
            state_bytes=state_bytes(self.fit) if self.fit.fast else 0,
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
        warnings.warn(
            f"y is stored in chunks of {layout.stored(layout.chunks)}, which split its series of "
            f"{len(self.fit.design)} observations, and what is to be kept of those under one chunk "
            f"does not fit in memory together: every byte of it is read {plan.amplification:g} "
            "times. Raise the memory limit, or store y in chunks of whole series",
            PerformanceWarning,
            stacklevel=4,
        )

    def answers(self, threads: int, *read: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Fit a block of y."""
        y, *own = read
        weights = self.weights
        if isinstance(weights, Source):
            weights = np.broadcast_to(own[0], y.shape)
        found = fit_block(y, weights, fit=self.fit, packing=self.packing, threads=threads)
        return self._by_field(found)

    async def done(
        self,
        block: Block,
        rows: int,
        strict: bool,
        space: Workspace,
        then: Callable[[Done], Coroutine[Any, Any, T]],
    ) -> T:
        """Read a block and fit it, as much at a time as there are chunks or observations."""
        if rows:
            return await space.apart(then, await self._accumulated(block, rows, strict, space))
        several = list(portions(self.needs, block))
        if len(several) == 1:
            return await super().done(block, rows, strict, space, then)
        lengths = [stop - start for start, stop in block]
        whole = {
            f.name: space.array(f"whole {f.name}", f.among(lengths, f.core), f.dtype)
            for f in self.fields
        }
        missing, seconds = 0, 0.0
        for part in several:
            put = partial(self._put, whole, block, part)
            done = await super().done(part, rows, strict, space, put)
            missing, seconds = missing + done.missing, seconds + done.seconds
        return await space.apart(then, Done(whole, missing, seconds))

    async def _put(
        self, whole: dict[str, NDArray[Any]], block: Block, part: Block, done: Done
    ) -> Done:
        """Put the answers of a part among those of its block."""
        axes = zip(part, block, strict=True)
        where = tuple((start - first, stop - first) for (start, stop), (first, _) in axes)
        for field in self.fields:
            whole[field.name][field.region(where)] = done.arrays[field.name]
        return done

    async def _accumulated(self, block: Block, rows: int, strict: bool, space: Workspace) -> Done:
        """Read a block some observations after the others, twice, and fit it."""
        fit, missing, seconds, reads = self.fit, 0, 0.0, 0
        batch = [stop - start for start, stop in block]
        shape = (*batch[: fit.axis], len(fit.design), *batch[fit.axis :])
        most = max(LANES, _KEPT // (16 * len(fit.design)))
        series = Accumulation(fit, shape, rows, self.packing, most, space.threads)

        async def add(
            to: Give, start: int, fetched: list[Fetched], sources: tuple[Source, ...]
        ) -> None:
            nonlocal missing, seconds
            (y, *own), gone = await self.taken(block, fetched, strict, space, sources)
            missing += gone
            weights = self.weights
            if isinstance(weights, Source):
                weights = np.broadcast_to(own[0], y.shape)
            else:
                weights = weights[start : start + rows]
            began = time.perf_counter()
            to(y, weights, start)
            seconds += time.perf_counter() - began

        async def give(to: Give) -> None:
            nonlocal missing, reads
            reads += 1
            missing = 0
            for start in range(0, len(fit.design), rows):
                stop = min(start + rows, len(fit.design))
                sources = tuple(source.part(start, stop) for source in self.sources)
                fetched = await self.fetched(block, space, sources)
                await space.apart(add, to, start, fetched, sources)

        await give(series.add)
        await space.computed(series.turn)
        await give(series.add)
        found = await space.computed(series.answers)
        while await space.computed(series.care, found):  # more than were kept on the way
            await give(series.keep)
        return Done(self._by_field(series.regression(found)), missing, seconds, reads)

    async def compared(
        self,
        block: Block,
        rows: int,
        stored: dict[str, NDArray[Any]],
        exactly: bool,
        space: Workspace,
    ) -> Compared:
        """Fit a block again, and compare."""

        async def other(anew: Done) -> Compared:
            return _compared(anew.arrays, stored, self.fit, exactly)

        return await self.done(block, rows, False, space, other)

    def worst(self, found: dict[str, NDArray[Any]]) -> dict[str, float]:
        """The worst condition of the series that have coefficients."""
        fine = found["status"] == Status.OK
        if not fine.any():
            return {}
        return {"worst_rcond": float(np.min(found["rcond"], where=fine, initial=np.inf))}

    def _by_field(self, found: Regression) -> dict[str, NDArray[Any]]:
        return {field.name: getattr(found, field.name) for field in self.fields}


def _given(name: str, given: Any, mask_and_scale: bool) -> Any:
    """An array in memory, or of a file of NumPy's; or a stored one, which is not read yet."""
    if not isinstance(given, zarr.Array | str | os.PathLike):
        return as_observations(name, given)
    if isinstance(given, str | os.PathLike) and Path(given).suffix == ".npy":
        return _numpy_file(name, Path(given))
    return Source.open(name, given, 0, mask_and_scale)


def _numpy_file(name: str, path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: there is no file {path}") from None
    except (ValueError, EOFError):  # NumPy's own words are of pickles
        raise ValueError(f"{name}: {path} is no array of numbers that numpy.save wrote") from None


def _read(given: Any, strict: bool) -> Any:
    """An array in memory, be it stored."""
    if not isinstance(given, Source):
        return given
    if given.array.nbytes > _LARGE:
        raise ValueError(
            f"{given.name} ({given.location}) has shape {given.array.shape}, too large for "
            "a design or for weights of the observations; y comes first, then the design"
        )
    return given.with_core(given.array.ndim).everything(strict)


def _weights(given: Any, fit: Fit, strict: bool) -> Source | NDArray[Any]:
    """The weights of the observations, or the stored ones of all numbers."""
    if isinstance(given, Source) and given.array.ndim > 1:
        return _along(given, fit)
    values, observations = _read(given, strict), fit.shape[fit.axis]
    if values is not None and values.shape != (observations,):
        raise ValueError(
            f"weights have shape {values.shape}: in memory they are ({observations},), one for "
            "each observation; those of every number in y must be stored in zarr, as y is"
        )
    found: NDArray[Any] = checked_weights(values, fit)
    return found


def _along(source: Source, fit: Fit) -> Source:
    """Stored weights of y's shape, or of one that broadcasts to it along the batch."""
    shape = source.array.shape
    fits = len(shape) == len(fit.shape) and all(
        n == m or (n == 1 and axis != fit.axis)
        for axis, (n, m) in enumerate(zip(shape, fit.shape, strict=True))
    )
    if not fits:
        raise ValueError(
            f"weights ({source.location}) have shape {shape}, where y has {fit.shape}: they must "
            f"be of y's shape, or ({fit.shape[fit.axis]},), one for each observation"
        )
    if source.dtype.kind not in "biuf":
        raise TypeError(f"weights have dtype {source.dtype}; real numbers are needed")
    return source.with_axis(fit.axis)


def _digest(values: NDArray[Any]) -> dict[str, Any]:
    """What numbers in memory are known by."""
    numbers = np.ascontiguousarray(values, np.float64)
    return {"shape": list(numbers.shape), "digest": hashlib.sha256(numbers).hexdigest()}


def _dimension_names(y: Source, fit: Fit, design: Any) -> tuple[str, ...]:
    """Those of y, with the coefficients in place of the observations."""
    given = y.dimension_names
    names = list(given or (f"dim_{i}" for i in range(len(fit.shape))))
    terms = design.dimension_names if isinstance(design, Source) else None
    names[fit.axis] = terms[1] if terms else "coefficient"
    # xarray takes an array that is named like one of its dimensions for a coordinate.
    taken = {*Regression._fields}
    for place in (*range(fit.axis), *range(fit.axis + 1, len(names)), fit.axis):  # y's come first
        while {names[place], *_second(names[place], place == fit.axis)} & taken:
            names[place] += "_"
        taken |= {names[place]}
    return tuple(names)


def _second(term: str, is_term: bool = True) -> tuple[str, ...]:
    """What the second dimension of covariances is called, that of the first being this."""
    return (f"{term}_2",) * is_term


def reopened(
    y: Any, design: Any, weights: Any, record: journal.Record, location: str, mask_and_scale: bool
) -> Series:
    """The series of a job that was carried out, with the options that its record states."""
    stated = journal.fields(record, "options", location)
    if {*stated} != {*OPTIONS}:
        raise journal.damaged(location, f"its options are {stated}")
    return Series.open(y, design, weights, mask_and_scale=mask_and_scale, strict=False, **stated)


def _compared(
    anew: dict[str, NDArray[Any]], stored: dict[str, NDArray[Any]], fit: Fit, exactly: bool
) -> Compared:
    """Where a bit is not what it is computed to be, or, of another arithmetic, half of the bits."""
    status = anew["status"]
    ours = np.ones(status.shape, bool)
    if fit.on_deficient == "lstsq":  # those are LAPACK's, whose bits are not ours to promise
        ours = (status != Status.RANK_DEFICIENT) & (status != Status.TOO_FEW)
    suspects = {
        other(name, "series"): other_bits(stored[name], anew[name], status.shape)
        for name in ("status", "count")
    }
    for name in [name for name in anew if name not in ("status", "count")]:
        one, another = (_batch_first(values[name], name, fit) for values in (stored, anew))
        suspect = other_bits(one, another, status.shape) & ours
        if suspect.any() and (name == "covariance" or not exactly):
            suspect[suspect] = ~_alike(one[suspect], another[suspect])
        suspects[other(name, "series")] = suspect
    return Compared(suspects, {})


def _batch_first(values: NDArray[Any], name: str, fit: Fit) -> NDArray[Any]:
    """The numbers of a field, those of one series together."""
    return np.moveaxis(values, fit.axis, -1) if name in ("coef", "stderr") else values


def _alike(one: NDArray[Any], another: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the numbers of each series agree in half of their digits."""
    one, another = (v.reshape(len(v), -1).astype(np.float64) for v in (one, another))
    with np.errstate(invalid="ignore"):
        near = np.abs(one - another) <= np.sqrt(np.finfo(np.float32).eps) * np.abs(another)
    return np.asarray((near | (one == another) | (np.isnan(one) & np.isnan(another))).all(axis=1))
