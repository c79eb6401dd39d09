"""What the verifier does with candidates: only what the settings allow and its precision carries."""

import json
from dataclasses import replace

import numpy as np
import pytest

from annotation_queue.records import Kind, Person, Reason, Role, State, Submission
from engine import batches
from engine.services import connect
from engine.settings import Settings, VerifierSettings
from engine.stages import propose, review, routing
from engine.verifier import keeping
from engine.verifier.figures import VerifierFigures
from engine.verifier.fitting import Predictions
from storage import rle
from storage.dataset import parts
from storage.records import Verdict
from tests.engine.admitting import admit_batch
from tests.engine.verifier import reviewed
from tests.engine.verifier.reviewed import candidates
from validation.verdicts import NOTHING, Cut, Interval

A, B = "a" * 16, "b" * 16
NAME = "verifier-0001-00000000"
SOME = Interval(0.9, 0.8, 1.0)
PRECISION = 0.9  # which few candidates prove


CUTS = Cut(0.9, 300, 300), Cut(0.8, 300, 300)


def figures(accept=CUTS[0], reject=CUTS[1], refine=NOTHING):
    return VerifierFigures(
        candidates=1000,
        videos=50,
        accepted=500,
        rejected=300,
        auroc=SOME,
        calibration_error=SOME,
        saved=SOME,
        agreement=SOME,
        human_agreement=None,
        sure_accept=accept,
        sure_reject=reject,
        sure_refine=refine,
    )


ROWS = candidates(A, 4)
PREDICTED = Predictions(np.array([0.95, 0.5, 0.1, 0.9]), np.array([0.0, 0.2, 0.85, 0.0]))


def verdicts(measured=None, rows=ROWS, **allowed):
    chosen = VerifierSettings(audited_share=0, **allowed)
    found = routing.routes(rows, PREDICTED, measured or figures(), chosen, NAME)
    assert all((route.verdict is None) == (route.decided_by is None) for route in found.values())
    return [found[row.masklet_id].verdict for row in rows]


def test_it_decides_only_what_the_settings_allow():
    assert verdicts() == [None] * 4
    assert verdicts(accept=True) == [Verdict.ACCEPT, None, None, Verdict.ACCEPT]
    assert verdicts(reject=True) == [None, None, Verdict.REJECT, None]
    assert verdicts(accept=True, reject=True) == [Verdict.ACCEPT, None, Verdict.REJECT, Verdict.ACCEPT]


def test_what_people_would_surely_not_accept_is_corrected_without_a_review():
    measured = figures(refine=Cut(0.5, 300, 300))
    assert verdicts(measured, refine=True) == [None, Verdict.REFINE, None, None]  # the third one is to be rejected
    assert verdicts(measured, refine=True, accept=True, reject=True) == [
        Verdict.ACCEPT,
        Verdict.REFINE,
        Verdict.REJECT,
        Verdict.ACCEPT,
    ]
    assert verdicts(figures(reject=NOTHING, refine=Cut(0.5, 300, 300)), refine=True)[2] is Verdict.REFINE


def test_without_a_proved_precision_people_decide():
    assert verdicts(figures(NOTHING, NOTHING), accept=True, reject=True, refine=True) == [None] * 4


def test_people_judge_every_held_out_candidate():
    held_out = [replace(row, split="val") for row in ROWS]
    assert verdicts(rows=held_out, accept=True, reject=True) == [None] * 4


def test_an_audited_share_stays_with_people_and_is_the_same_each_time():
    rows = candidates(A, 4000)
    predicted = Predictions(np.full(4000, 0.95), np.zeros(4000))
    chosen = VerifierSettings(accept=True)
    found = routing.routes(rows, predicted, figures(), chosen, NAME)
    audited = {name for name, route in found.items() if route.verdict is None}
    assert 0.04 < len(audited) / 4000 < 0.06
    assert found == routing.routes(rows, predicted, figures(), chosen, NAME)
    other = routing.routes(rows, predicted, figures(), chosen, "verifier-0002-00000000")
    assert audited != {name for name, route in other.items() if route.verdict is None}


