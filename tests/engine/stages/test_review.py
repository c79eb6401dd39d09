"""Select tickets, where the settings ask for them; gold tickets, made from decisions."""

import json
import shutil
import sys
import uuid
from dataclasses import replace

import numpy as np
import pytest

from annotation_queue.records import Kind, NewTicket, Person, QueuePolicy, Reason, Role, Submission
from engine import batches
from engine.batches import BatchStage
from engine.cli import main
from engine.ingest import ingest
from engine.services import connect
from engine.settings import ReviewSettings
from engine.stages import propose, publish, published, review
from engine.stages.gold import gold_tickets
from engine.stages.work import Work
from storage import rle
from storage.dataset import parts, releases, withdrawn
from storage.dataset.withdrawn import Withdrawal
from storage.records import Masklet, Verdict
from tests.engine.admitting import admit_batch


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"review": ReviewSettings(select=True, phase="2")})


def test_each_video_gets_a_select_ticket_after_the_tickets_about_candidates(queue):
    ingest.admit(queue)
    (batch_id,) = batches.reached(queue.blobs)
    propose.propose_batch(queue, batch_id)
    gone, *others = batches.video_ids(queue.blobs, batch_id)
    withdrawn.record(queue.blobs, Withdrawal(video_id=gone, by="lea", at="", why="asked"))
    count = review.open_batch(queue, batch_id, queue.settings.review.phase)
    tickets, _ = queue.open_queue()
    selections = tickets.find(kind=Kind.SELECT, batch_id=batch_id)
    assert sorted(t.video_id for t in selections) == sorted(others), "a withdrawn video gets none"
    assert count == 2 + len(tickets.find(kind=Kind.VERIFY, batch_id=batch_id, limit=500)) > 2
    assert {(t.phase, t.masklet_id) for t in selections} == {("2", None)}
    assert tickets.batch(batch_id).name == batches.name_of(batches.videos(queue, batch_id)) != ""
    lead = Person(name="lea", roles=frozenset({Role.LEAD}))
    assert tickets.claim(lead, claim_id="c").kind is Kind.VERIFY
    assert review.open_batch(queue, batch_id, queue.settings.review.phase) == count, "opening it again changes nothing"


def test_objects_of_held_out_videos_that_people_pick_are_masked_by_hand(queue):
    shares = queue.settings.ingest.model_copy(update={"test_share": 0.34})
    by_hand = ReviewSettings(select=True, held_out_by_hand=True)
    with connect(queue.settings.model_copy(update={"review": by_hand, "ingest": shares})) as s:
        ingest.admit(s)
        (batch_id,) = batches.reached(s.blobs)
        propose.propose_batch(s, batch_id)
        review.open_batch(s, batch_id, s.settings.review.phase)
        tickets = s.open_queue()[0].find(batch_id=batch_id, limit=500)
        splits = {video.video_id: video.split for video in batches.videos(s, batch_id)}
    selections = {(splits[t.video_id], t.phase) for t in tickets if t.kind is Kind.SELECT}
    assert selections == {("val", "1"), ("test", "1"), ("train", "3")}
    about = [t for t in tickets if t.kind is not Kind.SELECT and splits[t.video_id] != "train"]
    assert {splits[t.video_id] for t in about} == {"val", "test"}
    assert {t.kind for t in about} == {Kind.TRACK}, "the model shapes no mask of a held-out video"


def test_an_accepted_masklet_that_cannot_be_published_is_quarantined_and_the_batch_goes_on(queue, monkeypatch):
    """Masklets as an earlier version of the queue took them: of another video, and with a round beyond 64 bits."""
    batch_id = admit_batch(queue)
    monkeypatch.setattr(propose, "propose_video", lambda *arguments: [])
    propose.propose_batch(queue, batch_id)
    tickets, _ = queue.open_queue()
    monkeypatch.setattr("annotation_queue.rules.masklet_problems", lambda *given: {})
    video = queue.tables.videos()[0]
    good = fitting(square("good", 8), video)
    rows = [square("foreign", 8), replace(good, masklet_id="big", round=2**70), good]
    tickets.open_batch(batch_id, [verify(row) for row in rows])
    batches.mark(queue.blobs, batch_id, BatchStage.IN_REVIEW, {})
    for _ in rows:
        finish(tickets, VERA, Verdict.ACCEPT)
    assert review.collect(queue, batch_id).accepted == 3
    publish.publish_batch(queue, batch_id)
    assert [m.masklet_id for m in queue.tables.masklets()] == ["good"]
    refused = {(q.subject, q.stage, q.reason) for q in queue.tables.quarantine()}
    assert refused == {("foreign", "collect", "video"), ("big", "collect", "unstorable")}


