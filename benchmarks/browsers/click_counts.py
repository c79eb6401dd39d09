"""Random work of an annotator, and its clicks by the rule of the releases: the page must count the same."""

from __future__ import annotations

import json
import random
from typing import Any

from annotation_queue.effort import effort_of
from storage.records import Operation


def random_acts(seed: int) -> list[dict[str, Any]]:
    """Some operations of an annotator, as the queue lists them."""
    chance, acts = random.Random(seed), list[dict[str, Any]]()
    for n in range(chance.randrange(20)):
        kind, frame = (
            chance.choice(["prompt", "prompt", "stroke", "clear", "absent", "undo", "redo"]),
            chance.randrange(3),
        )
        payload: dict[str, Any] = {"operation_id": f"o{chance.randrange(n + 1)}", "first": 0, "last": frame}
        if kind == "prompt":
            payload = {"points_xy": [[chance.randrange(4), 0] for _ in range(chance.randrange(4))]}
            payload |= {"box_xyxy": [0, 0, 9, chance.randrange(8, 10)]} if chance.random() < 0.3 else {}
        acts.append({"operation_id": f"o{n}", "kind": kind, "frame_idx": frame, "payload": json.dumps(payload)})
    return acts


def clicks_of(acts: list[dict[str, Any]]) -> int:
    """The clicks of these operations by the rule of the releases."""
    about: dict[str, Any] = {
        "ticket_id": "t",
        "batch_id": "b",
        "video_id": "v",
        "masklet_id": "m",
        "person": "ann",
        "created_at": "",
    }
    done = [Operation(seq=n, **about, **act) for n, act in enumerate(acts)]
    return sum(effort.clicks for effort in effort_of(done, ()).values())
