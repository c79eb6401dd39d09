"""The sweep: removes files of the store that nothing names any more, and never one that somebody still needs.

    parts/         parts whose writer was killed before the marker; parts of masklets that are in a large file, once no
                   release names them
    compacted/     large files whose writer was killed
    warehouse/     metadata of snapshots that were expired, or never committed

A file is removed when two sweeps, a day apart, found that nothing names it, and it was not written since. So a reader
or a writer that began before has a day to end. `condemned.json` keeps what the first sweep found. Reads every manifest
of every release: run it once a day at most. Errors: a release or a table that cannot be read stops the sweep before
anything is removed.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.blobs.base import BlobMissing, Blobs, read_json
from storage.blobs.cleaning import LEFT_S
from storage.dataset import batch_manifests, parts, releases
from storage.dataset.batch_manifests import KINDS, BatchRef
from storage.iceberg.table_errors import damage
from storage.iceberg.tables import RECORDS, Tables

if TYPE_CHECKING:
    from pyiceberg.table import Table

_CONDEMNED = "condemned.json"
_METADATA = re.compile(r".*\.(avro|metadata\.json)")


@dataclass(frozen=True)
class Swept:
    """What a sweep did."""

    removed: int  # files
    waiting: int  # files that nothing names, for less than a day
    problems: tuple[str, ...]  # why files were left alone: another catalog uses them, or another address names them


def sweep(
    blobs: Blobs,
    tables: Tables,
    now: float | None = None,
    removing: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Swept:
    """Removes what two sweeps, a day apart, found unnamed. now: s since 1970; None: the clock.

    removing: gives the lock under which files are removed. A writer of large files that holds the same lock does not
    lose a file that it finds, and writes again, between the last look at the file and its removal.
    Raises ReleaseError, BlobError, TablesError.
    """
    at = time.time() if now is None else now
    problems = list[str]()
    named, large = _named(blobs)
    found = _unnamed(blobs, tables, named, large, problems)
    unnamed = {key: written for key, written in found if written < at - LEFT_S}
    try:
        condemned = read_json(blobs, _CONDEMNED)
    except BlobMissing:
        condemned = {}
    due = [key for key, written in unnamed.items() if written < float(condemned.get(key, at)) <= at - LEFT_S]
    with removing() if due else nullcontext():  # with nothing to remove, no sweep waits for a long publish
        removed = sum(_remove(blobs, key, unnamed[key], large) for key in due)
    waiting = {key: condemned.get(key, at) for key in unnamed if key not in set(due)}
    if waiting or condemned:
        blobs.write(_CONDEMNED, json.dumps(waiting).encode())
    return Swept(removed, len(waiting), tuple(problems))


def _remove(blobs: Blobs, key: str, written: float, large: Collection[str]) -> bool:
    """Removes a file, and returns whether it did. A part stays, or comes back, if its marker is made at this moment.

    written: when the sweep listed it. A file that was written since stays: a writer that went on needs it.
    """
    needs_marker = parts.place_of(key) is not None and key not in large
    data = blobs.read(key) if needs_marker else b""
    if _is_marked(blobs, key, large) or (key, written) not in blobs.written(key):
        return False
    blobs.delete(key)
    if _is_marked(blobs, key, large):
        return not blobs.create(key, data)
    return True


def _unnamed(
    blobs: Blobs, tables: Tables, named: Collection[str], large: Collection[str], problems: list[str]
) -> Iterator[tuple[str, float]]:
    """The files that nothing names, with the time when they were written.

    named: by releases and compactions. large: parts in large files. A line is added to `problems` for each table
    whose folder another catalog uses. If the store was opened under another address than its tables have, nothing can
    be compared with them: then there is one line, and no file.
    """
    found = [(key, at) for prefix in ("parts/", "compacted/") for key, at in blobs.written(prefix)]
    metadata = {name: list(blobs.written(f"warehouse/{name}/metadata/")) for name in RECORDS}
    in_tables, of_metadata = set[str](), dict[str, set[str]]()
    for name in RECORDS:
        data, of_metadata[name] = _of_table(tables.load(name), name)
        in_tables |= data
    root = f"{blobs.uri}/"
    homes = {f"{tables.load(name).metadata.location}/" for name in RECORDS}
    addresses = sorted(homes.union(in_tables, *of_metadata.values()))
    if foreign := next((address for address in addresses if not address.startswith(root)), None):
        below = re.split("/(?:warehouse|parts|compacted)/", foreign)[0]
        problems.append(f"the tables name files below {below}, this store is {blobs.uri}: nothing was swept")
        return
    needed = {*named, *(address.removeprefix(root) for address in in_tables)}
    alone = _alone(blobs, [key for key, _ in found]).difference(large)
    for key, at in found:
        if key in needed or key in alone or key.startswith("compacted/groups/"):
            continue
        if not _is_marked(blobs, key, large):
            yield key, at
    for name, files in metadata.items():
        unnamed = [(key, at) for key, at in files if root + key not in of_metadata[name] and _METADATA.fullmatch(key)]
        uuid = str(tables.load(name).metadata.table_uuid)
        owners = {key: _owner(blobs, key) for key, _ in unnamed if key.endswith(".metadata.json")}
        others = {key: of for key, of in owners.items() if of is not None and of.table_uuid != uuid}
        if any(of.has_rows for of in others.values()):
            problems.append(f"warehouse/{name}: another catalog keeps a table there: its files are left alone")
        else:  # two processes made the table at once, and one of the two files belongs to no table; it stays
            yield from ((key, at) for key, at in unnamed if key not in others)


def _alone(blobs: Blobs, keys: Iterable[str]) -> set[str]:
    """The parts with a marker beside which there is no other part of the same video, batch and kind.

    Their markers name no other part, so they need not be read: a request a part would be most of the cost of a sweep.
    keys: of all parts, listed before.
    """
    places = defaultdict[tuple[str, str, str], list[str]](list)
    for key in keys:
        if place := parts.place_of(key):
            places[place].append(key)
    marked = set[tuple[str, str, str]]().union(*(parts.all_marked(blobs, kind) for kind in parts.KINDS))
    return {of[0] for place, of in places.items() if len(of) == 1 and place in marked}


def _is_marked(blobs: Blobs, key: str, large: Collection[str]) -> bool:
    """Whether a file is a part that its marker names. A part of masklets in a large file is read by nobody.

    A part whose batch was committed without some of its rows is in no large file: it is the only copy of these rows.
    """
    if key in large or (place := parts.place_of(key)) is None:
        return False
    marker = parts.marker(blobs, *place)
    return marker is not None and marker.key == key


def _named(blobs: Blobs) -> tuple[set[str], set[str]]:
    """The files that releases and unfinished compactions name, and the parts of masklets that are in large files."""
    named, refs, large = set[str](), dict[str, BatchRef](), set[str]()
    for name in releases.names(blobs):
        release = releases.load(blobs, name)
        named.update(file.key for kind in KINDS for file in release.first_files[kind])
        refs.update((ref.key, ref) for ref in release.batches)
    for key in blobs.keys("compacted/groups/"):
        for ref in (BatchRef(**listed) for listed in read_json(blobs, key)["manifests"]):
            refs[ref.key] = ref
    for ref in refs.values():
        manifest = batch_manifests.read_json(blobs, ref)
        files, replaces = batch_manifests.read(blobs, ref), manifest.get("replaces", {})
        named.update(file.key for kind in KINDS for file in files[kind])
        named.update(of["new"] for of in replaces.values())
        large.update(replaces.get("masklets", {}).get("old", ()))
    return named, large


def _of_table(table: Table, name: str) -> tuple[set[str], set[str]]:
    """The addresses of the data files and of the metadata of every snapshot that a table has."""
    metadata = table.metadata
    data, files = set[str](), {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    files |= {found.statistics_path for found in (*metadata.statistics, *metadata.partition_statistics)}
    with damage(name):
        for snapshot in metadata.snapshots:
            files.add(snapshot.manifest_list)
            for manifest in snapshot.manifests(table.io):
                if manifest.manifest_path not in files:
                    files.add(manifest.manifest_path)
                    entries = manifest.fetch_manifest_entry(table.io)
                    data.update(entry.data_file.file_path for entry in entries)
    return data, files


@dataclass(frozen=True)
class _Owner:
    """The table that a file of metadata is of."""

    table_uuid: str
    has_rows: bool  # it had a snapshot when the file was written


def _owner(blobs: Blobs, key: str) -> _Owner | None:
    """None if the file went away, or a killed writer left half of it."""
    try:
        data = blobs.read(key)
        found: Any = json.loads(gzip.decompress(data) if key.endswith(".gz.metadata.json") else data)
        return _Owner(str(found["table-uuid"]), bool(found.get("snapshots")))
    except (BlobMissing, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
