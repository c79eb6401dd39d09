"""How much of a review is left."""

import json
import sys

import pytest

from annotation_queue.records import Kind, NewTicket, Person, Reason, Role, Submission
from engine import batches
from engine.batches import BatchStage
from engine.cli import main
from engine.services import connect
from engine.settings import Settings
from engine.stages import review_progress
from storage.records import Verdict

BATCH = "0" * 16


@pytest.fixture
def reviewed(tmp_path, monkeypatch):
    """The services of a home with a batch of three tickets in review."""
    monkeypatch.setenv("MASKLETS_HOME", str(tmp_path))
    with connect(Settings(home=tmp_path)) as s:
        tickets, _ = s.open_queue()
        tracks = [NewTicket(ticket_id=f"t{i}", kind=Kind.TRACK, video_id="v") for i in range(3)]
        tickets.open_batch(BATCH, tracks)
        for stage in (BatchStage.INGESTED, BatchStage.PROPOSED, BatchStage.IN_REVIEW):
            batches.mark(s.blobs, BATCH, stage, {"videos": ["v"]})
        yield s


def stats(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["masklets", "stats", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert not ended.value.code
    return capsys.readouterr().out


def finish_one(s):
    tickets, _ = s.open_queue()
    ann = Person(name="ann", roles=frozenset({Role.ANNOTATOR}))
    ticket = tickets.claim(ann, claim_id="c")
    answer = Submission(
        operation_id="o", created_at="", verdict=Verdict.REJECT, reasons=(Reason.NOT_AN_OBJECT,), frame_idx=0
    )
    tickets.finish(ticket.ticket_id, ticket.lease_token, ann, answer)


@pytest.mark.server
def test_a_review_without_answers_has_no_expected_end(reviewed, monkeypatch, capsys):
    (progress,) = review_progress.of_open_batches(reviewed).values()
    assert (progress.open, progress.total, progress.expected_end) == (3, 3, None)
    assert "3 of 3 tickets open since" in stats(monkeypatch, capsys)


@pytest.mark.server
def test_the_expected_end_follows_from_the_pace_and_stats_tells_it(reviewed, monkeypatch, capsys):
    finish_one(reviewed)
    facts = json.loads(stats(monkeypatch, capsys, "--json"))["reviews"][BATCH]
    assert (facts["open"], facts["total"]) == (2, 3)
    assert facts["expected_end"] - facts["since"] == pytest.approx(2 * 900, abs=60)  # one in 900 s
    printed = stats(monkeypatch, capsys)
    assert f"batch {BATCH}  in-review  2 of 3 tickets open since" in printed and "expected end" in printed


def test_a_batch_of_another_queue_has_no_progress(tmp_path):
    with connect(Settings(home=tmp_path)) as s:
        batches.mark(s.blobs, BATCH, BatchStage.IN_REVIEW, {})
        assert review_progress.of_open_batches(s) == {}