def test_an_invalid_candidate_is_quarantined_and_the_others_get_tickets(queue, monkeypatch):
    batch_id = admit_batch(queue)
    good = fitting(square("good", 8), queue.tables.videos()[0])
    bad = replace(good, masklet_id="bad", area_px=(2**30,) * 2)
    found = {good.video_id: [replace(row, batch_id=batch_id) for row in (good, bad)]}
    monkeypatch.setattr(propose, "propose_video", lambda s, video, *_: found.get(video.video_id, []))
    propose.propose_batch(queue, batch_id)
    review.open_batch(queue, batch_id, queue.settings.review.phase)
    tickets, _ = queue.open_queue()
    assert [t.masklet_id for t in tickets.find(kind=Kind.VERIFY)] == ["good"]
    (record,) = parts.rows(queue.blobs, "quarantine", batch_id)
    assert (record.subject, record.stage, record.reason) == ("bad", "review", "area")


def test_masklets_of_two_batches_that_came_under_one_id_have_two_ids_in_the_release(
    queue, clips, tmp_path, monkeypatch
):
    monkeypatch.setattr(propose, "propose_video", lambda *arguments: [])
    tickets, _ = queue.open_queue()
    for clip in sorted(clips.glob("*.mp4"))[:2]:
        folder = tmp_path / clip.stem
        folder.mkdir()
        shutil.copy(clip, folder)
        batch_id = admit_batch(queue, str(folder))
        propose.propose_batch(queue, batch_id)
        (video_id,) = batches.video_ids(queue.blobs, batch_id)
        video = next(v for v in queue.tables.videos() if v.video_id == video_id)
        track = NewTicket(ticket_id=f"track-{batch_id}", kind=Kind.TRACK, video_id=video_id, masklet=None, phase="1")
        tickets.open_batch(batch_id, [track])
        batches.mark(queue.blobs, batch_id, BatchStage.IN_REVIEW, {})
        finish(tickets, ANN, masklet=fitting(square("the-same-id", 8), video))
        finish(tickets, VERA, Verdict.ACCEPT)
        review.collect(queue, batch_id)
        name = publish.publish_batch(queue, batch_id)
        assert publish.publish_batch(queue, batch_id) == name
    rows = list(releases.load(queue.blobs, name).iter_masklets())
    assert len(rows) == len({row.masklet_id for row in rows}) == 2
    assert len({row.video_id for row in rows}) == 2
    added = published.of_all(queue.blobs)
    assert [batch.release for batch in added] == releases.names(queue.blobs)
    for batch, row in zip(added, sorted(rows, key=lambda row: row.batch_id != added[0].batch_id), strict=True):
        assert (batch.masklets, batch.checkpoints) == (1, {row.checkpoint: 1})
        assert batch.annotated_frames == len(row.frame_idx)
        assert batch.work == Work(watched_frames=24)  # one verdict on a video of 24 frames
    assert releases.load(queue.blobs, name).verify() == []


def verify(row):
    return NewTicket(ticket_id=f"t-{row.masklet_id}", kind=Kind.VERIFY, video_id=row.video_id, masklet=row, phase="2")


def fitting(row, video):
    """The masklet at the size of a video of the store."""
    canvas = np.zeros((video.height, video.width), bool)
    canvas[:8, :8] = True
    counts = rle.encode(canvas)
    size = {"video_id": video.video_id, "height": video.height, "width": video.width}
    return replace(row, rle=(counts,) * 2, **size)


BATCH = "0" * 16
VERA, ANN, LEA = (
    Person(name=name, roles=frozenset({role}))
    for name, role in (("vera", Role.VERIFIER), ("ann", Role.ANNOTATOR), ("lea", Role.LEAD))
)


def square(masklet_id, at):
    """A masklet of a square of 8 px whose upper left corner is at (at, at), in a frame of 32."""
    canvas = np.zeros((32, 32), bool)
    canvas[at : at + 8, at : at + 8] = True
    return Masklet(
        masklet_id=masklet_id,
        video_id="v",
        batch_id=BATCH,
        height=32,
        width=32,
        frame_idx=(0, 4),
        rle=(rle.encode(canvas),) * 2,
        area_px=(64,) * 2,
        score=(0.9,) * 2,
        object_score=(5.0,) * 2,
        stability=(0.9,) * 2,
        kind="auto",
        phase="auto",
        round=0,
        checkpoint="micro",
        prompt="{}",
    )


