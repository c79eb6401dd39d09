"""The frame-to-timestamp table of an admitted video: which frame of the source file each stored frame shows, and when.

    frames.json   source_s      s from the first source frame, of the source frame that each stored frame shows
                  all_source_s  s from the first source frame, of every frame that a decoder gives of the source
                  start_s       the time of the first source frame in its file, s
                  changes       what ingest did to the picture or its times

Ingest writes it. Tables of earlier versions lack `start_s`, and the first ones lack `all_source_s`. Does not know
masks.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass

from storage.blobs.base import BlobDamaged, Blobs, read_json
from storage.videos.normalise import Normalised


@dataclass(frozen=True, kw_only=True)
class FrameTimes:
    """When the frames of a source are shown. Its frames are counted in the order in which a player shows them."""

    stored_s: tuple[float, ...]  # (stored frames,) s from the first source frame, of the source frame that is shown
    source_s: tuple[float, ...]  # (N,) s from the first source frame, ascending; empty: an earlier version kept none
    start_s: float  # of the first source frame in its file; 0 if an earlier version did not keep it

    def number(self, frame_idx: int) -> int:
        """Which frame of the source a stored frame shows; of several with one time, the first: only it was stored.

        Raises ValueError if the table does not say it.
        """
        time_s = self.stored_s[frame_idx] if 0 <= frame_idx < len(self.stored_s) else None
        at = len(self.source_s) if time_s is None else bisect_left(self.source_s, time_s)
        if at == len(self.source_s) or self.source_s[at] != time_s:
            raise ValueError(f"the frame-to-timestamp table has no source frame for stored frame {frame_idx}")
        return at


def dump(made: Normalised) -> bytes:
    """The table as it is stored."""
    times = {
        "source_s": made.timestamps,
        "all_source_s": made.source_s,
        "start_s": made.start_s,
        "changes": made.changes,
    }
    return json.dumps(times).encode()


def load(blobs: Blobs, key: str) -> FrameTimes:
    """The table in a blob. Raises BlobMissing, and BlobDamaged with the key."""
    found = read_json(blobs, key)
    lists = {name: found.get(name, []) for name in ("source_s", "all_source_s")}
    for name, times in lists.items():
        if not isinstance(times, list) or not all(isinstance(time_s, float) for time_s in times):
            raise BlobDamaged(f"{key}: {name} is not a list of times")
    if not isinstance(start_s := found.get("start_s", 0.0), float):
        raise BlobDamaged(f"{key}: start_s is not a time")
    return FrameTimes(stored_s=tuple(lists["source_s"]), source_s=tuple(lists["all_source_s"]), start_s=start_s)
