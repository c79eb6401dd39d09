"""From videos to a promoted checkpoint with every stage real: queue over HTTP, model, tables, training, registry."""

import contextlib
import json

import numpy as np
import pycocotools.mask
import pytest

from annotation_queue.client import QueueClient
from annotation_queue.records import Kind, Role
from engine import batches, loop
from engine.batches import BatchStage
from engine.demo import simulated_people
from engine.demo.annotator_policy import AnnotatorPolicy
from engine.demo.simulated_people import Credentials
from engine.ingest import pseudonyms
from engine.registry import Checkpoint
from engine.rounds import record, retraining, starting
from engine.services import connect
from engine.settings import AutoSettings, ReviewSettings
from engine.stages import propose, publish, review
from engine.stages.work import Work
from model.checkpoints import NoCheckpoint
from model.image import ImagePredictor
from model.tracker import Tracker
from storage import iou, rle
from storage.blobs.base import BlobUnreachable
from storage.dataset import parts, releases
from storage.formats import sav
from storage.records import Verdict
from tests.engine.admitting import admit_batch
from tests.engine.true_releases import measured

# A random model finds no good masklets, so these people accept all.
ANYTHING = AnnotatorPolicy(accept_mean=0, accept_frame=-1, accept_share=0, same_object=-1, one_each=False)


@pytest.fixture
def people(queue):
    _, accounts = queue.open_queue()
    team = {"ann": Role.ANNOTATOR, "vera": Role.VERIFIER, "victor": Role.VERIFIER}
    for name, role in team.items():
        accounts.add(name, [role], "correct horse")
    return [Credentials(name, "correct horse") for name in team]


@pytest.fixture
def proposed(queue, searched_once):
    """A batch with candidates, in the review."""
    batch_id = admit_batch(queue)
    propose.propose_batch(queue, batch_id)
    assert review.open_batch(queue, batch_id, queue.settings.review.phase) > 0
    return batch_id


# pycocotools 2.0.11 does not know numpy 2's `copy` keyword yet.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_videos_become_a_release_and_a_round_and_every_stage_may_run_twice(queue, proposed, people, tmp_path):
    s, batch_id = queue, proposed
    before = [m.key for m in parts.markers(s.blobs, "candidates", batch_id)]
    assert propose.chunks(s, batch_id) == []
    propose.propose_videos(s, batch_id, [v.video_id for v in s.tables.videos()])
    assert [m.key for m in parts.markers(s.blobs, "candidates", batch_id)] == before
    assert review.open_batch(s, batch_id, s.settings.review.phase) == s.queue.batch(batch_id).total
    assert review.to_collect(s) == []
    with pytest.raises(review.NotDrained, match="tickets to do"):
        review.collect(s, batch_id)

    tally = simulated_people.work(s, people, policy=ANYTHING)
    assert tally.verdicts["accept"] == sum(m.rows for m in parts.markers(s.blobs, "candidates", batch_id))
    assert loop.find_waiting(s).pending["reviewed"] == review.to_collect(s) == [batch_id]
    collected = review.collect(s, batch_id)
    assert review.collect(s, batch_id) == collected
    found = loop.find_waiting(s)
    assert found.pending == {"videos": [], "reviewed": [], "collected": [batch_id], "release": []} and not found.trouble

    name = publish.publish_batch(s, batch_id)
    assert publish.publish_batch(s, batch_id) == name
    assert len(s.tables.masklets()) == collected.accepted > 0
    assert (publish.docs_folder(s) / batch_id / "index.html").exists()
    release = releases.load(s.blobs, name)
    assert release.verify() == []
    operations = s.tables.operations()
    assert {o.kind for o in operations} >= {"verdict", "stroke", "submit"}
    assert len({o.operation_id for o in operations}) == len(operations)

    held_out = [m for m in release.iter_masklets() if m.split == "val"]
    assert held_out and all((m.phase, m.kind, m.edited_frame_count > 0) == ("1", "manual", True) for m in held_out)
    for m in release.iter_masklets():
        assert m.verdict == "accept" and m.annotated_by != m.verified_by
        known = [pseudonyms.of(s.blobs)(name) for name in ("vera", "victor")]
        assert m.verified_by in known  # no file of a release has their names

    for path in sav.export(release, tmp_path / "sa-v").files:
        exported = json.loads(path.read_text())
        rows = [m for m in release.masklets({exported["video_id"]}) if f"_{m.kind}.json" in path.name]
        for t, frame in enumerate(exported["masklet"]):
            for n, mask in enumerate(frame):
                decoded = pycocotools.mask.decode(mask).astype(bool)
                assert np.array_equal(decoded, rle.decode(rows[n].rle[t], rows[n].height, rows[n].width))

    assert starting.due(s) == name
    round_id = starting.start(s, name)
    assert starting.start(s, name) == round_id
    retraining.train(s, round_id)
    retraining.evaluate(s, round_id)
    outcome = retraining.decide(s, round_id)
    assert outcome.masklets == len(held_out)
    promoted = s.checkpoint()
    assert promoted.name == (round_id if outcome.promoted else str(s.settings.model.checkpoint))
    assert record.result_of(s, round_id) == outcome
    assert retraining.decide(s, round_id) == outcome
    assert starting.due(s) is None
    assert s.model(type(promoted)(round_id, 1, f"checkpoints/{round_id}")).image_size == 128


