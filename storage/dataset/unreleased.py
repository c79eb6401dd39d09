"""Which batches are committed and in no release yet: the snapshots of `masklets` since the last releases."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.iceberg.tables import Tables, TableSnapshot


def since(tables: Tables, snapshot_id: int, ends: Collection[int]) -> list[TableSnapshot]:
    """The snapshots of batches up to this one, the oldest first, from behind the newest of `ends` on.

    ends: snapshots at which everything was in releases. None of them: there is no release yet. A catalog that was made
    anew for an old store does not know the snapshots of its releases. Then all batches of the table are new.
    """
    new: list[TableSnapshot] = []
    for snapshot in tables.history("masklets", snapshot_id):
        if snapshot.snapshot_id in ends:
            break
        if not snapshot.rewrites:
            new.append(snapshot)
    return new[::-1]
