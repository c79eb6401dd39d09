"""Admitted videos: their folder in the store, and how they become a batch.

    videos/<video_id>/record.json   create-only: the video counts as admitted from here on; names its project
                      video.mp4     normalised
                      looks.npz     for finding near duplicates: see `hash_index.py`
                      frames.json   which source frame each frame of video.mp4 shows, and when: see
                                    `storage/videos/frame_times.py`
                      truth.json    ground truth, where the source has it
                      imported      empty: an import has admitted it, so no model proposes for it
                      committed     create-only: its batch, which has it for ever; made before its row is committed
                      published/    the batches that publish masklets of it (`storage/dataset/parts.py`)
    uncommitted/videos/<video_id>             empty: made before the record, deleted when its batch is marked
    uncommitted/batches/<batch_id>.json       the videos that a batch asks for, their splits and project, until it is
                                              marked

A run that was killed leaves its files below `uncommitted/`; the next run commits them. Two processes may begin batches
with the same video: `committed` decides which one gets it. Knows nothing of sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from engine import batches
from engine.batches import BatchStage
from engine.ingest import hash_index, splits
from engine.ingest.near_duplicates import Looks
from engine.services import Services
from engine.settings import IngestSettings
from engine.stored_json import parse
from storage.blobs.base import BlobDamaged, BlobMissing, Blobs, read_json
from storage.dataset import parts, withdrawn
from storage.formats import sav
from storage.records import Masklet, Video, content_id
from storage.videos import frame_times
from storage.videos.normalise import Normalised

_VIDEO = TypeAdapter(Video)
_UNCOMMITTED = "uncommitted/"
WAITING = f"{_UNCOMMITTED}videos/"  # the marks of videos that no batch has yet


def folder(video_id: str) -> str:
    """The key below which everything of a video is."""
    return f"videos/{video_id}"


def read_record(blobs: Blobs, video_id: str) -> Video | None:
    """The record of an admitted video; None if it is not admitted. Raises BlobDamaged.

    It has no batch yet, and a split only if an imported annotation names one.
    """
    key = f"{folder(video_id)}/record.json"
    try:
        return parse(_VIDEO, blobs.read(key), key)
    except BlobMissing:
        return None


def write(
    blobs: Blobs,
    record: Video,
    video: Path,
    made: Normalised,
    truth: bytes | None,
    imported: bool,
    project: str = "",
    looks: Looks | None = None,
) -> bool:
    """Stores a video and admits it; False if another process has admitted the same bytes first.

    made: the times of its frames, and what was changed. project: that its batch belongs to; "": the unnamed one.
    looks: at it, for finding near duplicates.
    """
    here = folder(record.video_id)
    if truth is not None:
        blobs.write(f"{here}/truth.json", truth)
    blobs.write(f"{here}/video.mp4", video)
    blobs.write(f"{here}/frames.json", frame_times.dump(made))
    if looks is not None:
        blobs.write(hash_index.looks_key(record.video_id), hash_index.dump(looks))
    if imported:  # before the record: nobody may see the video without this
        blobs.create(f"{here}/imported", b"")
    blobs.create(_waiting(record.video_id), b"")
    content = _VIDEO.dump_json(record)
    if project:  # in the record: whoever admits the video decides whose it is
        content = json.dumps(_VIDEO.dump_python(record, mode="json") | {"project": project}).encode()
    if blobs.create(f"{here}/record.json", content):
        return True
    if blobs.exists(_committed(record.video_id)):  # else the other process still needs it, whoever made it
        blobs.delete(_waiting(record.video_id))
    return False


def _project_of(blobs: Blobs, video_id: str) -> str:
    """The project for which a video was admitted."""
    return str(read_json(blobs, f"{folder(video_id)}/record.json").get("project", ""))


def _ingest_of(s: Services, project: str) -> IngestSettings:
    """What the settings say about the videos of a project; of one that has left them, what they say about all."""
    return s.settings.of_project(project if project in s.settings.project_names else "").ingest


def source_times(blobs: Blobs, video_id: str) -> list[float]:
    """The time of each frame of a video's source file, s from the first. Empty if an earlier version admitted it.

    Raises BlobMissing, BlobDamaged.
    """
    return list(frame_times.load(blobs, f"{folder(video_id)}/frames.json").source_s)


def batches_of(blobs: Blobs, video_id: str) -> set[str]:
    """The batch that has a video for ever; empty before it has one, and if an earlier version admitted it."""
    try:
        return {blobs.read(_committed(video_id)).decode()}
    except BlobMissing:
        return set()


def erase(blobs: Blobs, video_id: str) -> int:
    """Deletes the files of a withdrawn video, and returns their number.

    Its record stays without its source, so the same bytes are known and never admitted again; its marks stay too.
    """
    if (found := read_record(blobs, video_id)) is not None:
        unnamed = replace(found, source_uri="withdrawn", source_name=None, source_metadata=None)
        blobs.write(f"{folder(video_id)}/record.json", _VIDEO.dump_json(unnamed))
    erased = 0
    for key in list(blobs.keys(f"{folder(video_id)}/")):
        if key.endswith(("/video.mp4", "/frames.json", "/truth.json", "/looks.npz")):
            withdrawn.mark_erased(blobs, key, None)
            blobs.delete(key)
            blobs.forget(key)
            erased += 1
    return erased


def truths(blobs: Blobs, video: Video) -> list[Masklet]:
    """The true masklets of a video with ground truth (`truth_key`), in their order. Raises SavError, BlobError."""
    assert video.truth_key is not None
    annotation = sav.load(blobs.read(video.truth_key))
    return sav.from_sav(annotation, video=video, source_s=source_times(blobs, video.video_id))


def commit(s: Services, uris: set[str], only: AbstractSet[str] | None = None) -> tuple[list[str], list[Video]]:
    """Commits every admitted video that is not committed yet, and marks its batch.

    The videos from `uris` become batches of at most `ingest.batch_videos` of their project. Videos that a killed run
    over another source left become other batches, and so do an import's, and those of another project: each batch is
    later treated as a whole.
    only: ids of the videos to commit; None: all that wait. With it, the videos that other processes are about to commit
    cost nothing. A batch that a killed run has begun with some of them is completed: otherwise they would become
    several batches.
    Returns the ids of the batches, those from `uris` last, and the videos. Its cost follows these videos, not those
    that were committed before.
    """
    made, done = list[str](), list[Video]()
    begun, waiting = _uncommitted(s.blobs)
    while begun := [batch_id for batch_id in begun if only is None or _asks_for(s.blobs, batch_id, only)]:
        for batch_id in begun:
            made.append(batch_id)
            done += _finish(s, batch_id)
        begun, waiting = _uncommitted(s.blobs)
    records = []
    for video_id in waiting if only is None else sorted(only & set(waiting)):
        if s.blobs.exists(_committed(video_id)):  # another process wrote its bytes again, and has not noticed yet
            s.blobs.delete(_waiting(video_id))
        elif (record := read_record(s.blobs, video_id)) is not None:
            records.append(record)
    imported = {r.video_id for r in records if s.blobs.exists(f"{folder(r.video_id)}/imported")}
    groups: dict[tuple[bool, bool, str], list[Video]] = {}  # (from these uris, imported, project)
    for r in records:
        kind = (r.source_uri in uris, r.video_id in imported, _project_of(s.blobs, r.video_id))
        groups.setdefault(kind, []).append(r)
    for (_, of_import, project), group in sorted(groups.items(), key=lambda item: item[0]):
        size = _ingest_of(s, project).batch_videos
        for first in range(0, len(group), size):
            made.append(_begin(s, group[first : first + size], imported=of_import, project=project))
            done += _finish(s, made[-1])
    return [batch_id for batch_id in made if batches.is_known(s.blobs, batch_id)], done


def from_source(blobs: Blobs, batch_ids: Iterable[str], source: str) -> list[str]:
    """Those of the batches with a video of this folder or S3 prefix. Reads a record for each of their videos."""
    if source.startswith("s3://"):
        prefix = source.rstrip("/") + "/"
        return [b for b in batch_ids if any(uri.startswith(prefix) for uri in _addresses(blobs, b))]
    place = Path(source).resolve()
    return [b for b in batch_ids if any(place in Path(uri).resolve().parents for uri in _addresses(blobs, b))]


def _addresses(blobs: Blobs, batch_id: str) -> Iterator[str]:
    records = (read_record(blobs, video_id) for video_id in batches.video_ids(blobs, batch_id))
    return (record.source_uri for record in records if record is not None)


def _waiting(video_id: str) -> str:
    return f"{WAITING}{video_id}"


def _committed(video_id: str) -> str:
    return f"{folder(video_id)}/committed"


def _begun(batch_id: str) -> str:
    return f"{_UNCOMMITTED}batches/{batch_id}.json"


def _uncommitted(blobs: Blobs) -> tuple[list[str], list[str]]:
    """The batches that were begun and not marked, and the videos that are not committed, in these or in no batch."""
    keys = list(blobs.keys(_UNCOMMITTED))
    videos = [key.removeprefix(_waiting("")) for key in keys if key.startswith(_waiting(""))]
    return [Path(key).stem for key in keys if key.endswith(".json")], videos


def _asks_for(blobs: Blobs, batch_id: str, video_ids: AbstractSet[str]) -> bool:
    """Whether a batch that was begun asks for one of these videos."""
    try:
        sides = read_json(blobs, _begun(batch_id)).get("splits")
    except BlobMissing:  # its process has completed it
        return False
    return isinstance(sides, dict) and not video_ids.isdisjoint(sides)


def _begin(s: Services, records: Sequence[Video], imported: bool, project: str) -> str:
    """Decides which videos are a batch, and the split of each. Returns the batch's id."""
    batch_id = content_id("batch", *(record.video_id for record in records))
    copied = set(splits.originals(records).values()).difference(record.video_id for record in records)
    sides_begun = _begun_splits(s.blobs) if copied else {}  # before the table: what is no longer here is there
    alone = (video_id for video_id in copied - sides_begun.keys() if not s.blobs.exists(_committed(video_id)))
    beside = [record for video_id in sorted(alone) if (record := read_record(s.blobs, video_id)) is not None]
    sides = splits.decide(s, records, _ingest_of(s, project), imported, beside, sides_begun)
    begun = {"imported": imported, "splits": sides} | ({"project": project} if project else {})
    s.blobs.create(_begun(batch_id), json.dumps(begun, sort_keys=True).encode())
    return batch_id


