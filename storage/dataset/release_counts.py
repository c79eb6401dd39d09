"""The counts of a release: how many videos, masklets and masks it has, together, by split and by kind.

A release's counts follow from those of the release before and from its new rows, so no row is read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from storage.dataset.batch_manifests import CountedRow


def counts_with(
    earlier: Mapping[str, Any], rows: Sequence[CountedRow], counted_videos: Mapping[str, set[tuple[str, str]]]
) -> dict[str, Any]:
    """The size of a release: videos, masklets and non-empty masks; the same by split and by kind.

    earlier: of the release before, {} for none. counted_videos: (split, kind) of the masklets that these videos had.
    """

    def of(before: Mapping[str, int], chosen: Sequence[CountedRow], known: set[str]) -> dict[str, int]:
        new = {
            "videos": len({row.video_id for row in chosen} - known),
            "masklets": len(chosen),
            "masks": sum(row.masks for row in chosen),
        }
        return {name: before.get(name, 0) + number for name, number in new.items()}

    def by(before: Mapping[str, Mapping[str, int]], at: int, values: Sequence[str]) -> dict[str, dict[str, int]]:
        found = dict[str, dict[str, int]]()
        for value in sorted({*before, *values}):
            known = {video for video, groups in counted_videos.items() if any(group[at] == value for group in groups)}
            chosen = [row for row, its in zip(rows, values, strict=True) if its == value]
            found[value] = of(before.get(value, {}), chosen, known)
        return found

    return {
        **of(earlier, rows, set(counted_videos)),
        "by_split": by(earlier.get("by_split", {}), 0, [row.split for row in rows]),
        "by_kind": by(earlier.get("by_kind", {}), 1, [row.kind for row in rows]),
    }


def counts_without(earlier: Mapping[str, Any], rows: Sequence[CountedRow]) -> dict[str, Any]:
    """The counts of a release after all rows of one video have left it. rows: those that leave."""

    def less(before: Mapping[str, int], leaving: Sequence[CountedRow]) -> dict[str, int]:
        gone = {"videos": int(bool(leaving)), "masklets": len(leaving), "masks": sum(row.masks for row in leaving)}
        return {name: before[name] - number for name, number in gone.items()}

    def by(before: Mapping[str, Mapping[str, int]], of: Callable[[CountedRow], str]) -> dict[str, dict[str, int]]:
        found = {value: less(of_it, [row for row in rows if of(row) == value]) for value, of_it in before.items()}
        return {value: of_it for value, of_it in found.items() if of_it["masklets"]}

    return {
        **less(earlier, rows),
        "by_split": by(earlier["by_split"], lambda row: row.split),
        "by_kind": by(earlier["by_kind"], lambda row: row.kind),
    }
