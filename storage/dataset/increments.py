"""Increments: a batch may be published in several steps, each with some of its videos. Here it is fixed with which.

    batches/<batch_id>/increments/0001.json             create-only: its videos, and what people decided about them
    batches/<batch_id>/increments/0001.published.json   create-only: its release
    open/<batch_id>/0-increment-0001                    empty: it was begun and is not published yet

The increments of a batch are numbered without a gap, an increment has no video of an earlier one, and none follows the
last. As a number can be taken once only, two processes never give one video to two increments, and none is left out.
A batch that is published at once has no increments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from storage.blobs.base import BlobDamaged, Blobs, read_json

_ID = re.compile(r"(?P<batch_id>.+)-increment-(?P<number>\d{4,})")
_LAST = re.compile(r"[^-]*(?:-increment-\d{4,})?$")
_BEGUN = re.compile(r"open/(?P<batch_id>[^/]+)/0-increment-(?P<number>\d{4,})")  # sorts before the copies of marks
_KEY = re.compile(r"batches/(?P<batch_id>[^/]+)/increments/(?P<number>\d{4,})(?P<published>\.published)?\.json")
_READERS = 8


@dataclass(frozen=True, kw_only=True)
class Increment:
    """Some videos of a batch that are published together."""

    batch_id: str
    number: int  # from 1
    video_ids: tuple[str, ...]  # sorted
    is_last: bool  # with it, the whole batch is published
    facts: Mapping[str, Any] = field(default_factory=dict)  # about people's decisions, in numbers

    @property
    def id(self) -> str:
        """Names its commits, its manifest and its release, as the id of a batch does."""
        return self.batch_id if self.is_last else _id(self.batch_id, self.number)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its batch."""
        return self.is_last and self.number == 1

    def quarantine_part(self, stage: str) -> str:
        """The name of the part in which a stage quarantines its masklets."""
        return stage if self.is_last else f"{stage}-{self.number:04d}"


def batch_of(increment_id: str) -> str:
    """The batch of an increment; every other id is returned as it is."""
    found = _ID.fullmatch(increment_id)
    return found["batch_id"] if found else increment_id


def of_batch(blobs: Blobs, batch_id: str) -> list[Increment]:
    """The increments of a batch, in order. Raises BlobDamaged."""
    found = [place for key in blobs.keys(_folder(batch_id)) if (place := _KEY.fullmatch(key))]
    numbers = sorted(int(place["number"]) for place in found if not place["published"])
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(partial(_read, blobs, batch_id), numbers))


def published(blobs: Blobs, batch_id: str) -> dict[int, dict[str, Any]]:
    """The facts of the published increments by number, without the last one: the batch itself has its facts."""
    found = [place for key in blobs.keys(_folder(batch_id)) if (place := _KEY.fullmatch(key))]
    numbers = sorted(int(place["number"]) for place in found if place["published"])
    return {number: read_json(blobs, _key(batch_id, number, ".published")) for number in numbers}


def published_videos(blobs: Blobs, batch_id: str) -> int:
    """The number of videos in the published increments of a batch that is not published as a whole."""
    done = published(blobs, batch_id)
    return sum(len(one.video_ids) for one in of_batch(blobs, batch_id) if one.number in done) if done else 0


def id_of_published(key: str) -> str | None:
    """The id of a published increment, from the key of its facts; None for another key."""
    place = _KEY.fullmatch(key)
    return _id(place["batch_id"], int(place["number"])) if place and place["published"] else None


def facts_of_published(blobs: Blobs, increment_id: str) -> dict[str, Any] | None:
    """The facts of a published increment; None for the id of a batch."""
    found = _ID.fullmatch(increment_id)
    return read_json(blobs, _key(found["batch_id"], int(found["number"]), ".published")) if found else None


def named_in(release: str) -> str:
    """The last part of a release's name: the batch or the increment that it was made for."""
    return str(_LAST.findall(release)[0])


def take(blobs: Blobs, increment: Increment) -> bool:
    """Fixes the videos of an increment; False if another process has taken its number."""
    content = {"videos": increment.video_ids, "last": increment.is_last, "facts": increment.facts}
    key = _key(increment.batch_id, increment.number)
    return blobs.create(key, json.dumps(content, sort_keys=True).encode())


def mark_published(blobs: Blobs, increment: Increment, facts: Mapping[str, Any]) -> None:
    """Notes that an increment is in a release."""
    key = _key(increment.batch_id, increment.number, ".published")
    blobs.create(key, json.dumps(facts, sort_keys=True).encode())
    end(blobs, increment.batch_id, increment.number)


def begin(blobs: Blobs, batch_id: str, number: int) -> None:
    """Notes that an increment is in the making: whoever finds the note goes on with it."""
    blobs.create(_begun(batch_id, number), b"")


def end(blobs: Blobs, batch_id: str, number: int) -> None:
    """Removes the note of `begin`."""
    blobs.delete(_begun(batch_id, number))


def begun(blobs: Blobs) -> dict[str, set[int]]:
    """The numbers of the increments that were begun and are not published, by batch. Follows the unfinished batches."""
    found: dict[str, set[int]] = {}
    for key in blobs.keys("open/"):
        if place := _BEGUN.fullmatch(key):
            found.setdefault(place["batch_id"], set()).add(int(place["number"]))
    return found


def is_begun(blobs: Blobs, batch_id: str) -> bool:
    """Whether a batch is published in increments: one of them was begun or taken."""
    notes = (key for key in blobs.keys(f"open/{batch_id}/") if _BEGUN.fullmatch(key))
    return next(notes, None) is not None or next(iter(blobs.keys(_folder(batch_id))), None) is not None


def is_taken(blobs: Blobs, batch_id: str, number: int) -> bool:
    """Whether the videos of this increment are fixed."""
    return blobs.exists(_key(batch_id, number))


def holder(blobs: Blobs, increment_id: str) -> Callable[[str], bool]:
    """A test of whether this increment, or this batch without its earlier increments, has a video of its batch."""
    others: Collection[str] = ()
    for one in of_batch(blobs, batch_of(increment_id)):
        if one.id == increment_id:
            return set(one.video_ids).__contains__
        others = {*others, *one.video_ids}
    return lambda video_id: video_id not in others


def _read(blobs: Blobs, batch_id: str, number: int) -> Increment:
    key = _key(batch_id, number)
    found = read_json(blobs, key)
    try:
        videos, is_last, facts = tuple(found["videos"]), bool(found["last"]), dict(found["facts"])
    except (KeyError, TypeError, ValueError) as error:
        raise BlobDamaged(f"{key}: not an increment ({error})") from error
    return Increment(batch_id=batch_id, number=number, video_ids=videos, is_last=is_last, facts=facts)


def _id(batch_id: str, number: int) -> str:
    return f"{batch_id}-increment-{number:04d}"


def _folder(batch_id: str) -> str:
    return f"batches/{batch_id}/increments/"


def _key(batch_id: str, number: int, end: str = "") -> str:
    return f"{_folder(batch_id)}{number:04d}{end}.json"


def _begun(batch_id: str, number: int) -> str:
    return f"open/{batch_id}/0-increment-{number:04d}"