def finish(tickets, person, verdict=None, masklet=None, **said):
    ticket = tickets.claim(person, claim_id=uuid.uuid4().hex)
    said |= {"verdict": verdict, "masklet": masklet, "frame_idx": 4}
    made = Submission(operation_id=uuid.uuid4().hex, created_at="", **said)
    return tickets.finish(ticket.ticket_id, ticket.lease_token, person, made)


def test_gold_is_made_even_if_one_annotator_called_the_object_untrackable(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKLETS_HOME", str(tmp_path / "home"))
    names = [f"m{i}" for i in range(4)]
    with connect() as s:
        rows = [square(name, 4) for name in names]
        parts.write_part(s.blobs, kind="candidates", batch_id=BATCH, video_id="v", rows=rows)
        tickets, _ = s.open_queue()
        tickets.policy = QueuePolicy(makers=2, makers_share=1.0)
        tickets.open_batch(
            BATCH,
            [
                NewTicket(ticket_id=f"0{m.masklet_id}", kind=Kind.VERIFY, video_id="v", masklet=m, phase="3")
                for m in rows
            ],
        )
        for _ in names:
            finish(tickets, VERA, Verdict.REFINE)
        for _ in names:
            finish(tickets, ANN, Verdict.REJECT, reasons=(Reason.UNTRACKABLE,))
        for name in names:
            finish(tickets, replace(ANN, name="andy"), masklet=square(f"mended-{name}", 16))
        for _ in names:
            finish(tickets, LEA, Verdict.ACCEPT)
        made = gold_tickets(s, tickets.batch_result(BATCH), s.settings.review.phase)
    pins = [json.loads(g.ticket.payload)["pinned"] for g in made if g.truth is not None]
    assert len(made) == 8 and pins == [{"frame_idx": 4, "by": "vera", "reasons": [], "verdict": "refine"}] * 4


def test_gold_is_made_from_decisions_except_of_hardly_changed_candidates(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MASKLETS_HOME", str(tmp_path / "home"))

    def said(*words):
        monkeypatch.setattr(sys, "argv", ["masklets", "gold", *words])
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert not ended.value.code
        return capsys.readouterr().out

    with connect() as s:
        rows = [square(name, 4) for name in ("right", "wrong", "nearly")]
        parts.write_part(s.blobs, kind="candidates", batch_id=BATCH, video_id="v", rows=rows)
        tickets, _ = s.open_queue()
        opened = [
            NewTicket(ticket_id=m.masklet_id, kind=Kind.VERIFY, video_id="v", masklet=m, phase="3")
            for m in parts.rows(s.blobs, "candidates", BATCH)
        ]
        tickets.open_batch(BATCH, opened)
        for verdict in (Verdict.ACCEPT, Verdict.REFINE, Verdict.REFINE):
            finish(tickets, VERA, verdict, text="too small" if verdict is Verdict.REFINE else None)
        for made in (square("mended", 16), square("touched", 4)):
            finish(tickets, ANN, masklet=made)
        for _ in range(2):
            finish(tickets, LEA, Verdict.ACCEPT)
        made = gold_tickets(s, tickets.batch_result(BATCH), s.settings.review.phase)
    assert {(g.ticket.masklet.masklet_id, g.ticket.kind, g.expected) for g in made} == {
        ("right", Kind.VERIFY, Verdict.ACCEPT),
        ("wrong", Kind.VERIFY, Verdict.REFINE),
        ("wrong", Kind.TRACK, None),
    }, "a hardly changed candidate has no clear answer"
    (correct,) = (g for g in made if g.truth is not None)
    assert correct.truth.rle == square("mended", 16).rle and correct.ticket.masklet.verdict is None
    pinned = {"frame_idx": 4, "by": "vera", "reasons": [], "verdict": "refine", "text": "too small"}
    assert f'"pinned": {json.dumps(pinned)}' in correct.ticket.payload, "as real corrections have it, in this order"
    assert said("add", BATCH).startswith("3 new")
    assert said("add", BATCH).startswith("0 new")
    listed = json.loads(said("list", "--json"))["gold"]
    assert sorted((g["kind"], g["expected"]) for g in listed if g["expected"]) == [
        ("verify", "accept"),
        ("verify", "refine"),
    ]
    assert "track: a masklet; 0 of 0 right" in said("list")