def test_hard_first_is_the_order_of_doubt():
    chosen = VerifierSettings(order=True)
    found = routing.routes(ROWS, PREDICTED, figures(), chosen, NAME)
    assert [found[row.masklet_id].priority for row in ROWS] == [100, 1000, 200, 200]
    found = routing.routes(ROWS, PREDICTED, figures(), VerifierSettings(accept=True), NAME)
    assert {route.priority for route in found.values()} == {0}


@pytest.fixture
def store(tmp_path):
    """A home with 300 reviewed candidates and the verifier that learned from them."""
    everything = VerifierSettings(order=True, accept=True, reject=True, precision=PRECISION)
    with connect(Settings(home=tmp_path, verifier=everything)) as s:
        release = reviewed.review(s.blobs, A, candidates(A, 300, videos=25), 1)
        keeping.refit(s.blobs, release, PRECISION)
        yield s


def test_the_verifier_of_a_batch_is_pinned(store):
    rows = candidates(B, 12)
    first = routing.of_batch(store, B, rows)
    assert {route.verdict for route in first.values()} == {Verdict.ACCEPT, None}
    release = reviewed.review(store.blobs, "c" * 16, candidates("c" * 16), 2, wrong=50)
    newer = keeping.refit(store.blobs, release, PRECISION)
    assert keeping.ids(store.blobs)[-1] == newer.verifier_id
    assert routing.of_batch(store, B, rows) == first
    off = store.settings.model_copy(update={"verifier": VerifierSettings()})
    with connect(off) as s:
        assert routing.of_batch(s, "d" * 16, rows) == {}
        assert batches.facts(s.blobs, "d" * 16, batches.VERIFIER) is None


def test_a_batch_that_was_begun_without_a_verifier_stays_without(tmp_path):
    with connect(Settings(home=tmp_path, verifier=VerifierSettings(accept=True, precision=PRECISION))) as s:
        assert routing.of_batch(s, B, candidates(B, 3)) == {}
        release = reviewed.review(s.blobs, A, candidates(A, 300, videos=25), 1)
        keeping.refit(s.blobs, release, PRECISION)
        assert routing.of_batch(s, B, candidates(B, 3)) == {}


@pytest.mark.parametrize(("what", "value"), [("_FEATURES", "00000000"), ("PROOF", keeping.PROOF + 1)])
def test_people_judge_everything_if_another_version_made_the_verifier(store, monkeypatch, what, value):
    assert routing.of_batch(store, B, candidates(B, 12)) != {}, "the batch has its verifier"
    monkeypatch.setattr(keeping, what, value)
    assert routing.of_batch(store, B, candidates(B, 12)) == {}


REJECTED = Submission(operation_id="o", created_at="", verdict=Verdict.REJECT, reasons=(Reason.OTHER,))


def sized(row, video):
    """The candidate at the size of a video of the store."""
    times = video.height // row.height
    assert (video.height, video.width) == (times * row.height, times * row.width)
    masks = [rle.decode(counts, row.height, row.width).repeat(times, 0).repeat(times, 1) for counts in row.rle]
    areas = tuple(int(mask.sum()) for mask in masks)
    return replace(
        row, height=video.height, width=video.width, rle=tuple(rle.encode(mask) for mask in masks), area_px=areas
    )


