"""Why a batch waits: one sentence for every place where it can stand, and what happens next."""

import json
import sys

import pytest

from annotation_queue.records import Kind, NewTicket, Person, Reason, Role, Submission
from engine import batches, trouble
from engine.batches import BatchStage, UnknownBatch
from engine.cli import main
from engine.services import connect
from engine.serving import why
from engine.settings import AirflowSettings, Settings
from storage.blobs.folder import LocalBlobs
from storage.dataset import parts
from storage.records import Quarantined, Verdict

BATCH, OTHER = "0123456789abcdef", "0123456789abcd00"
INGESTED, PROPOSED, IN_REVIEW, COLLECTED, PUBLISHED = BatchStage
ANN = Person(name="ann", roles=frozenset({Role.ANNOTATOR}))
NOW = 1_000_000.0


@pytest.fixture
def s(tmp_path):
    with connect(Settings(home=tmp_path)) as services:
        batches.mark(services.blobs, BATCH, INGESTED, {"videos": ["v1", "v2", "v3"]})
        yield services


@pytest.fixture
def tickets(s):
    """The queue, at a time that the test sets, with three track tickets of the batch."""
    found, _ = s.open_queue()
    found.clock = lambda: NOW
    found.open_batch(BATCH, [NewTicket(ticket_id=f"t{i}", kind=Kind.TRACK, video_id=f"v{i}") for i in range(3)])
    for mark in (PROPOSED, IN_REVIEW):
        batches.mark(s.blobs, BATCH, mark, {})
    return found


def reject(tickets, claim_id):
    ticket = tickets.claim(ANN, claim_id=claim_id)
    answer = Submission(
        operation_id=claim_id, created_at="", verdict=Verdict.REJECT, reasons=(Reason.NOT_AN_OBJECT,), frame_idx=0
    )
    tickets.finish(ticket.ticket_id, ticket.lease_token, ANN, answer)


def standing(s, tickets=None, now=NOW):
    return why.of_batch(s, BATCH, tickets, now)


def progress(found):
    return {stage.stage: (stage.done, stage.of, stage.complete) for stage in found.stages}


def test_a_batch_without_candidates_waits_for_the_videos_that_lack_them(s):
    parts.write_part(s.blobs, kind="candidates", batch_id=BATCH, video_id="v1", rows=[])
    found = standing(s)
    assert found.waits_for == "auto-masklets: 1 of 3 videos have candidates"
    assert "masklets run" in found.next and "the DAG auto_masklets runs it" in found.next and "15 min" in found.next
    assert progress(found) == {
        "ingest": (3, 3, True),
        "auto-masklets": (1, 3, False),
        "open review": (0, 3, False),
        "collect": (0, 3, False),
        "publish": (0, 3, False),
    }


def test_a_batch_whose_tickets_are_not_open_waits_for_that(s):
    batches.mark(s.blobs, BATCH, PROPOSED, {})
    assert standing(s).waits_for == "open review: its tickets are not open yet"


def test_a_batch_in_review_waits_for_people_and_names_the_oldest_holder(s, tickets):
    tickets.claim(ANN, claim_id="c")
    found = standing(s, tickets, NOW + 80)
    assert found.waits_for == "people: 2 open tickets, 1 held; ann has held t0 for 80 s"
    assert (found.due, progress(found)["review"]) == (None, (0, 3, False))


def test_a_lease_that_expired_counts_as_open(s, tickets):
    tickets.claim(ANN, claim_id="c")
    found = standing(s, tickets, NOW + 86_400)
    assert found.waits_for == "people: 3 open tickets, 0 held; t1 has waited for 24 h"
    assert found.tickets.oldest_held is None


def test_the_expected_end_follows_from_the_pace_in_this_batch(s, tickets):
    reject(tickets, "a")
    found = standing(s, tickets)
    assert found.due == NOW + 2 * 900  # one in 900 s, two are left
    assert found.waits_for.startswith("people: 2 open tickets, 0 held; 4 done an hour; ")
    assert progress(found)["review"] == (1, 3, False)


def test_a_settled_batch_waits_to_be_collected_and_a_failed_report_is_named(s, tickets):
    for n in range(3):
        reject(tickets, str(n))
    assert standing(s, tickets).waits_for == "collect: every ticket is settled"

    def refuse(batch_id):
        raise ConnectionError("Airflow does not answer")

    tickets.deliver(refuse)
    found = standing(s, tickets, NOW)
    assert found.waits_for == "the queue could not report that it is drained: Airflow does not answer"
    assert found.next.startswith("the queue tries again in 1 s") and found.due == NOW + 1


def test_a_stage_that_fails_is_what_the_batch_waits_for(s):
    trouble.record(s.blobs, BATCH, "auto-masklets", "out of memory")
    trouble.record(s.blobs, OTHER, "publish", "of another batch")
    found = standing(s, now=None)
    assert found.waits_for == "auto-masklets, which has failed for 0 s: out of memory"
    assert [one.stage for one in found.stuck] == ["auto-masklets"]


