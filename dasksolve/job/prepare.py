"""`prepare`: looks at all that could be refused and plans the job, before anything is written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from zarr.storage import LocalStore

from dasksolve import kernels
from dasksolve.batch.options import check_flags
from dasksolve.errors import retold
from dasksolve.job import journal, memory, room
from dasksolve.job.plan import Plan
from dasksolve.job.planning import make_plan
from dasksolve.job.progress import Progress
from dasksolve.job.schedulers import Scheduler, choose
from dasksolve.job.work import Work
from dasksolve.storage import groups, internals, locations, marks, stores
from dasksolve.storage.stores import OutputLocation


@dataclass(frozen=True)
class JobOptions:
    """How a job is carried out, whatever it does to a block; `solve_zarr` documents each."""

    memory_limit: int | str | None = None
    workers: int | None = None
    client: Any = None
    resume: bool = False
    overwrite: bool = False
    strict: bool = True
    durable: bool = True
    compressors: Any = None
    progress: Progress | bool | None = None


@dataclass(frozen=True)
class Prepared:
    """A job that may begin: all that could be refused has been looked at, nothing is written."""

    work: Work
    scheduler: Scheduler
    plan: Plan
    options: JobOptions
    out: OutputLocation
    store: Any
    location: str
    identity: journal.Record
    found: journal.Record | None
    """The record of the output that is there."""
    resumed: bool
    """It is gone on with; False: what is there of it is deleted."""


def prepare(open_work: Callable[[], Work], out: OutputLocation, options: JobOptions) -> Prepared:
    """Look at everything and plan the job, or refuse it; write nothing.

    open_work: opens what is read, and describes what is to be done with it.
    """
    resume, overwrite = options.resume, options.overwrite
    check_flags(resume=resume, overwrite=overwrite)
    if resume and overwrite:
        raise ValueError("resume keeps what is there and overwrite replaces it: choose one")
    store, location = stores.open_store(out)
    with internals.Helpers(1) as pool:  # far away, each waits for a request or two
        looking = pool.submit(_look, out, store, resume or overwrite)
        work = open_work()
    scheduler = choose(options.client, options.workers)
    read = [(source.location, source.array.store) for source in work.sources]
    scheduler.refuse_private([*read, (location, store)])
    seen = looking.result()
    deletes = overwrite
    if resume and seen:  # what a job left that was stopped at its beginning is deleted, too
        deletes = journal.is_unfinished(journal.glance(store, seen) or {})
    _refuse_overlap(store, locations.whereabouts(store, location), work, deletes)
    found = _find(store, location, seen, options) if seen else None
    identity = journal.identity(work.identity())
    block_shape = None
    if found is None or deletes:
        groups.refuse_within_array(store, location)
        _refuse_unwritable(work, store, location)
        if found is not None:
            _refuse_answers(store, location, work, found)
            groups.refuse_others(store, location, journal.members(found))
    else:
        journal.refuse_changes(found, identity, location)
        journal.refuse_mixture(found, seen[1], location)
        block_shape = journal.block_shape(found, work.batch_shape, location)
    plan = plan_job(work, scheduler, store, options.memory_limit, block_shape)
    work.warn(plan)
    if found is None:
        room.warn_of(work, store, location)
    resumed = found is not None and not deletes
    return Prepared(work, scheduler, plan, options, out, store, location, identity, found, resumed)


def rehearse(prepared: Prepared) -> None:
    """Refuse what is met only once a job begins: what workers do not see, write to, or compute.

    And where an output is gone on with, that it may not be written to: of one that is done, nobody
    need write.
    """
    store, location, scheduler = prepared.store, prepared.location, prepared.scheduler
    work = prepared.work
    inputs = [source.array for source in work.sources]
    scheduler.everywhere(journal.refuse_other_arithmetic, kernels.ARITHMETIC)
    scheduler.everywhere(marks.look, inputs, store, None)
    if prepared.resumed:
        if _is_done(prepared):
            return
        _refuse_unwritable(work, store, location)
    scheduler.everywhere(groups.refuse_unwritable, store, _members(work))


def _members(work: Work) -> list[str]:
    return [field.name for field in work.fields]


def _refuse_unwritable(work: Work, store: Any, location: str) -> None:
    try:
        groups.refuse_unwritable(store, _members(work))
    except OSError as error:
        raise retold(error, f"the output {location} cannot be written: {error}") from error


def _is_done(prepared: Prepared) -> bool:
    """Whether an output that is gone on with has a status for every system."""
    plan, fields = prepared.plan, prepared.work.fields
    try:
        found = groups.arrays(prepared.store, ["status"], prepared.location)["status"]
        blocks = (fields[-1].region(plan.block(number)) for number in range(plan.blocks))
        return not any(journal.unsolved(np.asarray(found[block])) for block in blocks)
    except Exception:  # what is damaged is written again
        return False


def _look(out: OutputLocation, store: Any, expected: bool) -> journal.Stating:
    """See what is there; an empty list: nothing is yet.

    expected: something is, and it is seen while that is made sure of; not in a folder, which zarr
    makes where there is none.
    """
    seeing = journal.see(store) if expected and not isinstance(store, LocalStore) else None
    if groups.is_new_group(out, store) or groups.is_empty(store):
        return []
    return (seeing or journal.see(store)).result()


def _find(store: Any, location: str, seen: journal.Stating, options: JobOptions) -> journal.Record:
    """Return the record of an earlier job."""
    expected = options.resume or options.overwrite
    try:
        found = journal.find(store, location, seen)
    except ValueError as error:  # nothing but the output of a job is resumed or replaced
        if expected:
            raise
        raise FileExistsError(str(error)) from error
    if not expected:
        raise FileExistsError(
            f"{location} exists; resume=True (--resume) goes on with it, "
            "overwrite=True (--overwrite) replaces it"
        )
    return found


def _refuse_overlap(store: Any, location: str, work: Work, deletes: bool) -> None:
    """Refuse to write among the chunks of an array, or to delete what is to be read."""
    for source in (*work.sources, *work.beside):
        if locations.is_namesake(source.array.store, store):
            continue
        place = locations.whereabouts(source.array.store, source.location, source.array.path)
        within = locations.lies_in(location, place)
        if within or (deletes and locations.lies_in(place, location)):
            harm = f"{location} lies in" if within else f"overwriting {location} would delete"
            raise ValueError(
                f"{harm} {source.name}, which is {source.location}; choose another output"
            )


def _refuse_answers(store: Any, location: str, work: Work, found: journal.Record) -> None:
    """Refuse to delete answers that are to be read from a store which calls them otherwise."""
    naming = locations.naming(store)
    answers = [
        (source, run)
        for source in (*work.sources, *work.beside)
        if (naming is None or naming != locations.naming(source.array.store))
        and (run := journal.run_of(source.array.attrs))
    ]
    deleted = journal.runs(store, found) if answers else ()
    for source, run in answers:
        if run in deleted:
            raise ValueError(
                f"overwriting {location} would delete {source.name}, if {source.location} is no "
                "copy of it; choose another output, or open a copy as the output is opened"
            )


def plan_job(
    work: Work,
    scheduler: Scheduler,
    output: Any,
    memory_limit: int | str | None,
    block_shape: tuple[int, ...] | None,
) -> Plan:
    """Plan the blocks of a job for where it runs; `block_shape`: as an earlier run had them."""
    if memory_limit is None:
        limit = scheduler.memory_limit() or memory.available() // 2
    else:
        limit = memory.parse_size("memory_limit", memory_limit)
    plan = make_plan(
        work.needs,
        memory_limit=limit,
        workers=scheduler.workers,
        processes=scheduler.processes,
        task_cost=scheduler.task_cost,
        fixed_workers=scheduler.fixed,
        far=any(map(stores.is_far, [*(source.array.store for source in work.sources), output])),
        cached=kernels.has_cache(),
        block_shape=block_shape,
    )
    scheduler.refuse_memory(plan.memory)
    return plan