def test_a_promoted_checkpoint_serves_the_next_batch(queue, proposed, people):
    s, batch_id = queue, proposed
    simulated_people.work(s, people, policy=ANYTHING)
    review.collect(s, batch_id)
    round_id = starting.start(s, publish.publish_batch(s, batch_id), starting.Budget(steps=1))
    retraining.train(s, round_id)
    measured(s, round_id, gain=0.4)
    assert retraining.decide(s, round_id).promoted
    checkpoint = s.checkpoint()
    assert (checkpoint.name, checkpoint.round) == (round_id, 1)
    video = s.tables.videos()[0]
    for row in propose.propose_video(s, video, s.model(checkpoint), checkpoint):
        assert (row.checkpoint, row.round) == (round_id, 1)
        seed = json.loads(row.prompt)
        assert round(row.score[seed["frame_idx"] // 4], 4) == seed["seed_score"] < 1, "what the grid thought of it"


def test_a_promotion_in_the_middle_of_a_batch_does_not_change_the_batchs_checkpoint(s, monkeypatch):
    batch_id = admit_batch(s)
    first, *others = propose.missing(s, batch_id)
    used: list[Checkpoint] = []

    def propose_nothing(s, video, model, checkpoint, progress):
        used.append(checkpoint)
        return []

    monkeypatch.setattr(propose, "propose_video", propose_nothing)
    began_with = s.checkpoint()
    propose.propose_videos(s, batch_id, [first])
    monkeypatch.setattr(s, "checkpoint", lambda: Checkpoint("round-001-00000000", 1, None))
    propose.propose_videos(s, batch_id, others)
    assert used == [began_with] * 3
    batches.mark(s.blobs, "0" * 16, BatchStage.INGESTED, {"videos": [first]})
    with pytest.raises(NoCheckpoint):  # the next batch takes the promoted one, which cannot be loaded here
        propose.propose_videos(s, "0" * 16, [first])
    assert batches.facts(s.blobs, "0" * 16, batches.CHECKPOINT) is None


def test_a_masklet_that_fails_a_check_is_quarantined_and_the_others_are_published(queue, proposed, people):
    s, batch_id = queue, proposed
    simulated_people.work(s, people, policy=ANYTHING)
    review.collect(s, batch_id)
    marker = next(m for m in parts.markers(s.blobs, "masklets", batch_id) if m.rows)
    rows = parts.read_part(s.blobs, marker)
    s.blobs.delete(f"commits/masklets/{batch_id}/{marker.video_id}.json")
    from dataclasses import replace

    broken = replace(rows[0], masklet_id="broken", area_px=tuple(a + 1 for a in rows[0].area_px))
    parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=marker.video_id, rows=[*rows, broken])
    publish.publish_batch(s, batch_id)
    assert "broken" not in {m.masklet_id for m in s.tables.masklets()}
    assert [(q.subject, q.stage, q.reason) for q in s.tables.quarantine()] == [("broken", "publish", "area")]


@pytest.mark.parametrize("owner, method", [(Tracker, "_track"), (ImagePredictor, "predict_points")])
def test_a_video_on_which_the_model_fails_is_quarantined_and_the_batch_goes_on(queue, monkeypatch, owner, method):
    s = queue
    batch_id = admit_batch(s)
    real = getattr(owner, method)
    failed = []

    def fails(self, *arguments, **named):
        """Fails on the first frame that it is asked for, and never again."""
        if failed:
            return real(self, *arguments, **named)
        failed.append(True)
        weight = self._loaded.model.mask_decoder.iou_prediction_head.proj_out.bias
        kept = weight.detach().clone()
        with contextlib.ExitStack() as restore:
            restore.callback(lambda: weight.data.copy_(kept))
            weight.data.fill_(float("nan"))
            return real(self, *arguments, **named)

    monkeypatch.setattr(owner, method, fails)
    victim = propose.missing(s, batch_id)[0]
    propose.propose_batch(s, batch_id)
    assert failed and review.to_open(s) == [batch_id]
    rows = {m.video_id: m.rows for m in parts.markers(s.blobs, "candidates", batch_id)}
    assert rows[victim] == 0 and len(rows) == 3 and any(rows.values())
    (record,) = parts.rows(s.blobs, "quarantine", batch_id)
    assert record.subject == victim and "gave no numbers" in record.detail


def test_small_models_search_the_whole_frame_and_others_use_crops_unless_a_preset_is_set():
    def crops(image_size, **said):
        return [scale.crops_per_side for scale in propose.grid(AutoSettings(**said), image_size).scales]

    assert crops(256) == crops(1024, preset="quick") == [1]
    assert crops(1024) == crops(256, preset="default") == [1, 2, 4]


def test_small_models_track_at_6_frames_a_second_and_others_at_24_unless_a_rate_is_set():
    def step(image_size, **said):
        return propose.track_step(AutoSettings(**said), image_size)

    assert (step(256), step(1024), step(1024, track_fps=12), step(256, track_fps=24)) == (4, 1, 2, 1)


def test_an_error_of_the_machine_ends_the_task_and_quarantines_no_video(queue, monkeypatch):
    s = queue
    batch_id = admit_batch(s)
    (chunk,) = propose.chunks(s, batch_id)

    def gone(video_id):
        raise BlobUnreachable("the bucket does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(s, "video", gone)
        with pytest.raises(BlobUnreachable):
            propose.propose_videos(s, batch_id, chunk)
    assert propose.chunks(s, batch_id) == [chunk]
    propose.propose_videos(s, batch_id, chunk)
    assert list(parts.rows(s.blobs, "quarantine", batch_id)) == []


def test_a_batch_without_candidates_is_drained_collected_and_published(queue, monkeypatch):
    s = queue
    batch_id = admit_batch(s)
    monkeypatch.setattr(propose, "propose_video", lambda *a: [])
    propose.propose_batch(s, batch_id)
    assert review.open_batch(s, batch_id, s.settings.review.phase) == 0
    assert review.to_collect(s) == [batch_id]
    review.collect(s, batch_id)
    assert publish.publish_batch(s, batch_id) == ""
    assert batches.pending(s.blobs, BatchStage.PUBLISHED) == []


def test_a_simulated_annotator_without_truth_raises_and_releases_the_ticket(queue, people, clips, tmp_path):
    import shutil

    s = queue
    for path in clips.glob("*.mp4"):
        shutil.copy(path, tmp_path / path.name)
    batch_id = admit_batch(s, str(tmp_path))
    propose.propose_batch(s, batch_id)
    review.open_batch(s, batch_id, s.settings.review.phase)
    with pytest.raises(simulated_people.NoTruth, match="has no ground truth"):
        simulated_people.work(s, people)
    with QueueClient(s.settings.queue_url, username="vera", password="correct horse") as vera:
        assert vera.claim([Kind.VERIFY]) is not None


def test_a_simulated_annotator_ends_near_the_truth(queue, proposed, people):
    """With a random model, frames that clicks cannot correct are painted with the brush."""
    s, batch_id = queue, proposed
    tally = simulated_people.work(s, people, policy=AnnotatorPolicy(same_object=0.0, attempts=1))
    review.collect(s, batch_id)
    facts = batches.facts(s.blobs, batch_id, BatchStage.COLLECTED) or {}
    assert Work(**facts["work"]) == tally.work  # the log of the queue shows the same work
    by_hand = [m for m in parts.rows(s.blobs, "masklets", batch_id) if m.phase == "1"]
    assert by_hand
    desk = simulated_people.Desk(s, AnnotatorPolicy())
    for row in by_hand:
        best = max(iou.tube_iou(row, truth) for truth in desk.truth(row.video_id))
        assert best == pytest.approx(1.0)


def test_simulated_annotators_add_the_objects_that_no_candidate_shows(queue, people, monkeypatch):
    monkeypatch.setattr(propose, "propose_video", lambda *arguments: [])
    chosen = queue.settings.model_copy(update={"review": ReviewSettings(phase="1", select=True)})
    with connect(chosen) as s:
        batch_id = admit_batch(s)
        propose.propose_batch(s, batch_id)
        review.open_batch(s, batch_id, s.settings.review.phase)
        tally = simulated_people.work(s, people)
        review.collect(s, batch_id)
        facts = batches.facts(s.blobs, batch_id, BatchStage.COLLECTED) or {}
        assert Work(**facts["work"]) == tally.work and tally.work.painted_frames > 0
        desk = simulated_people.Desk(s, AnnotatorPolicy())
        rows = list(parts.rows(s.blobs, "masklets", batch_id))
        truths = [truth for video in s.tables.videos() for truth in desk.truth(video.video_id)]
        assert tally.added == len(rows) == len(truths) > 3
        for truth in truths:
            mine = [row for row in rows if row.video_id == truth.video_id]
            assert max(iou.tube_iou(row, truth) for row in mine) == pytest.approx(1.0)


def test_a_second_candidate_of_one_object_is_a_duplicate(queue, proposed, people):
    s, batch_id = queue, proposed
    simulated_people.work(s, people, policy=AnnotatorPolicy(same_object=0.0))
    settled = s.queue.batch_result(batch_id).settled
    accepted = [d for d in settled if d.verdict is Verdict.ACCEPT]
    truths = sum(len(simulated_people.Desk(s, AnnotatorPolicy()).truth(v.video_id)) for v in s.tables.videos())
    assert 0 < len(accepted) <= truths
    assert len(settled) > len(accepted) or len(settled) <= truths
    desk = simulated_people.Desk(s, AnnotatorPolicy())
    for decision in accepted:  # wrong frames were painted: each masklet is near the truth on every frame
        best = max(desk.truth(decision.video_id), key=lambda t: iou.tube_iou(decision.masklet, t))
        assert iou.tube_iou(decision.masklet, best) > 0.7


def test_a_rejection_of_everything_publishes_nothing(queue, proposed, people):
    s, batch_id = queue, proposed
    simulated_people.work(s, people, policy=AnnotatorPolicy(same_object=1.1))
    result = s.queue.batch_result(batch_id)
    assert {d.verdict for d in result.settled} == {Verdict.REJECT}
    review.collect(s, batch_id)
    assert publish.publish_batch(s, batch_id) == ""