def test_a_collected_and_a_published_batch_say_so(s):
    for mark in (PROPOSED, IN_REVIEW, COLLECTED):
        batches.mark(s.blobs, BATCH, mark, {})
    assert standing(s).waits_for == "publish: it is collected and not published yet"
    batches.mark(s.blobs, BATCH, PUBLISHED, {"release": "release-0001"})
    found = standing(s)
    assert (found.waits_for, found.next) == ("nothing: it is published in release-0001", "")
    assert all(stage.complete for stage in found.stages)


def test_an_import_with_later_marks_is_not_waiting_for_candidates(s):
    batches.mark(s.blobs, BATCH, COLLECTED, {})
    found = standing(s)
    assert found.waits_for.startswith("publish") and progress(found)["auto-masklets"] == (3, 3, True)


def test_an_import_that_was_stopped_waits_for_the_import_and_not_for_a_model(s):
    batches.mark(s.blobs, OTHER, INGESTED, {"videos": ["v1"], "imported": True})
    found = why.of_batch(s, OTHER, None)
    assert (found.waits_for, found.next) == (
        "its import, which was stopped before it was complete",
        "run the same import again",
    )


def test_with_airflow_only_its_dags_are_named(tmp_path):
    with connect(Settings(home=tmp_path, airflow=AirflowSettings(url="http://airflow", reconcile_every_s=60))) as s:
        batches.mark(s.blobs, BATCH, INGESTED, {"videos": ["v1"]})
        found = standing(s)
    assert found.next == "the DAG auto_masklets runs it, and reconcile looks for missed work every 60 s"


def test_refused_rows_of_the_batch_are_counted(s):
    row = Quarantined(stage="auto-masklets", subject="v1", reason="failed", detail="", batch_id=BATCH)
    parts.write_part(s.blobs, kind="quarantine", batch_id=BATCH, video_id="v1", rows=[row])
    assert standing(s).quarantined == 1


def test_an_answer_reads_nothing_of_other_batches(s, tickets, monkeypatch):
    """Its cost follows the batch: keys below other batches are neither listed nor read."""
    for n in range(20):
        batches.mark(s.blobs, f"{n:016x}", INGESTED, {"videos": ["w"]})
        trouble.record(s.blobs, f"{n:016x}", "publish", "fails")
    asked = []

    def noting(plain):
        def noted(self, key=""):
            asked.append(key)
            return plain(self, key)

        return noted

    for name in ("keys", "read", "exists"):
        monkeypatch.setattr(LocalBlobs, name, noting(getattr(LocalBlobs, name)))
    standing(s, tickets)
    assert asked and all(BATCH in key for key in asked)


def test_the_beginning_of_an_id_is_enough_if_only_one_batch_begins_so(s):
    batches.mark(s.blobs, OTHER, INGESTED, {"videos": []})
    assert batches.find(s.blobs, BATCH[:15]) == batches.find(s.blobs, BATCH) == BATCH
    with pytest.raises(ValueError, match="the beginning of 2 batches"):
        batches.find(s.blobs, BATCH[:3])
    for unknown in ("f", "0" * 16, "../x"):
        with pytest.raises(UnknownBatch):
            batches.find(s.blobs, unknown)


def run(monkeypatch, capsys, *words, command="why", fails=False):
    monkeypatch.setattr(sys, "argv", ["masklets", command, *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert bool(ended.value.code) is fails
    printed = capsys.readouterr()
    return printed.err if fails else printed.out


@pytest.mark.slow  # the whole command line
def test_the_command_says_it_in_the_terminal(s, tickets, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MASKLETS_HOME", str(tmp_path))
    trouble.record(s.blobs, BATCH, "collect", "no route to the queue")
    printed = run(monkeypatch, capsys, BATCH[:4])
    for said in ("3 videos", "0 of 3 tickets", "track\t3\t0\t0", "no route to the queue", "waits for  collect, which"):
        assert said in printed
    facts = json.loads(run(monkeypatch, capsys, BATCH, "--json"))
    assert facts["tickets"]["batch"]["remaining"] == 3 and facts["stuck"][0]["error"] == "no route to the queue"
    assert f"{BATCH}\t3\tcollect, which has failed" in run(monkeypatch, capsys)
    assert "is not collected" in run(monkeypatch, capsys, BATCH[:4], command="publish", fails=True)
    row = Quarantined(stage="publish", subject="m1", reason="area", detail="4 px too few", batch_id=BATCH)
    parts.write_part(s.blobs, kind="quarantine", batch_id=BATCH, video_id="publish", rows=[row])
    printed = run(monkeypatch, capsys, BATCH)
    assert "publish\tarea\t1\tm1\t4 px too few" in printed and "publish fails since" in printed
