"""What people decided about refusals: a file that ingest judges once more without a limit, or a row that was seen.

A release is honoured once, by the next ingest that meets the file. It holds for the address of the file: if its bytes
change later, the limits hold again.

    overrides/<id of the subject>/<id of the reason>-<act_id>.json    create-only: who, when, why
    overrides/<id of the subject>/outcome.json    what ingest made of it, the last time
    released/<id of the subject>                  empty: released, and ingest has not judged it again yet

The cost follows the acts of people, not the table of refusals.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from annotation_queue.pipeline_records import Action, QuarantineAct
from storage.blobs.base import BlobMissing, Blobs
from storage.records import Quarantined, Refusal, Video, content_id
from storage.videos.normalise import Limits

#: What a release does, by the reason of the refusal. All other reasons can only be marked as seen: the bytes are in the
#: dataset already, they need a key, or there is no video in them.
RELEASES: Mapping[str, str] = {
    Refusal.TOO_SHORT: "admits it from two frames on",
    Refusal.TOO_LONG: "admits it at any length",
    Refusal.TOO_SMALL: "admits sides from 16 px",
    Refusal.TOO_LARGE: "admits sides up to 8192 px",
    Refusal.TRUNCATED: "admits the frames that decode",
    Refusal.NEAR_DUPLICATE: "admits it, on the other video's side of the split",
    Refusal.UNREADABLE: "reads it once more, with the same limits",
    Refusal.FAILED: "reads it once more, with the same limits",
    Refusal.KILLS_WORKER: "reads it once more, and again if that kills a worker",
}
MIN_SIDE_PX, MAX_SIDE_PX = 16, 8192  # what the codec and the checks of the tables can hold
MAX_WHY = 500  # characters

_ACT = TypeAdapter(QuarantineAct)


class NotReleasable(ValueError):
    """A refusal that no release can help: it can only be marked as seen."""


def what_release_does(row: Quarantined) -> str | None:
    """One clause about what a release of the row would do; None if it can only be marked as seen."""
    return RELEASES.get(row.reason) if row.stage == "ingest" else None


def decide(blobs: Blobs, row: Quarantined, action: Action, *, act_id: str, by: str, why: str) -> QuarantineAct:
    """Records an act on a refusal. The same act_id again returns the first record.

    Raises NotReleasable; ValueError without a reason, or for a malformed id.
    """
    why = " ".join(why.split())
    if not why:
        raise ValueError("say why: the reason is recorded")
    if len(why) > MAX_WHY:
        raise ValueError(f"the reason has at most {MAX_WHY} characters, not {len(why)}")
    if not act_id.isalnum() or len(act_id) > 64:
        raise ValueError(f"not the id of an act: {act_id!r}")
    if action is Action.RELEASE and what_release_does(row) is None:
        raise NotReleasable(f"{row.subject} was refused as {row.reason}: it can only be marked as seen")
    act = QuarantineAct(
        act_id=act_id,
        action=action,
        stage=row.stage,
        subject=row.subject,
        reason=row.reason,
        by=by,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        why=why,
    )
    key = f"{_acts(row)}-{act_id}.json"
    if blobs.exists(key):
        return _ACT.validate_json(blobs.read(key))
    if action is Action.RELEASE:
        blobs.create(_waiting(row.subject), b"")  # a kill after this makes ingest judge the file again, as it was
    made = blobs.create(key, _ACT.dump_json(act))
    if action is Action.RELEASE:
        blobs.create(_waiting(row.subject), b"")  # an ingest may have judged it before the record was there
    return act if made else _ACT.validate_json(blobs.read(key))


def acts_on(blobs: Blobs, subjects: Iterable[str]) -> dict[str, list[QuarantineAct]]:
    """The acts on these subjects, the oldest first. Lists the files of all acts, and reads those on these subjects."""
    folders = {_folder(subject): subject for subject in subjects}
    found: dict[str, list[QuarantineAct]] = {}
    for key in blobs.keys("overrides/") if folders else ():
        subject = folders.get(key.rpartition("/")[0] + "/")
        if subject is not None and not key.endswith("/outcome.json") and (act := _read(blobs, key)) is not None:
            found.setdefault(subject, []).append(act)
    return {subject: sorted(acts, key=lambda act: (act.at, act.act_id)) for subject, acts in found.items()}


def decided(blobs: Blobs) -> set[str]:
    """The marks of all rows about which somebody has decided. See `is_decided`."""
    return {key.rpartition("-")[0] for key in blobs.keys("overrides/")}


def is_decided(marks: set[str], row: Quarantined) -> bool:
    """Has somebody decided about this subject and this reason?"""
    return _acts(row) in marks


def outcome_of(blobs: Blobs, subject: str) -> str | None:
    """One line about what ingest made of a released file; None if it has not judged it yet."""
    try:
        return str(json.loads(blobs.read(_outcome(subject)))["said"])
    except (BlobMissing, ValueError, KeyError, TypeError):
        return None


def waiting(blobs: Blobs) -> set[str]:
    """The marks of the released files that ingest has not judged again yet. See `is_in`."""
    return set(blobs.keys("released/"))


def is_in(marks: set[str], subject: str) -> bool:
    """Is the mark of this subject among these?"""
    return _waiting(subject) in marks


def releases_of(blobs: Blobs, subject: str) -> list[QuarantineAct]:
    """The releases of a file, in no order. Lists the acts on this file only."""
    return [act for act in acts_of(blobs, subject) if act.action is Action.RELEASE]


def acts_of(blobs: Blobs, subject: str) -> list[QuarantineAct]:
    """The acts on one subject, in no order. Lists these only."""
    keys = [key for key in blobs.keys(_folder(subject)) if not key.endswith("/outcome.json")]
    return [act for act in (_read(blobs, key) for key in keys) if act is not None]


def without(limits: Limits, reasons: frozenset[str]) -> Limits:
    """The limits of a source without those that people have lifted."""
    return Limits(
        min_s=0.0 if Refusal.TOO_SHORT in reasons else limits.min_s,
        max_s=math.inf if Refusal.TOO_LONG in reasons else limits.max_s,
        min_side_px=MIN_SIDE_PX if Refusal.TOO_SMALL in reasons else limits.min_side_px,
        max_side_px=MAX_SIDE_PX if Refusal.TOO_LARGE in reasons else limits.max_side_px,
        truncated=Refusal.TRUNCATED in reasons,
    )


def conclude(
    blobs: Blobs, subject: str, honoured: Iterable[QuarantineAct], video: Video | None, refused: Quarantined | None
) -> None:
    """Notes what ingest made of a released file, which waits no longer unless somebody has released it again.

    honoured: the releases that were known when it was judged.
    """
    known = {act.act_id for act in honoured}

    def is_released_again() -> bool:
        return any(act.act_id not in known for act in releases_of(blobs, subject))

    if refused is not None:
        said = f"refused again, {refused.reason}: {refused.detail}"
    else:
        said = "ignored: the file is no video" if video is None else f"admitted as {video.video_id}"
    blobs.write(_outcome(subject), json.dumps({"said": said}).encode())
    if is_released_again():
        return
    blobs.delete(_waiting(subject))
    if is_released_again():  # between the look and the deletion
        blobs.create(_waiting(subject), b"")


def _read(blobs: Blobs, key: str) -> QuarantineAct | None:
    try:
        return _ACT.validate_json(blobs.read(key))
    except (BlobMissing, ValidationError):  # damaged: the other acts still count
        return None


def _folder(subject: str) -> str:
    return f"overrides/{content_id('override', subject)}/"


def _acts(row: Quarantined) -> str:
    """How the keys of the acts on a row begin."""
    return f"{_folder(row.subject)}{content_id('reason', row.reason)}"


def _outcome(subject: str) -> str:
    return f"{_folder(subject)}outcome.json"


def _waiting(subject: str) -> str:
    return f"released/{content_id('override', subject)}"