def _begun_splits(blobs: Blobs) -> dict[str, str]:
    """The splits of the videos in batches that are begun and not marked yet."""
    found: dict[str, str] = {}
    for batch_id in _uncommitted(blobs)[0]:
        with suppress(BlobMissing):  # its process has completed it
            found |= dict(read_json(blobs, _begun(batch_id)).get("splits", {}))
    return found


def _finish(s: Services, batch_id: str) -> list[Video]:
    """Commits a batch that was begun, and marks it. Returns the records of its videos; none if another process did it.

    A video that another batch has got is left out. May be killed and run again, and run twice at once.
    """
    key = _begun(batch_id)
    try:
        begun = read_json(s.blobs, key)
    except BlobMissing:
        return []
    if not isinstance(sides := begun.get("splits"), dict) or not isinstance(imported := begun.get("imported"), bool):
        raise BlobDamaged(f"{key}: the splits of its videos, or whether they are imported, is missing")
    if project := begun.get("project"):  # before all that shows the batch
        batches.mark(s.blobs, batch_id, batches.PROJECT, {"project": project})
    records = []
    for video_id, split in sorted(sides.items()):
        if not _claim(s.blobs, video_id, batch_id):
            continue
        record = read_record(s.blobs, video_id)
        assert record is not None  # records are never deleted
        records.append(record)
        row = replace(record, batch_id=batch_id, split=str(split))
        parts.write_part(s.blobs, kind="videos", batch_id=batch_id, video_id=video_id, rows=[row])
    if records:
        parts.commit_batch(s.blobs, s.tables, "videos", batch_id)
        facts = {"videos": [record.video_id for record in records]} | ({"imported": True} if imported else {})
        batches.mark(s.blobs, batch_id, BatchStage.INGESTED, facts)
        hash_index.add_batch(s.blobs, batch_id, [record.video_id for record in records])
    for record in records:
        s.blobs.delete(_waiting(record.video_id))
    s.blobs.delete(key)  # last: until then, a killed run's batch is found and completed
    return records


def _claim(blobs: Blobs, video_id: str, batch_id: str) -> bool:
    """Whether a batch has a video: the first one that claims it."""
    key, mine = _committed(video_id), batch_id.encode()
    return blobs.create(key, mine) or blobs.read(key) == mine
