"""What the source of a video says about it: a table beside the videos, or the dataset that it was imported from.

Ingest keeps it as a JSON object in the column `source_metadata` of a video. Formats that have a place for facts about a
video write all of it. Does not know any format.
"""

from __future__ import annotations

import json
from typing import Any

from storage.formats.labels import Categories
from storage.records import Video

AUTHOR = "author"  # a pseudonym: see `engine/ingest/pseudonyms.py`
ENVIRONMENT = "video_environment"  # SA-V's name of the column `environment`
LICENCE_KEYS = ("license", "licence", "video_license", "video_licence")
FIELD = "metadata"  # of a video in files of COCO's style, and a column on the Hub


def of(video: Video) -> dict[str, Any]:
    """What is said about a video, by column; empty for nothing. Raises ValueError if it is no JSON object."""
    return json_object(f"video {video.video_id}", video.source_metadata)


def json_object(whose: str, text: str | None) -> dict[str, Any]:
    """The metadata of a video or a masklet; empty for None. Raises ValueError if it is no JSON object."""
    found = json.loads(text or "{}")
    if not isinstance(found, dict):
        raise ValueError(f"{whose}: its metadata is no JSON object")
    return found


def field(video: Video) -> dict[str, Any]:
    """The key "metadata" of formats in COCO's style, only for a video about which something is said."""
    found = of(video)
    return {FIELD: found} if found else {}


def text_of(value: object) -> str | None:
    """A value as a column of texts holds it; None for nothing."""
    if value in (None, ""):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def licence_of(metadata: dict[str, Any]) -> str | None:
    """The licence that the source of a video states, in one line; None if it states none."""
    stated = next((metadata[key] for key in LICENCE_KEYS if metadata.get(key)), None)
    return None if stated is None else " ".join(str(stated).split())[:120]


class Licences(Categories):
    """The list `licenses` of a file in COCO's style."""

    more = {"url": ""}

    def field(self, video: Video) -> dict[str, Any]:
        """The key "license" of a picture or a video, only if its licence is stated."""
        stated = licence_of(of(video))
        return {"license": self.id_of(stated)} if stated else {}
