"""The zarr group that a job writes: opened, looked into, cleared and published."""

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

from dasksolve.errors import listed, retold
from dasksolve.storage import documents, internals, locations, marks, secrets, stores

logger = logging.getLogger(__name__)

_PARTS = ("c", "sums")
"""The folders of an array of ours: chunks, and checksums where chunks have none.

Of an array without dimensions, which has one chunk, they are files.
"""


def is_empty(store: Any) -> bool:
    """Whether a store holds nothing but, perhaps, files that a killed process left half written."""
    if not isinstance(store, LocalStore):  # zarr's is_empty lists every chunk
        try:
            return all(map(marks.PARTIAL.search, internals.names(store)))
        except Exception as error:
            text = f"cannot look into {locations.of(store)}: {secrets.told(error)}"
            raise retold(error, text) from secrets.cause(error)
    root = Path(store.root)
    # Path.rglob passes over folders that may not be read, as if there were nothing in them.
    files = (name for _, _, names in os.walk(root, onerror=_raise) for name in names)
    try:
        return all(map(marks.PARTIAL.search, files))
    except NotADirectoryError:
        return not root.exists()  # a file, or within one


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # it is not there, or no longer
        raise error


def is_new_group(where: Any, store: Any) -> bool:
    """Whether somebody opened a group to be written, which has nothing in it yet."""
    if not isinstance(where, zarr.Group) or where.metadata.zarr_format != 3:
        return False
    return not where.attrs and not documents.members(store)


def refuse_link(store: Any, name: str, location: str) -> None:
    """Refuse an array of an output that is elsewhere."""
    root = store.root if isinstance(store, LocalStore) else None
    if root is not None and not (root / name).resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"{location}/{name} is a link that leads to {(root / name).resolve()}, which is no "
            "part of the output; choose another output"
        )


def refuse_unwritable(store: Any, members: Iterable[str] = ()) -> None:
    """Refuse an output that this process may not write to, or any folder of these arrays of it."""
    stores.refuse_unwritable(store, documents.NAME)
    for name in members if isinstance(store, LocalStore) else ():
        for folder in (f"{name}/{part}" for part in ("", *_PARTS)):
            if Path(store.root, folder).is_dir():
                stores.refuse_unwritable(store, f"{folder}/0")


def refuse_within_array(store: Any, location: str) -> None:
    """Refuse an output in the folder of an array, whoever's: its chunks are there, no groups."""
    if not isinstance(store, LocalStore):
        return
    for folder in Path(store.root).parents:
        document = None
        if (folder / documents.NAME).is_file():
            with suppress(OSError):  # one that may not be read is none of ours
                document = documents.read(stores.Files(folder))
        if (folder / ".zarray").is_file() or (document or {}).get("node_type") == "array":
            raise ValueError(
                f"{location} lies in {folder}, which is a zarr array; choose another output"
            )


def refuse_others(store: Any, location: str, ours: Iterable[str]) -> None:
    """Refuse to replace a group in which somebody else keeps arrays, or has put them."""
    ours = [*ours]
    members = {path.partition("/")[0] for path in documents.members(store, ours)}
    if others := sorted(members - {*ours}):
        raise ValueError(
            f"{location} holds {listed(others)}, which the job did not write that wrote the "
            "rest; nothing of it is overwritten: move or delete that yourself, or choose another "
            "output"
        )
    for name in ours if isinstance(store, LocalStore) else ():
        _refuse_no_folder(store, name, location)


def _refuse_no_folder(store: LocalStore, name: str, location: str) -> None:
    """Refuse to delete an array in which something else stands where it had folders, or a file."""
    array = Path(store.root, name)
    if array.is_symlink():  # of which nothing but the link is deleted
        return
    wrong = [array] if array.exists() and not array.is_dir() else []
    fits = Path.is_file if _is_single(documents.read(store, name)) else Path.is_dir
    parts = (array / part for part in _PARTS)
    wrong += [path for path in parts if path.is_symlink() or (path.exists() and not fits(path))]
    wrong += [path for path in (array / documents.NAME,) if path.is_dir()]
    if wrong:
        raise ValueError(
            f"{wrong[0]} is not what the job wrote that {location} is the output of; nothing of "
            "it is overwritten: move or delete that yourself, or choose another output"
        )
    refuse_unwritable(store, (name,))  # else what is there would count no more, and stay


def arrays(
    store: Any, required: Sequence[str], location: str, others: Sequence[str] = ()
) -> dict[str, Any]:
    """The arrays of a job's output that must be there, and what there is of others."""
    names = (*required, *others)
    for name in names:
        refuse_link(store, name, location)
    read = internals.run(documents.found(store, names))
    found = {name: document for name, document in zip(names, read, strict=True) if document}
    lost = next((name for name in required if name not in found), None)
    if lost is not None:
        raise ValueError(f"{location} has no array {lost}; resume the job that writes it")
    return {name: described_array(store, name, found[name], location) for name in found}


def described_array(store: Any, name: str, document: documents.Document, location: str) -> Any:
    """The array of a job's output whose metadata were read already, or written."""
    refuse_link(store, name, location)
    if document.get("node_type") != "array":
        raise _damaged(location, name, f"it is a {document.get('node_type')}, not an array")
    try:
        return internals.described(store, name, document)
    except Exception as error:
        raise _damaged(location, name, f"{type(error).__name__}: {error}") from error


