"""The metadata documents of a zarr group of format 3, read and written whole."""

import json
from collections.abc import Iterable
from typing import Any

import zarr
from zarr.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from dasksolve.storage import internals, stores

Document = dict[str, Any]

NAME = "zarr.json"
"""What the document of a group or array is called."""


def read(store: Any, member: str = "") -> Document | None:
    """The document of a member, "" for the group itself; None: there is none that can be read."""
    return internals.run(_read(store, member))


async def found(store: Any, members: Iterable[str]) -> list[Document | None]:
    """The documents of several members, all asked for at once."""
    return await internals.together(*(_read(store, member) for member in members))


def write(store: Any, documents: dict[str, Document]) -> None:
    """Put documents of members in the place of what was there, in any order.

    Each at once, where the store can.
    """
    internals.run(written(store, documents))


async def written(store: Any, documents: dict[str, Document]) -> None:
    """The same, on the loop that runs."""
    texts = {_key(name): json.dumps(d, indent=2).encode() for name, d in documents.items()}
    buffer = default_buffer_prototype().buffer

    async def put(key: str) -> None:
        with stores.naming(store, "write", key):
            await store.set(key, buffer.from_bytes(texts[key]))

    await internals.together(*map(put, texts))


def members(store: Any, expected: Iterable[str] = ()) -> dict[str, Document]:
    """The documents of all that is in a group, and in the groups in it, by path.

    expected: asked for while what there is is listed, "" for the group itself.
    """
    return internals.run(_members(store, "", tuple(expected)))


def opened(document: Document) -> zarr.Group:
    """The group of this document alone, as other programs see it by that."""
    text = default_buffer_prototype().buffer.from_bytes(json.dumps(document).encode())
    return zarr.open_group(MemoryStore({NAME: text}), mode="r", zarr_format=3)


def consolidated(group: Document, found: dict[str, Document]) -> Document:
    """The document of a group with those of its members in it, as zarr consolidates them."""
    inside = {
        path: _consolidation({}, document) if document.get("node_type") == "group" else document
        for path, document in sorted(found.items(), key=lambda item: (item[0].count("/"), item[0]))
    }
    return _consolidation(inside, group)


def inserted(outer: Document, path: str, found: dict[str, Document]) -> Document:
    """The consolidated document of a group, told of one in it, of its members and what is between.

    What it says of all others stays as it is.
    """
    said = outer["consolidated_metadata"].get("metadata", {})
    others = {
        place: document
        for place, document in said.items()
        if place != path and not place.startswith(f"{path}/")
    }
    return consolidated(outer, {**found, **others})


def consolidation(group: Document) -> dict[str, Document]:
    """The documents of the members that the document of a group has in it."""
    found = group.get("consolidated_metadata")
    inside = found.get("metadata") if isinstance(found, dict) else None
    documents = inside.items() if isinstance(inside, dict) else ()
    return {path: document for path, document in documents if isinstance(document, dict)}


def _consolidation(inside: dict[str, Document], group: Document) -> Document:
    found = {"kind": "inline", "must_understand": False, "metadata": inside}
    return {**group, "consolidated_metadata": found}


def _key(member: str) -> str:
    return f"{member}/{NAME}" if member else NAME


async def _read(store: Any, member: str) -> Document | None:
    try:
        with stores.naming(store, "read", _key(member)):
            stored = await store.get(_key(member), default_buffer_prototype())
        document = json.loads(stored.to_bytes()) if stored is not None else None
    except (FileExistsError, NotADirectoryError):  # the store itself is a file
        return None
    except (ValueError, RecursionError):  # what a power cut left of it
        return None
    return document if isinstance(document, dict) else None


async def _members(store: Any, group: str, expected: tuple[str, ...] = ()) -> dict[str, Document]:
    names: Any
    names, read = await internals.together(_names(store, group), found(store, expected))
    others = tuple(name for name in names if name not in expected)
    read += await found(store, others)
    there = {name: d for name, d in zip((*expected, *others), read, strict=True) if d is not None}
    for name, document in list(there.items()):
        if name and document.get("node_type") == "group":
            there |= await _members(store, name)
    return there


async def _names(store: Any, group: str) -> list[Any]:
    """The paths of what may be members of a group."""
    prefix = f"{group}/" if group else ""
    return [
        f"{prefix}{name}"
        async for name in store.list_dir(group)
        if name != NAME and not name.endswith(".partial")  # a mark
    ]
