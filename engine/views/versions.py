"""What `masklets diff` compares: two releases, or two versions of one masklet, by the names that a person gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engine import pictures
from engine.progress import Progress
from engine.services import Services
from engine.views import difference, difference_sheet
from engine.views.difference import Change, Difference, Look
from engine.views.frames import Stored, of_releases
from storage.blobs.folder import LocalBlobs
from storage.dataset import parts, releases
from storage.dataset.releases import Release
from storage.records import Masklet

Rows = list[tuple[str, ...]]  # the heading first
_ID = re.compile(r"[A-Za-z0-9._-]{1,200}")


@dataclass(frozen=True)
class Compared:
    """Two releases, or two versions of a masklet, and how to read their frames."""

    names: tuple[str, str]
    looks: Sequence[Look]
    frames: Callable[[], Stored]
    found: Difference | Change

    def draw(self, path: Path) -> bool:
        """Writes the contact sheet of the frames that differ most; False if there are none."""
        if self.looks:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self.frames() as stored:
                pictures.write_jpeg(difference_sheet.draw(self.looks, stored.read, self.names), path, 90)
        return bool(self.looks)

    def as_json(self) -> dict[str, Any]:
        if isinstance(self.found, Difference):
            return self.found.as_json()
        change = self.found
        return {
            "before": change.before.masklet_id,
            "after": change.after.masklet_id,
            "video_id": change.after.video_id,
            "mean_iou": change.mean_iou,
            "differing": change.differing,
            "frames": {str(frame_idx): value for frame_idx, value in change.frames.items()},
            "columns": change.columns,
        }

    def tables(self) -> list[tuple[str, Rows]]:
        """Titles with rows, the heading first."""
        return _of_releases(self.found) if isinstance(self.found, Difference) else _of_masklets(self.found)


def compare(s: Services, before: str, after: str, progress: Progress | None = None) -> Compared:
    """Compares two releases (names, or folders of releases in any store), or two masklets (ids).

    Raises ValueError if there is neither, ReleaseError, BlobError, BadRle.
    """
    known = set(releases.names(s.blobs))
    is_release = [name in known or (Path(name) / "manifest.json").is_file() for name in (before, after)]
    if all(is_release):
        first, second = (_release(s, name, known) for name in (before, after))
        found = difference.of(first, second, progress)
        return Compared((first.name, second.name), found.worst, partial(of_releases, second, first), found)
    if any(is_release):
        other = after if is_release[0] else before
        raise ValueError(
            f"there is no release {other!r:.120}; there are: {', '.join(sorted(known, key=releases.place))}"
        )
    change = difference.change_of(*_masklets(s, before, after))
    looks = sorted(difference.worst_of(change, difference.WORST), key=lambda look: look.frame_idx)
    return Compared((before, after), looks, partial(Stored, lambda video_id: s.frames(s.video(video_id))), change)


def _release(s: Services, name: str, known: set[str]) -> Release:
    if name in known:
        return releases.load(s.blobs, name)
    folder = Path(name).absolute()
    return releases.load(LocalBlobs(folder.parents[1]), folder.name)  # <root>/releases/<name>


def _masklets(s: Services, before: str, after: str) -> tuple[Masklet, Masklet]:
    """Two masklets of one video: published ones, or candidates of the batch of a published one."""
    found: dict[str, Masklet] = {}
    for masklet_id in (before, after):
        if not _ID.fullmatch(masklet_id):
            raise ValueError(f"{masklet_id!r:.120} is neither a release nor the id of a masklet")
        rows = s.tables.masklets(where=f"masklet_id == '{masklet_id}'")
        found.update((row.masklet_id, row) for row in rows)
    for row in list(found.values()):
        marker = parts.marker(s.blobs, "candidates", row.batch_id, row.video_id)
        candidates = [] if marker is None else parts.read_part(s.blobs, marker)
        found.update((other.masklet_id, other) for other in candidates if other.masklet_id in (before, after))
    for masklet_id in (before, after):
        if masklet_id not in found:
            raise ValueError(
                f"no release and no masklet {masklet_id!r:.120}: one of both must be published, the other of its batch"
            )
    first, second = found[before], found[after]
    if first.video_id != second.video_id:
        raise ValueError(f"{before} is a masklet of video {first.video_id}, {after} of {second.video_id}")
    return first, second


def _of_releases(found: Difference) -> list[tuple[str, Rows]]:
    of, shown = found.masklets, found.frames["shown"]
    counts: Rows = [
        ("", found.before, found.after),
        ("videos", str(found.videos["before"]), str(found.videos["after"])),
        ("videos in both", str(found.videos["both"]), str(found.videos["both"])),
        ("masklets", str(of["before"]), str(of["after"])),
        ("the same", str(of["same"]), str(of["same"])),
        ("changed", str(of["changed"]), str(of["changed"])),
        ("only here", str(of["removed"]), str(of["added"])),
    ]
    tables = [("Two releases", counts)]
    if of["changed"]:
        changed: Rows = [("", "")]
        changed += [(f"paired by {why}", str(number)) for why, number in sorted(found.paired.items())]
        changed.append(("with other masks", str(found.redrawn)))
        if found.mean_iou is not None:
            changed += [
                ("their mean IoU", f"{found.mean_iou:.3f}"),
                ("their frames that show the object", str(shown)),
                (
                    "of these with another mask",
                    f"{found.frames['differing']} ({found.frames['differing'] / shown:.1%})",
                ),
                ("absent before, visible after", str(found.frames["appeared"])),
                ("visible before, absent after", str(found.frames["vanished"])),
            ]
        tables.append(("Changed masklets", changed))
    if found.columns:
        rows: Rows = [("column", "masklets", "which became which")]
        for name, counts_of in sorted(found.columns.items()):
            became = [f"{change}: {number}" for change, number in counts_of.most_common() if change != "masklets"]
            rows.append((name, str(counts_of["masklets"]), ", ".join(became)))
        tables.append(("Columns that differ", rows))
    return tables


def _of_masklets(change: Change) -> list[tuple[str, Rows]]:
    before, after = change.before, change.after
    facts: Rows = [
        ("", before.masklet_id, after.masklet_id),
        ("visible on frames", str(sum(a > 0 for a in before.area_px)), str(sum(a > 0 for a in after.area_px))),
        ("mean IoU", f"{change.mean_iou:.3f}", ""),
        ("frames with another mask", f"{change.differing} of {len(change.frames)}", ""),
    ]
    for name, (old, new) in change.columns.items():
        if not isinstance(old, tuple):
            facts.append((name.replace("_", " "), _text(old), _text(new)))
    areas = [dict(zip(row.frame_idx, row.area_px, strict=True)) for row in (before, after)]
    frames: Rows = [("frame", "IoU", "px before", "px after")]
    for look in sorted(difference.worst_of(change, difference.WORST), key=lambda look: look.frame_idx):
        frames.append((str(look.frame_idx), f"{look.iou:.3f}", *(str(of.get(look.frame_idx, 0)) for of in areas)))
    return [("Two masklets", facts), *([("The frames that differ most", frames)] if len(frames) > 1 else [])]


def _text(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
