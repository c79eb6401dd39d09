"""Records of withdrawn videos: who withdrew which, when and why, and which files were erased with one.

    withdrawn/<video_id>.json       create-only
    erased/<id of a key>.json       the file with this key is gone; the rows of its other videos are in the file `now`

Knows no release: `storage/dataset/withdrawal.py` takes a video out of releases and tables.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from storage.blobs.base import BlobMissing, Blobs, read_json
from storage.records import content_id

_READERS = 8


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """The act of withdrawing a video."""

    video_id: str
    by: str  # the person who did it
    at: str  # ISO 8601, UTC
    why: str


def record(blobs: Blobs, act: Withdrawal) -> Withdrawal:
    """Records a withdrawal and returns the one that counts: the first of the video."""
    key = _key(act.video_id)
    blobs.create(key, json.dumps(asdict(act)).encode())
    return Withdrawal(**read_json(blobs, key))


def of(blobs: Blobs, video_id: str) -> Withdrawal:
    """The withdrawal of a video. Raises BlobMissing if it is not withdrawn."""
    return Withdrawal(**read_json(blobs, _key(video_id)))


def all_of(blobs: Blobs) -> list[Withdrawal]:
    """Every withdrawal, sorted by video."""
    return [Withdrawal(**read_json(blobs, key)) for key in blobs.keys("withdrawn/")]


def among(blobs: Blobs, video_ids: Collection[str]) -> set[str]:
    """Which of these videos are withdrawn. One request for each."""
    ids = sorted(video_ids)
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda video_id: has(blobs, video_id), ids)
        return {video_id for video_id, gone in zip(ids, found, strict=True) if gone}


def has(blobs: Blobs, video_id: str) -> bool:
    """Whether a video is withdrawn. One request."""
    return blobs.exists(_key(video_id))


def mark_erased(blobs: Blobs, key: str, now: str | None) -> None:
    """Notes that a file is erased. now: the key of the file with the rows of its other videos, if there are any."""
    blobs.create(_tombstone(key), json.dumps({"key": key, "now": now}).encode())


def instead_of(blobs: Blobs, key: str) -> str | None:
    """The key of the file that has the rows of an erased one; None if it had no others. Raises BlobMissing if it was
    not erased: then it is lost.
    """
    found = read_json(blobs, _tombstone(key))["now"]
    if found is None or blobs.exists(str(found)):
        return None if found is None else str(found)
    return instead_of(blobs, str(found))  # erased with another video


def is_erased(blobs: Blobs, key: str) -> bool:
    """Whether a file was erased with a withdrawn video."""
    try:
        instead_of(blobs, key)
    except BlobMissing:
        return False
    return True


def _tombstone(key: str) -> str:
    return f"erased/{content_id(key)}.json"


def _key(video_id: str) -> str:
    if not video_id or "/" in video_id:
        raise ValueError(f"not the id of a video: {video_id!r}")
    return f"withdrawn/{video_id}.json"
