"""The metadata documents of a job's output: as they are created, and mended."""

from collections.abc import Sequence
from typing import Any

import zarr
from zarr.storage import MemoryStore

from dasksolve.job import coordinates, journal
from dasksolve.job.coordinates import Coordinate
from dasksolve.status import Status
from dasksolve.storage import documents, groups, internals
from dasksolve.storage.documents import Document

FLAGS = {
    "flag_values": [int(status) for status in Status],
    "flag_meanings": " ".join(status.name.lower() for status in Status),
}
"""Attributes of status, by which other programs know what its numbers mean (CF, section 3.5)."""


def mend(
    store: Any,
    record: journal.Record,
    drafts: dict[str, Document],
    there: dict[str, Document],
    beside: Sequence[Coordinate] = (),
) -> dict[str, Document]:
    """Write what is missing of an output's metadata, and return those of its arrays.

    there: the documents of the group, "", and of all that is in it.
    """
    group = there.get("", {})
    kept = documents.consolidation(group)
    complete = {
        name: there.get(name)
        or (kept[name] if _alike(kept.get(name, {}), drafts[name]) else drafts[name])
        for name in drafts
    }
    complete["status"] = _stating(record, complete["status"])
    changed = {name: found for name, found in complete.items() if found != there.get(name)}
    lost = coordinates.missing(store, beside, there)
    copies = coordinates.drafts(lost)
    groups.delete(store, [name for name in copies if there.get(name) not in (None, copies[name])])
    with coordinates.copied(store, lost, copies):
        documents.write(store, {**changed, **copies})
    members = {name: found for name, found in {**there, **complete, **copies}.items() if name}
    wanted = _stating(record, {**group, "zarr_format": 3, "node_type": "group"})
    internals.run(groups.published(store, wanted, members, was=group))
    return complete


def drafts_of(
    fields: dict[str, Any], record: journal.Record, beside: tuple[Coordinate, ...]
) -> dict[str, Document]:
    """The metadata of the arrays of an output, as zarr writes them."""
    store = MemoryStore()
    group = zarr.create_group(store, zarr_format=3)
    for name, wanted in fields.items():
        attributes = coordinates.attributes(beside, wanted["dimension_names"])
        attributes |= journal.attributes(record)
        if name == "status":
            attributes |= FLAGS
        try:
            group.create_array(name, attributes=attributes, **wanted)
        except Exception as error:  # zarr says what is a codec only once it makes an array
            raise ValueError(
                f"compressors={wanted['compressors']!r} are not bytes-to-bytes codecs of zarr, "
                f"such as [zarr.codecs.ZstdCodec(checksum=True)]: {type(error).__name__}: {error}"
            ) from error
    return documents.members(store)


def of_group(record: journal.Record) -> Document:
    return _stating(record, {"zarr_format": 3, "node_type": "group"})


def _stating(record: journal.Record, document: Document) -> Document:
    """The metadata of an array with the record among its attributes."""
    attributes = document.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    return {**document, "attributes": {**attributes, **journal.attributes(record)}}


def _alike(one: Document, other: Document) -> bool:
    """Whether two arrays are alike but for how their chunks are encoded."""
    fields = ("node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value")
    return all(one.get(field) == other[field] for field in fields)
