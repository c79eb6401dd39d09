"""Releases with the true masklets of every ingested clip, and rounds that look measured."""

import json
from dataclasses import asdict, replace

from engine import batches
from engine.batches import BatchStage
from engine.rounds import retraining, starting
from storage import rle
from storage.dataset import parts, releases
from storage.formats import sav
from storage.records import content_id
from validation.gate import Metrics
from validation.paired import MaskletJF


def release_of(s, name, change=lambda row: row):
    """A release with the true masklets of every ingested clip, once more under ids of its own."""
    batch_id = content_id(name)
    for video in s.tables.videos():
        rows = [
            change(
                replace(
                    row,
                    masklet_id=content_id(name, video.video_id, row.masklet_id, length=20),
                    batch_id=batch_id,
                    split=video.split,
                    verdict="accept",
                )
            )
            for row in sav.from_sav(json.loads(s.blobs.read(video.truth_key)), video=video)
        ]
        parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=video.video_id, rows=rows)
    parts.commit_batch(s.blobs, s.tables, "masklets", batch_id)
    return releases.make(s.blobs, s.tables, name)


def only_on(*shown):
    """The masklet, visible on these annotated frames (by their number) only."""

    def change(row):
        keep = [i in shown for i in range(len(row.rle))]
        nothing = rle.empty(row.height, row.width)
        return replace(
            row,
            rle=tuple(c if k else nothing for c, k in zip(row.rle, keep, strict=True)),
            area_px=tuple(a if k else 0 for a, k in zip(row.area_px, keep, strict=True)),
        )

    return change


def measured(s, round_id, gain=0.1, general=()):
    """Writes the records of `train` and `evaluate` without weights: J&F 0.5 before, and `gain` more after.

    general: J&F on the general set before and after.
    """
    jf_of = {"before": 0.5, "after": 0.5 + gain}
    if general:
        jf_of["general_before"], jf_of["general_after"] = general
    figures = {
        name: asdict(Metrics.of([MaskletJF(video_id=f"v{n % 4}", name=str(n), jf=jf) for n in range(12)]))
        for name, jf in jf_of.items()
    }
    s.blobs.create(f"checkpoints/{round_id}/meta.json", b"{}")
    s.blobs.create(f"rounds/{round_id}/evaluation.json", json.dumps(figures).encode())
    return round_id


WORK = {"watched_frames": 1000, "clicks": 30, "clicked_frames": 20, "painted_frames": 0}  # 165 modelled seconds


def publish(s, number, release, **facts):
    """Marks a batch of 10 masklets with 10 annotated frames each as published with this release."""
    marked = {"release": release, "masklets": 10, "annotated_frames": 100, "work": WORK} | facts
    batches.mark(s.blobs, f"{number:016x}", BatchStage.PUBLISHED, marked)


def two_rounds(s):
    """A promoted round on release 1 and a refused one on release 3; their ids. Batch 9 was published after both.

    Needs `true_release`.
    """
    publish(s, 7, "release-0001", checkpoints={"micro": 10})
    first = measured(s, starting.start(s, "release-0001"))
    assert retraining.decide(s, first).promoted
    release_of(s, "release-0003-b")
    publish(s, 2, "release-0002-a", checkpoints={first: 7, "by hand": 3})
    publish(s, 3, "release-0003-b", checkpoints={first: 8}, masklets=8, work=WORK | {"clicks": 10})
    publish(s, 9, "release-0010-c", checkpoints={"late": 10})
    second = measured(s, starting.start(s, "release-0003-b"), gain=-0.1, general=(0.8, 0.74))
    assert not retraining.decide(s, second).promoted
    return first, second
