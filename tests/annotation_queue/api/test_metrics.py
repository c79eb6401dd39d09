"""The figures as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from annotation_queue.api.metrics import exposition
from annotation_queue.figure_records import BatchProgress, GoldFigures, Proportion, QueueFigures, WorkFigures
from annotation_queue.records import Kind


def work(name, **counted):
    nothing = dict.fromkeys(
        (
            "seconds_per_ticket",
            "seconds_per_frame",
            "clicks_per_clicked_frame",
            "edited_frames_share",
            "first_pass",
            "agreement",
            "masklet_iou",
        )
    )
    return WorkFigures(name=name, answers=0, **{"verdicts": {}, **nothing, **counted})


def share(right, of):
    return Proportion(right=right, of=of, low=0.0, high=1.0)


def figures(total, *, batches=(), phases=(), gold=()):
    return QueueFigures(
        at=0.0,
        batches=batches,
        total=total,
        people=(work("vera", verdicts={"accept": 1}),),
        makers=(),
        phases=phases,
        checkpoints=(),
        gold=gold,
        judging=(),
        undelivered=2,
    )


def parsed(found):
    """{name: {labels: value}} of every metric, all of which are gauges."""
    families = list(text_string_to_metric_families(exposition(found).decode()))
    assert {family.type for family in families} == {"gauge"}
    return {family.name: {tuple(sorted(s.labels.items())): s.value for s in family.samples} for family in families}


def test_every_figure_is_a_gauge_with_its_labels():
    batch = BatchProgress(
        batch_id='odd "name"\\', kind=Kind.VERIFY, open=3, leased=1, done=4, per_hour=8.0, expected_s=90.5
    )
    total = work("", verdicts={"accept": 3, "made": 1}, first_pass=share(3, 4), agreement=0.5)
    phase = work("3", seconds_per_frame=4.5, clicks_per_clicked_frame=2.5, edited_frames_share=0.25)
    gold = GoldFigures(person="vera", kind=Kind.VERIFY, accuracy=share(1, 4), score=0.25)
    about, in_phase = (("batch", 'odd "name"\\'), ("kind", "verify")), (("phase", "3"),)
    assert parsed(figures(total, batches=(batch,), phases=(phase,), gold=(gold, gold))) == {
        "masklets_tickets": {
            (*about, ("state", "open")): 3,
            (*about, ("state", "leased")): 1,
            (*about, ("state", "done")): 4,
        },
        "masklets_expected_seconds": {about: 90.5},
        "masklets_answers": {(("verdict", "accept"),): 3, (("verdict", "made"),): 1},
        "masklets_first_pass_ratio": {(): 0.75},
        "masklets_agreement_ratio": {(): 0.5},
        "masklets_seconds_per_frame": {in_phase: 4.5},
        "masklets_clicks_per_clicked_frame": {in_phase: 2.5},
        "masklets_edited_frames_ratio": {in_phase: 0.25},
        "masklets_gold_accuracy_ratio": {(): 0.25},
        "masklets_undelivered_batches": {(): 2},
    }


def test_a_figure_that_was_not_counted_has_no_sample():
    found = parsed(figures(work("")))
    assert found.pop("masklets_undelivered_batches") == {(): 2}
    assert len(found) == 9 and not any(found.values())


def test_people_are_left_out():
    assert '"vera"' not in exposition(figures(work(""))).decode()
