"""The figures of a demo: what counts as accepted, what is per masklet, and what the tables say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine import batches
from engine.batches import BatchStage
from engine.demo import summary
from engine.demo.summary import BatchFigures, Summary
from engine.demo.tally import Tally
from engine.rounds.record import RoundResult
from engine.stages.work import Work
from storage.dataset import parts
from storage.records import Operation, content_id

BATCH = BatchFigures(
    batch_id="0" * 16,
    proposed_by="micro",
    videos=9,
    candidates=20,
    candidates_jf=51.25,
    masklets=16,
    accepted=4,
    added=6,
    clicks=40,
    edited_frames=24,
    annotated_frames=160,
    published_jf=91.0,
    modelled_s=400.0,
    release="r",
)
ROUND = RoundResult("round-001-a", True, ("better: much",), 0.40, 0.65, 12, (0.2, 0.31), 0.577, 0.55)


def test_figures_are_shares_and_means_of_their_own_batch():
    assert BATCH.accepted_share == 0.2
    assert (BATCH.clicks_a_masklet, BATCH.edited_frames_a_masklet, BATCH.seconds_a_frame) == (2.5, 1.5, 2.5)
    nothing = replace(BATCH, candidates=0, masklets=0, accepted=0, clicks=0, annotated_frames=0, modelled_s=0.0)
    assert (nothing.accepted_share, nothing.clicks_a_masklet, nothing.seconds_a_frame) == (0, 0, 0)


def test_the_table_puts_the_batches_side_by_side():
    second = replace(BATCH, proposed_by="round-001-a", accepted=15, candidates_jf=None)
    head, *rows = summary.table(Summary("cells", 0, (BATCH, second), ROUND, {}))
    assert head == ("", "first batch", "second batch")
    assert ("proposed by", "micro", "round-001-a") in rows
    assert ("accepted as they were", "4 (20%)", "15 (75%)") in rows
    assert ("their J&F against the truth", "51.2", "not measured") in rows
    assert {len(row) for row in rows} == {3}


def test_the_lines_say_what_the_round_gained_and_what_it_forgot():
    lines = dict(summary.lines(Summary("cells", 2, (BATCH,), ROUND, {"review": 1.25})))
    assert lines["J&F on held-out videos, before and after"] == "40.0 -> 65.0 (+25.0, 95 % interval +20.0 to +31.0)"
    assert lines["J&F on the general set, before and after"] == "57.7 -> 55.0"
    assert lines["gate"] == "promoted: better: much"
    assert (lines["quarantined"], lines["seconds, review"]) == ("2", "1.2")
    assert summary.lines(Summary("cells", 0, (BATCH,), None, {})) == []


def test_a_batch_counts_its_training_videos_only(s, true_release):
    """The batch of a release of true masklets, as if proposed, with every other one edited."""
    first = s.tables.videos()[0].batch_id
    videos = batches.videos(s, first)
    rows = [replace(row, batch_id=first) for row in s.tables.masklets()]
    edited = [replace(row, edited_frame_count=n % 2, click_count=3 * (n % 2)) for n, row in enumerate(rows)]
    renamed = [replace(row, masklet_id=content_id("again", row.masklet_id, length=20)) for row in edited]
    for video in videos:
        mine = [row for row in renamed if row.video_id == video.video_id]
        for kind in ("candidates", "masklets"):
            parts.write_part(s.blobs, kind=kind, batch_id=first, video_id=video.video_id, rows=mine)
        painted = Operation(
            operation_id=content_id("painted", video.video_id, length=32),
            ticket_id=video.video_id,
            batch_id=first,
            video_id=video.video_id,
            masklet_id="m",
            person="ann",
            kind="stroke",
            frame_idx=0,
            payload="{}",
            created_at="2026-01-01T00:00:00+00:00",
        )
        parts.write_part(s.blobs, kind="operations", batch_id=first, video_id=video.video_id, rows=[painted])
    parts.commit_batch(s.blobs, s.tables, "masklets", first)
    batches.mark(s.blobs, first, BatchStage.PUBLISHED, {"release": "a-release"})
    found = summary.of_batch(s, first, Tally(work=Work(painted_frames=len(videos))))
    training = {video.video_id for video in videos if video.split == "train"}
    counted = [row for row in renamed if row.video_id in training]
    assert 0 < len(counted) < len(renamed)
    assert (found.videos, found.candidates, found.masklets) == (len(videos), len(counted), len(counted))
    assert found.accepted == sum(row.edited_frame_count == 0 for row in counted)
    assert found.modelled_s == Work(painted_frames=len(training)).modelled_s > 0
    assert found.clicks == sum(row.click_count for row in counted)
    assert found.published_jf == pytest.approx(100.0)
    assert found.release == "a-release"