def required_fields(array: Any, name: str, location: str, **wanted: Any) -> Any:
    """Make sure that an array of an output is the one that is wanted; return it for writing."""
    for field, value in wanted.items():
        found = getattr(array, field)
        if found != value and (found == found or field != "fill_value"):
            raise _damaged(location, name, f"its {field} is {found}, not {value}")
    # Written even where they hold nothing but the fill value: a block is done when it is there.
    return internals.storing_all(array)


def refuse_misleading(document: documents.Document, arrays: dict[str, Any], location: str) -> None:
    """Refuse an output whose own document is lost, or says of its arrays what is not so.

    Other programs find them by it, and read them as it says.
    """
    try:
        if document.get("node_type") != "group":  # which zarr itself takes for one
            raise ValueError(f"its node_type is {document.get('node_type')}")
        group = documents.opened(document)
        if document.get("consolidated_metadata") is None:
            return
        wrong = [name for name in arrays if _read_as(group[name]) != _read_as(arrays[name])]
        cause = f"of {listed(wrong)} it says what is not so" if wrong else ""
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
    if cause:
        raise ValueError(
            f"the document {documents.NAME} of the group {location}, by which other programs read "
            f"it, is lost or damaged: {cause}; resume=True (--resume) writes it again"
        )


def _read_as(array: Any) -> dict[str, Any]:
    """What the numbers of an array depend on."""
    return {**array.metadata.to_dict(), "attributes": None}


def _damaged(location: str, name: str, cause: str) -> ValueError:
    return ValueError(
        f"the array {name} of {location} is damaged: {cause}; start again with overwrite=True "
        "(--overwrite)"
    )


def is_checked(array: Any) -> bool:
    """Whether chunks of an array have a checksum, by which zarr knows them from others."""
    return any(
        isinstance(codec, Crc32cCodec) or (isinstance(codec, ZstdCodec) and codec.checksum)
        for codec in array.compressors
    )


def delete(store: Any, members: Sequence[str]) -> None:
    """Delete what a job wrote into arrays; of what else is there, nothing."""
    if not isinstance(store, LocalStore):
        internals.run(_delete_far(store, members))
        return
    for name in members:
        folder = Path(store.root, name)
        if folder.is_symlink():
            folder.unlink()
        if not folder.is_dir():  # what each deletion of nothing takes, a job would wait for
            continue
        for part in _PARTS:
            is_file = (folder / part).is_file()
            delete = internals.delete if is_file else internals.delete_folder
            internals.run(delete(store, f"{name}/{part}"))
        internals.run(internals.delete(store, f"{name}/{documents.NAME}"))
        for orphan in folder.glob("*.partial"):
            orphan.unlink()
        with suppress(OSError):  # it is not there, or somebody keeps something in it
            folder.rmdir()


async def _delete_far(store: Any, members: Sequence[str]) -> None:
    deletions = []
    for name, document in zip(members, await documents.found(store, members), strict=True):
        delete = internals.delete if _is_single(document) else internals.delete_folder
        deletions += [delete(store, f"{name}/{part}") for part in _PARTS]
        deletions.append(internals.delete(store, f"{name}/{documents.NAME}"))
    await internals.together(*deletions)


def _is_single(document: documents.Document | None) -> bool:
    """Whether an array has no dimensions."""
    return document is not None and document.get("shape") == []


async def published(
    store: Any,
    group: documents.Document,
    members: dict[str, documents.Document],
    unwritten: Iterable[str] = (),
    was: documents.Document | None = None,
) -> None:
    """Write the document of a group with consolidated metadata, as xarray wants to find them.

    Groups above that have them are told of this one, which is not seen there otherwise.

    members: the documents of all that is in it; unwritten: those that are not there yet, and may
    come in any order; was: the document that is there.

    zarr's own function warns; to silence that for a moment would silence all threads, and two that
    do it at once leave the filter behind.
    """
    new = {name: members[name] for name in unwritten}
    document = documents.consolidated(group, members)
    if document != was:
        new[""] = document
    writing = documents.written(store, new)
    found: list[Any] = await internals.together(_all_above(store), writing)
    await _tell_above(store, {"": group, **members}, found[0])


async def _all_above(store: Any) -> list[tuple[Any, str, documents.Document]]:
    """The groups that a store lies in, with what is below called in each, and their documents."""
    found: list[tuple[Any, str, documents.Document]] = []
    try:
        above = stores.above(store)
        while above is not None:
            parent, name = above
            [outer] = await documents.found(parent, ("",))
            if outer is None:
                break
            found.append((parent, name, outer))
            above = stores.above(parent)
    except Exception as error:  # what is above may be none of ours to read
        _warn(store, error)
    return found


async def _tell_above(
    store: Any,
    found: dict[str, documents.Document],
    above: list[tuple[Any, str, documents.Document]],
) -> None:
    """Put a group and its members into the consolidated metadata of the groups that it lies in."""
    path = ""
    for parent, name, outer in above:
        path = f"{name}/{path}".rstrip("/")
        found = {f"{name}/{place}".rstrip("/"): document for place, document in found.items()}
        if outer.get("consolidated_metadata"):
            try:
                async with marks.alone(parent, documents.NAME):  # who tells it of others, too
                    [now] = await documents.found(parent, ("",))
                    told = documents.inserted(now or outer, path, found)
                    await documents.written(parent, {"": told})
            except Exception as error:
                _warn(store, error)
                return
        found = {"": outer, **found}


def _warn(store: Any, error: Exception) -> None:
    logger.warning("%s does not show in the group above: %s", store, error)
