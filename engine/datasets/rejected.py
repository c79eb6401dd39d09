"""Where people saw no object: the candidates of a video that they rejected as none, with their masks.

A model that learns from them stops proposing what people do not want. Masklets alone cannot teach that: every click in
training would be on an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from annotation_queue.records import Reason
from engine.verifier.judged import Answers, answers_of
from storage.blobs.base import Blobs
from storage.dataset import parts
from storage.records import Verdict, Video


def of_video(blobs: Blobs, video: Video) -> dict[str, Mapping[int, bytes]]:
    """The masks of each rejected candidate on the frames that have one: masklet id -> frame_idx -> compressed counts.

    Empty for a video without candidates, such as an imported one. Raises PartError.
    """
    judged = answers_of(_part(blobs, "candidates", video), _part(blobs, "operations", video))
    return {masklet.masklet_id: masklet.shown() for masklet, said in judged if _is_none(said)}


def _is_none(said: Answers) -> bool:
    """Whether the candidate was rejected because it shows no object, and not as a duplicate or for its masks."""
    because = {reason for answer in said.all if answer.verdict == said.verdict for reason in answer.reasons}
    return said.verdict == Verdict.REJECT and Reason.NOT_AN_OBJECT in because


def _part(blobs: Blobs, kind: str, video: Video) -> list[Any]:
    marker = parts.marker(blobs, kind, video.batch_id, video.video_id)
    return [] if marker is None else parts.read_part(blobs, marker)