def test_what_the_verifier_decided_reaches_the_release_under_its_name(queue, monkeypatch):
    kept = keeping.refit(queue.blobs, reviewed.review(queue.blobs, A, candidates(A, 300, videos=25), 1), PRECISION)
    batch_id = admit_batch(queue)
    videos = {video.video_id: video for video in queue.tables.videos()}
    train = next(video for video in videos.values() if video.split == "train")

    def found(s, video, *_):
        rows = [reviewed.candidate(batch_id, train.video_id, i, steady=i < 3) for i in range(4)]
        return [sized(row, video) for row in rows] if video.video_id == train.video_id else []

    monkeypatch.setattr(propose, "propose_video", found)
    propose.propose_batch(queue, batch_id)
    allowed = VerifierSettings(accept=True, audited_share=0, precision=PRECISION)
    with connect(queue.settings.model_copy(update={"verifier": allowed})) as s:
        assert review.open_batch(s, batch_id, s.settings.review.phase) == 4
        tickets, _ = queue.open_queue()
        (left,) = tickets.find(kind=Kind.VERIFY, state=State.OPEN, batch_id=batch_id)
        assert left.masklet_id == f"{batch_id[:4]}-3"
        vera = Person(name="vera", roles=frozenset({Role.VERIFIER}))
        held = tickets.claim(vera, claim_id="c")
        tickets.finish(held.ticket_id, held.lease_token, vera, REJECTED)
        collected = review.collect(s, batch_id)
    assert (collected.accepted, collected.rejected) == (3, 1)
    facts = batches.facts(queue.blobs, batch_id, batches.BatchStage.COLLECTED) or {}
    assert facts["by_verifier"] == {"accept": 3}
    made = list(parts.rows(queue.blobs, "masklets", batch_id))
    assert {(row.verdict, row.verified_by) for row in made} == {("accept", kept.verifier_id)}
    judged = keeping.judged_of_batch(queue.blobs, batch_id)
    assert [(one.masklet_id, one.verdict) for one in judged] == [(f"{batch_id[:4]}-3", "reject")], "only by people"


def test_an_annotator_gets_what_the_verifier_sends_and_may_hand_it_in_or_reject_it(queue, monkeypatch):
    batch_id = admit_batch(queue)
    train = next(video for video in queue.tables.videos() if video.split == "train")

    def found(s, video, *_):
        rows = [reviewed.candidate(batch_id, train.video_id, i, steady=True) for i in range(3)]
        return [sized(row, video) for row in rows] if video.video_id == train.video_id else []

    def sent(s, batch_id, rows):
        route = {0: routing.TO_PEOPLE, 1: routing.Route(Verdict.REFINE, NAME, 5), 2: routing.Route(None, None, 1)}
        return {row.masklet_id: route[i] for i, row in enumerate(rows)}

    monkeypatch.setattr(propose, "propose_video", found)
    monkeypatch.setattr(routing, "of_batch", sent)
    propose.propose_batch(queue, batch_id)
    assert review.open_batch(queue, batch_id, "3") == review.open_batch(queue, batch_id, "3") == 3
    tickets, _ = queue.open_queue()
    assert len(tickets.find(kind=Kind.VERIFY, state=State.OPEN, batch_id=batch_id)) == 2
    ann = Person(name="ann", roles=frozenset({Role.ANNOTATOR}))
    held = tickets.claim(ann, claim_id="c")
    assert (held.kind, held.masklet_id, held.priority) == (Kind.TRACK, f"{batch_id[:4]}-1", 5)
    pinned = json.loads(held.payload)["pinned"]
    assert pinned == {"frame_idx": 0, "by": NAME, "reasons": [], "verdict": "refine"}
    tickets.finish(held.ticket_id, held.lease_token, ann, REJECTED)
    assert tickets.claim(ann, claim_id="d") is None
    vera = Person(name="vera", roles=frozenset({Role.VERIFIER}))
    for claim_id in "ef":
        held = tickets.claim(vera, claim_id=claim_id)
        rejected = replace(REJECTED, operation_id=claim_id)
        tickets.finish(held.ticket_id, held.lease_token, vera, rejected)
    assert review.collect(queue, batch_id).rejected == 3
    judged = keeping.judged_of_batch(queue.blobs, batch_id)
    assert len(judged) == 2, "nobody reviewed the third one"
