"""Creates the output of a job, or completes that of an earlier run."""

import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any

from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

from dasksolve.errors import naming
from dasksolve.job import coordinates, journal, metadata
from dasksolve.job.coordinates import Coordinate
from dasksolve.job.output import Output
from dasksolve.job.prepare import Prepared
from dasksolve.job.work import Field, fill_value
from dasksolve.storage import documents, durable, groups, internals, marks, stores
from dasksolve.storage.documents import Document
from dasksolve.storage.marks import Mark


def create(prepared: Prepared, mark: Mark | None, meanwhile: Executor | None = None) -> Output:
    """Create the output, or complete that of an earlier run.

    mark: of this job; meanwhile: writes what is new and far away, while blocks are read already.
    """
    with naming(prepared.location):
        return _created(prepared, mark, meanwhile)


def _created(prepared: Prepared, mark: Mark | None, meanwhile: Executor | None) -> Output:
    store, location, found = prepared.store, prepared.location, prepared.found
    fields, beside = _fields(prepared), prepared.work.coordinates
    names = (*fields, *(coordinate.name for coordinate in beside))
    empty = found is None and ((mark is not None and mark.alone) or groups.is_empty(store))
    seen = _seen_again(prepared, names, empty)
    there: Future[None] | None = None
    if prepared.resumed:
        record, drafts = _completed(prepared, fields, seen)
    else:
        run = uuid.uuid4().hex
        record = journal.record(prepared.identity, prepared.plan.block_shape, run, names)
        drafts = metadata.drafts_of(fields, record, beside)
        if not empty or isinstance(store, LocalStore):  # where there may be links, and is a lock
            _begin(prepared, record, drafts)
        else:
            rest = naming(location)(_begun_empty(store, record, drafts, beside))
            if meanwhile is None or not stores.is_far(store):
                rest()
            else:
                there = meanwhile.submit(rest)
    wait = prepared.options.durable
    if wait:
        durable.secure_document(store)
    marks.sweep(store, mark and mark.key, journal.members(record))
    arrays = {
        name: groups.required_fields(
            groups.described_array(store, name, drafts[name], location),
            name,
            location,
            **{field: wanted[field] for field in ("shape", "chunks", "dtype", "fill_value")},
        )
        for name, wanted in fields.items()
    }
    return Output(store, location, record, drafts, arrays, wait, there)


def _seen_again(prepared: Prepared, names: Iterable[str], empty: bool) -> dict[str, Document]:
    """The documents of an output that is gone on with; refuse what changed since the job looked."""
    store, seen = prepared.store, dict[str, Document]()
    if prepared.found is None:
        changed = not (empty or groups.is_new_group(prepared.out, store))
    else:
        if prepared.resumed:  # of all that is there, something may have to be mended
            seen = documents.members(store, ("", *names))
            stating = [seen.get(name) for name in journal.STATING]
        else:
            stating = journal.see(store).result()
        changed = journal.glance(store, stating) != prepared.found
    if changed:
        raise BlockingIOError(
            f"somebody else has written to {prepared.location} since this job looked; look at what "
            "is there, and run the job again"
        )
    return seen


def _completed(
    prepared: Prepared, fields: dict[str, Any], seen: dict[str, Document]
) -> tuple[journal.Record, dict[str, Document]]:
    """Mend the output of an earlier run; return its record, and the metadata of its arrays."""
    store, beside = prepared.store, prepared.work.coordinates
    record = journal.continued(prepared.found or {})
    for name in journal.members(record):
        groups.refuse_link(store, name, prepared.location)
    beside = tuple(c for c in beside if c.name in journal.members(record))
    drafts = metadata.drafts_of(fields, record, beside)
    drafts = metadata.mend(store, record, drafts, seen, beside)
    if prepared.options.durable:
        _secure(store, drafts, beside)
    return record, drafts


def _begin(prepared: Prepared, record: journal.Record, drafts: dict[str, Document]) -> None:
    """Create an output; what is left of an earlier one was the job's own, and goes.

    In whatever order files are deleted, and wherever it stops: what says that nothing in it counts
    is there before the first of them goes, and until the last array is there.
    """
    store, beside = prepared.store, prepared.work.coordinates
    members = sorted({*journal.members(prepared.found or {}), *record["members"]})
    documents.write(store, {"": metadata.of_group(journal.unfinished(record, members))})
    if prepared.options.durable:
        durable.secure_document(store)
    groups.delete(store, members)
    copies = coordinates.drafts(beside)
    with coordinates.copied(store, beside, copies):
        documents.write(store, {**drafts, **copies})
    if prepared.options.durable:
        _secure(store, drafts, beside)
    internals.run(groups.published(store, metadata.of_group(record), {**drafts, **copies}))


def _begun_empty(
    store: Any,
    record: journal.Record,
    drafts: dict[str, Document],
    beside: tuple[Coordinate, ...],
) -> Callable[[], None]:
    """Begin to create an output where nothing is; return what waits for it, and ends it.

    The document of each array says all that a run needs that resumes it: they come in any order,
    but before the chunks of blocks, behind which they would wait for a thread that reads files.
    """
    copies, group = coordinates.drafts(beside), metadata.of_group(record)
    writing = internals.begin(groups.published(store, group, {**drafts, **copies}, drafts))

    def end() -> None:
        with coordinates.copied(store, beside, copies, ready=writing):
            writing.result()
            documents.write(store, copies)

    return end


def _secure(store: Any, drafts: Iterable[str], beside: tuple[Coordinate, ...]) -> None:
    durable.secure_files(store, [f"{name}/{documents.NAME}" for name in drafts])
    durable.secure_members(store, [coordinate.name for coordinate in beside])


def _fields(prepared: Prepared) -> dict[str, dict[str, Any]]:
    """How the arrays of an output are created, by name."""
    plan, chosen = prepared.plan, prepared.options.compressors
    chosen = [Crc32cCodec()] if chosen is None else chosen
    return {
        field.name: {
            "shape": field.shape(plan),
            "chunks": field.chunks(plan),
            "dtype": field.dtype,
            "fill_value": fill_value(field),
            "compressors": chosen if field.chosen else _codecs(field),
            "dimension_names": field.names,
        }
        for field in prepared.work.fields
    }


def _codecs(field: Field) -> list[Any]:
    """Codecs of numbers that are not the user's choice: whole ones compress well."""
    if field.dtype.kind == "f":
        return [Crc32cCodec()]
    if field.dtype.itemsize == 1:
        return [ZstdCodec(), Crc32cCodec()]
    # Byte by byte: a quarter of the time, and half of the bytes.
    return [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()]
