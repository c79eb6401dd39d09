"""The split of each new video: by its author or its place, so that one of them is never on both sides.

    splits/<id of the group>.json     create-only: which split the videos of an author or a place have for ever
    splits/copied/<video_id>.json     create-only: the split of a video that was in no batch when a copy of it was

The first column of `ingest.split_by` that a video's metadata has decides its group. The split of a group follows from a
hash of it, so every machine finds the same one, and it stays when the shares in the settings change. A video without
any of the columns is in no group: of such videos, a share of each batch is held out.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from engine.ingest import pseudonyms
from engine.services import Services
from engine.settings import IngestSettings
from storage.blobs.base import BlobDamaged, Blobs, read_json
from storage.records import Video, content_id

SPLITS = ("train", "val", "test")
COLUMNS = {"environment": "video_environment"}  # of a table -> in the metadata of a video, as SA-V calls it
NAMES = ("author", "place", "country", "environment", "split")  # columns of names: "007" is no number there
_COPIED = "splits/copied/"
NEAR_DUPLICATE_OF = "near_duplicate_of"  # in the metadata of a video that a person has released: the other video


def decide(
    s: Services,
    records: Sequence[Video],
    settings: IngestSettings,
    imported: bool,
    beside: Sequence[Video] = (),
    begun: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The split of each new video of a batch. Running it again may hold out other videos that are in no group.

    A split that the metadata names counts, unless the group has another one already. An imported dataset's own splits
    count only if it holds out videos itself; its test videos always stay so. A copy that a person has released gets the
    split of its original, whichever of them is committed first.
    beside: the originals of copies among them that are in no batch yet. begun: the splits of those that are in a batch
    which is not committed yet.
    Raises BlobError.
    """
    every = [*records, *beside]
    named = {record.video_id: record.split for record in every if record.split}
    if imported and "val" not in named.values():
        named = {video_id: split for video_id, split in named.items() if split == "test"}
    metadata = {record.video_id: json.loads(record.source_metadata or "{}") for record in every}
    twins = originals(records)
    known = {row.video_id: row.split for row in s.tables.videos_by_id(sorted(set(twins.values())))} if twins else {}
    known = {**begun, **known}
    fixed = _of_copied(s.blobs, metadata)
    wanted = named | {video_id: known[other] for video_id, other in twins.items() if other in known} | fixed
    decided = dict(named) if imported else {}
    # first those that name a split: the others follow
    for video_id in sorted(metadata, key=lambda each: each not in wanted):
        if (group := group_of(metadata[video_id], settings)) is not None:
            said = {"column": group[0], "value": group[1], "split": wanted.get(video_id) or _by_hash(group, settings)}
            split = _fix(s.blobs, _group_key(group), said)
            decided.setdefault(video_id, split)
    decided = named | decided
    free = [record.video_id for record in every if record.video_id not in decided]
    decided |= _by_share(free, s.tables.row_count("videos"), settings) | fixed
    for video_id in {record.video_id for record in beside}.intersection(free):  # nothing else says it to its own batch
        decided[video_id] = _fix(s.blobs, _copied_key(video_id), {"split": decided[video_id]})
    known = decided | known
    decided |= {video_id: known[other] for video_id, other in twins.items() if other in known}
    return {record.video_id: decided[record.video_id] for record in records}


def originals(records: Iterable[Video]) -> dict[str, str]:
    """The original of each copy among these videos that a person has released."""
    metadata = ((record.video_id, json.loads(record.source_metadata or "{}")) for record in records)
    return {video_id: str(of[NEAR_DUPLICATE_OF]) for video_id, of in metadata if NEAR_DUPLICATE_OF in of}


def _of_copied(blobs: Blobs, video_ids: Collection[str]) -> dict[str, str]:
    """The splits of those of these videos that got one together with their copy. Lists such videos of all batches."""
    keys = {_copied_key(video_id): video_id for video_id in video_ids}
    return {keys[key]: _read(blobs, key) for key in blobs.keys(_COPIED) if key in keys}


def frozen(blobs: Blobs, metadata: Mapping[str, object], settings: IngestSettings) -> tuple[str, str, str] | None:
    """The column, its value and the split of a video's group; None if it is in none, or in one without videos yet."""
    group = group_of(metadata, settings)
    if group is None or not blobs.exists(_group_key(group)):
        return None
    return *group, _read(blobs, _group_key(group))


def pseudonym(blobs: Blobs, author: str) -> str:
    """What an author is called in the dataset, however the name is written."""
    return pseudonyms.of_author(blobs, _plain(author))


def group_of(metadata: Mapping[str, object], settings: IngestSettings) -> tuple[str, str] | None:
    """The column and the value that decide the split of a video."""
    for column in settings.split_by:
        if (value := metadata.get(COLUMNS.get(column, column))) not in (None, ""):
            return column, _plain(str(value))
    return None


def _plain(text: str) -> str:
    """Without what people spell differently: capitals, spaces, forms of the same letter."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _group_key(group: tuple[str, str]) -> str:
    return f"splits/{content_id('group', *group)}.json"


def _copied_key(video_id: str) -> str:
    return f"{_COPIED}{video_id}.json"


def _fix(blobs: Blobs, key: str, said: Mapping[str, str]) -> str:
    """The split of a group or a video: the first one that anybody gave it."""
    return said["split"] if blobs.create(key, json.dumps(said).encode()) else _read(blobs, key)


def _read(blobs: Blobs, key: str) -> str:
    split = read_json(blobs, key).get("split")
    if split not in SPLITS:
        raise BlobDamaged(f"{key}: its split is not one of {', '.join(SPLITS)}")
    return str(split)


def _by_hash(group: tuple[str, str], settings: IngestSettings) -> str:
    place = int(content_id("split", *group), 16) / 16**16  # in [0, 1)
    if place < settings.test_share:
        return "test"
    return "val" if place < settings.test_share + settings.held_out_share else "train"


def _by_share(new: Sequence[str], earlier: int, settings: IngestSettings) -> dict[str, str]:
    """The splits of videos that are in no group, so that the shares hold over all of them, even if they come singly.

    The choice follows from the ids alone, which are hashes of the bytes, so it cannot prefer any kind of video.
    earlier: number of the videos that were committed before.
    """
    share = settings.held_out_share + settings.test_share
    upto = [math.floor(share * count + 0.5) for count in (earlier, earlier + len(new))]  # held out before and after
    in_test = [math.floor(settings.test_share * count / (share or 1.0) + 0.5) for count in upto]
    held_out, test = upto[1] - upto[0], in_test[1] - in_test[0]
    by_hash = sorted(new, key=lambda video_id: content_id("split", video_id))
    return {
        video_id: "val" if place < held_out - test else "test" if place < held_out else "train"
        for place, video_id in enumerate(by_hash)
    }
