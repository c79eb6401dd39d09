"""A batch that is published in increments: nothing comes twice, and nothing is forgotten, also after a kill."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest

from annotation_queue.records import BatchResult, Kind, NewTicket, Person, Role, Submission
from annotation_queue.tickets import closing, withdrawn
from annotation_queue.tickets.store import TicketStore
from benchmarks import scale
from engine import batches, loop, trouble
from engine.batches import BatchStage
from engine.services import connect
from engine.serving import why
from engine.settings import ReviewSettings, Settings
from engine.stages import publish, publish_checks, published, review, review_progress, withdrawing
from engine.verifier import keeping
from storage.blobs.folder import LocalBlobs
from storage.dataset import batch_manifests, compaction, increments, parts, releases, reproduction
from storage.iceberg.tables import Tables
from storage.records import Masklet, Quarantined, Verdict, content_id
from tests.engine.ingest.test_admitted import counted
from tests.storage.killed_writes import Killed
from validation import masklet_checks, table_checks

pytestmark = pytest.mark.slow

VERA = Person(name="vera", roles=frozenset({Role.VERIFIER}))
LEA = Person(name="lea", roles=frozenset({Role.LEAD}))
HOUR_S = 3600.0


@dataclass
class DirectQueue:
    """What the stages ask the queue, without HTTP between."""

    tickets: TicketStore

    def drained_batches(self, among: Sequence[str]) -> list[str]:
        return [batch.batch_id for batch in self.tickets.batches(only=among, drained=True)]

    def batch(self, batch_id: str):
        return self.tickets.batch(batch_id)

    def settled_videos(self):
        return closing.settled_videos(self.tickets.database)

    def close_settled(self, batch_id: str) -> list[str]:
        return closing.close(self.tickets.database, batch_id, self.tickets.clock())

    def withdraw(self, batch_id: str, video_id: str, why: str) -> int:
        pipeline = Person(name="pipeline", roles=frozenset({Role.PIPELINE}))
        now = self.tickets.clock()
        return withdrawn.reject(self.tickets.database, batch_id, video_id, by=pipeline, why=why, now=now)

    def batch_result(self, batch_id: str, only=None) -> BatchResult:
        first = self.tickets.result_page(batch_id, limit=1000, only=only)
        then = self.tickets.result_page(batch_id, after=first.next, limit=1000, only=only)
        return BatchResult(batch=first.batch, settled=first.settled, operations=then.operations)


def services(home, **settings):
    """Services whose queue is in this process; enough videos for an increment are half of them."""
    chosen = {"publish_share": 0.5} | settings
    s = connect(Settings(home=home, review=ReviewSettings(**chosen)))
    s.queue = DirectQueue(s.open_queue()[0])  # type: ignore[assignment]  # all that the stages ask
    return s


@pytest.fixture
def s(tmp_path, monkeypatch):
    passed = table_checks.Report(success=True, results=(), docs_index=None)
    monkeypatch.setattr(table_checks, "check_tables", lambda *arguments, **named: passed)
    monkeypatch.setattr("os.fsync", lambda _: None)
    with services(tmp_path / "home") as found:
        yield found


def reviewed(s, number: int, videos: int) -> tuple[str, list[str]]:
    """A batch whose review is open: one candidate a video, one ticket a candidate."""
    ids = scale.ids_of(number, videos)
    batch_id = content_id("batch", *ids)
    for video_id in ids:
        video = scale.video_of(video_id, batch_id)
        s.blobs.create(video.video_key, video_id.encode())
        s.blobs.create(video.frames_key, b"[0.0]")
        parts.write_part(s.blobs, kind="videos", batch_id=batch_id, video_id=video_id, rows=[video])
        rows = [candidate(video_id, batch_id, video.split)]
        parts.write_part(s.blobs, kind="candidates", batch_id=batch_id, video_id=video_id, rows=rows)
    parts.commit_batch(s.blobs, s.tables, "videos", batch_id)
    for stage in (BatchStage.INGESTED, BatchStage.PROPOSED, BatchStage.IN_REVIEW):
        batches.mark(s.blobs, batch_id, stage, {"videos": ids})
    tickets = [verify(candidate(video_id, batch_id, "train")) for video_id in ids]
    s.queue.tickets.open_batch(batch_id, tickets)
    return batch_id, ids


def candidate(video_id: str, batch_id: str, split: str) -> Masklet:
    row = scale.masklets_of(video_id, batch_id, split)[0]
    return replace(row, verdict=None, verified_by=None)


def verify(row: Masklet) -> NewTicket:
    ticket_id = content_id(row.batch_id, row.masklet_id, Kind.VERIFY.value)
    return NewTicket(ticket_id=ticket_id, kind=Kind.VERIFY, video_id=row.video_id, masklet=row, phase="3")


def accept(s, batch_id: str, *video_ids: str) -> None:
    for video_id in video_ids:
        ticket_id = verify(candidate(video_id, batch_id, "train")).ticket_id
        ticket = s.queue.tickets.claim(VERA, claim_id=uuid.uuid4().hex, ticket_id=ticket_id)
        answer = Submission(operation_id=uuid.uuid4().hex, created_at="", verdict=Verdict.ACCEPT)
        s.queue.tickets.finish(ticket_id, ticket.lease_token, VERA, answer)


def run(s) -> None:
    """What the DAGs do when something woke them."""
    for batch_id in review.to_collect(s):
        review.collect(s, batch_id)
    for batch_id in publish.pending(s):
        publish.publish_batch(s, batch_id)


def published_ids(s, name: str) -> list[str]:
    return sorted(row.video_id for row in releases.load(s.blobs, name).iter_masklets())


def test_settled_videos_are_published_when_they_are_a_share_of_the_batch_and_the_rest_follows(s):
    batch_id, ids = reviewed(s, 1, 5)
    accept(s, batch_id, *ids[:2])
    run(s)
    with pytest.raises(review.NotDrained, match="3 of 5 tickets to do"):
        review.collect(s, batch_id)
    assert releases.names(s.blobs) == [], "two of five are less than half"
    accept(s, batch_id, ids[2])
    run(s)
    (first,) = releases.names(s.blobs)
    assert published_ids(s, first) == sorted(ids[:3])
    assert "3 of 5 videos are published" in why.of_batch(s, batch_id, s.queue.tickets).waits_for
    assert [(p.published, p.videos) for p in review_progress.of_open_batches(s).values()] == [(3, 5)]
    accept(s, batch_id, ids[3])
    run(s)
    assert releases.names(s.blobs) == [first], "one of five is less than half"
    with pytest.raises(loop.NotFinished):
        loop.finish(s, batch_id)
    accept(s, batch_id, ids[4])
    run(s)
    names = releases.names(s.blobs)
    assert published_ids(s, names[-1]) == sorted(ids) == sorted(row.video_id for row in s.tables.masklets())
    assert {row.batch_id for row in s.tables.masklets()} == {batch_id}
    newest = releases.load(s.blobs, names[-1])
    assert (newest.counts["videos"], newest.counts["masklets"], newest.verify()) == (5, 5, [])
    assert not reproduction.reproduce(newest).differences
    assert [(one.masklets, one.work.watched_frames) for one in published.of_all(s.blobs)] == [(3, 72), (2, 48)]
    assert (batches.facts(s.blobs, batch_id, BatchStage.COLLECTED) or {})["accepted"] == 5
    assert len(keeping._examples(s.blobs, names[-1])) == 5
    assert len(newest.published_files(ids[0])) == 1 == len(newest.masklets(ids[:1]))
    before = list(s.blobs.entries())
    run(s)
    assert list(s.blobs.entries()) == before and batches.unfinished(s.blobs) == {} == increments.begun(s.blobs)


def test_settled_videos_are_published_after_some_hours_at_the_latest(s, monkeypatch):
    with services(s.home, publish_share=0, publish_after_hours=2) as slow:
        batch_id, ids = reviewed(slow, 1, 3)
        opened = slow.queue.tickets.clock()
        assert review._due(slow, opened + 9 * HOUR_S) == [], "nothing is settled"
        accept(slow, batch_id, ids[0])
        assert (review._due(slow, opened + HOUR_S), review._due(slow, opened + 2.1 * HOUR_S)) == ([], [batch_id])
        increments.begin(slow.blobs, batch_id, 1)
        review.collect(slow, batch_id)
        accept(slow, batch_id, ids[1])
        assert review._due(slow, slow.queue.tickets.clock() + HOUR_S) == [], "the time begins with the last increment"
    with services(s.home, publish_share=0) as never:
        monkeypatch.setattr(DirectQueue, "settled_videos", lambda _: pytest.fail("asked without a need"))
        assert review._due(never, opened + 9 * HOUR_S) == []


def kill_after_each_step(monkeypatch) -> list[str]:
    """Raises Killed after each call that changed something. Returns the list of these calls."""
    steps = list[str]()

    def killing(owner, name: str, changed) -> None:
        real = getattr(owner, name)

        def call(self, first, *more, **named):
            before = name != "delete" or self.exists(first)
            done = real(self, first, *more, **named)
            if before and changed(done):
                steps.append(f"{name} {first}")
                raise Killed
            return done

        monkeypatch.setattr(owner, name, call)

    killing(LocalBlobs, "create", bool)
    killing(LocalBlobs, "delete", lambda _: True)
    killing(Tables, "commit", lambda done: not done.already)
    known = set[str]()

    def has_new(closed: list[str]) -> bool:
        found = not known.issuperset(closed)
        known.update(closed)
        return found

    killing(DirectQueue, "close_settled", has_new)
    return steps


def test_an_increment_that_is_killed_after_any_step_is_completed_and_nothing_comes_twice(s, monkeypatch):
    batch_id, ids = reviewed(s, 1, 3)
    with monkeypatch.context() as patch:
        steps = kill_after_each_step(patch)
        for settled in (ids[:2], ids[2:]):
            accept(s, batch_id, *settled)
            while True:
                try:
                    run(s)
                    break
                except Killed:
                    continue
    done = Counter(step.split("/")[0] for step in steps)
    wanted = ("commit operations", "commit masklets", "create release-numbers", "create manifests")
    assert all(done[step] == 2 for step in wanted) and len(steps) > 30, steps
    assert done["create releases"] == 4, "two manifests and their cards"
    assert sum(step.startswith("close_settled") for step in steps) == 1, "the last video came with the drained batch"
    assert publish.pending(s) == [] == review.to_collect(s) and increments.begun(s.blobs) == {}
    rows = s.tables.masklets()
    assert sorted(row.video_id for row in rows) == sorted(ids) and len(s.tables.operations()) == 3
    first, last = releases.names(s.blobs)
    assert (published_ids(s, first), published_ids(s, last)) == (sorted(ids[:2]), sorted(ids))
    newest = releases.load(s.blobs, last)
    assert newest.verify() == [] and newest.counts["masklets"] == 3
    assert [one.masklets for one in published.of_all(s.blobs)] == [2, 1]


def test_an_increment_that_another_process_makes_meanwhile_has_each_video_once(s, monkeypatch):
    """One process is paused between the closing and the mark, while another collects the drained batch."""
    batch_id, ids = reviewed(s, 1, 3)
    accept(s, batch_id, *ids[:2])
    take = increments.take

    def paused(blobs, increment):
        monkeypatch.setattr(increments, "take", take)
        accept(s, batch_id, ids[2])
        run(s)
        return take(blobs, increment)

    monkeypatch.setattr(increments, "take", paused)
    assert review.collect(s, batch_id) == review.Collected(0, 0, 0)
    run(s)
    assert [sorted(one.video_ids) for one in increments.of_batch(s.blobs, batch_id)] == [sorted(ids)]
    assert sorted(row.video_id for row in s.tables.masklets()) == sorted(ids) and len(releases.names(s.blobs)) == 1
    increments.begin(s.blobs, batch_id, 1)  # by a third one, which was paused for even longer
    run(s)
    assert publish.pending(s) == [], "nobody is woken for a published batch for ever"


def test_a_process_that_found_nothing_does_not_hide_the_increment_of_another_one(s, monkeypatch):
    batch_id, ids = reviewed(s, 1, 3)
    increments.begin(s.blobs, batch_id, 1)  # by a process that was killed
    end = increments.end

    def overtaken(blobs, *place):
        monkeypatch.setattr(increments, "end", end)
        accept(s, batch_id, *ids[:2])
        assert review.collect(s, batch_id).accepted == 2
        end(blobs, *place)

    monkeypatch.setattr(increments, "end", overtaken)
    assert review.collect(s, batch_id) == review.Collected(0, 0, 0)
    assert publish.pending(s) == [batch_id]


def test_an_increment_that_another_process_ends_before_it_is_taken_is_published(s, monkeypatch):
    batch_id, ids = reviewed(s, 1, 3)
    accept(s, batch_id, *ids[:2])
    take = increments.take

    def ended(blobs, increment):
        increments.end(blobs, batch_id, increment.number)  # by one that looked before the videos were settled
        return take(blobs, increment)

    monkeypatch.setattr(increments, "take", ended)
    assert review.collect(s, batch_id).accepted == 2
    assert publish.pending(s) == [batch_id]


def test_a_task_that_was_killed_at_its_end_finds_its_increment_and_does_not_fail(s):
    batch_id, ids = reviewed(s, 1, 3)
    with pytest.raises(review.NotDrained):
        review.collect(s, batch_id)
    accept(s, batch_id, *ids[:2])
    assert review.collect(s, batch_id).accepted == 2
    assert review.collect(s, batch_id) == review.Collected(0, 0, 0)
    assert trouble.stuck(s.blobs) == [], "no batch is shown as stuck"


@pytest.mark.parametrize("erase", [False, True])
def test_a_batch_is_published_once_its_last_open_video_is_withdrawn(s, erase):
    batch_id, ids = reviewed(s, 1, 3)
    accept(s, batch_id, *ids[:2])
    done = withdrawing.withdraw(s, ids[2], by="lea", why="asked", erase=erase)
    assert (done.rejected, done.trouble) == (1, "")
    run(s)
    assert published_ids(s, releases.names(s.blobs)[-1]) == sorted(ids[:2])
    assert batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) is not None


def test_videos_of_an_increment_can_be_withdrawn_and_compacted(s, tmp_path):
    batch_id, ids = reviewed(s, 1, 4)
    accept(s, batch_id, *ids[:2])
    run(s)
    withdrawing.withdraw(s, ids[0], by="lea", why="asked")
    assert published_ids(s, releases.names(s.blobs)[-1]) == [ids[1]]
    accept(s, batch_id, *ids[2:])
    run(s)
    name = releases.names(s.blobs)[-1]
    assert published_ids(s, name) == sorted(ids[1:])
    newest = releases.load(s.blobs, name)
    groups = [compaction.write(s.blobs, refs, tmp_path) for refs in compaction.plan(newest, 1)]
    assert len(groups) == 2, "a file for each increment"
    compacted = compaction.release(s.blobs, newest, "release-0009-compacted", groups)
    assert compaction.settle(s.blobs, s.tables, compacted) == []
    assert compacted.masklets(ids) == newest.masklets(ids) and len(compacted.masklets([ids[1]])) == 1
    assert len(s.tables.operations()) == 3 == len(s.tables.masklets())


def test_publishing_an_increment_costs_the_same_in_a_batch_of_4_and_of_12_videos(s, monkeypatch):
    costs = []
    for number, videos in enumerate((4, 4, 4, 12)):  # the first ones find an empty store
        batch_id, ids = reviewed(s, number + 1, videos)
        accept(s, batch_id, *ids[:2])
        increments.begin(s.blobs, batch_id, 1)  # it is due, however few they are
        review.collect(s, batch_id)
        batch_manifests.forget()
        with monkeypatch.context() as patch:
            counts = counted(patch)
            publish.publish_batch(s, batch_id)
        costs.append(counts)
    del costs[2]["listed"], costs[3]["listed"]  # one release more
    assert costs[2] == costs[3] and costs[2]["read"] > 2, "what is counted is what happens"


@pytest.mark.parametrize("bad", [2, 3])
def test_the_share_of_bad_masklets_is_that_of_the_batch_so_far(s, monkeypatch, bad):
    batch_id, ids = reviewed(s, 1, 4)
    problem = masklet_checks.Problem(check="area", detail="wrong")
    wrong = set(ids[:bad])
    monkeypatch.setattr(masklet_checks, "problems", lambda row, video: [problem] if row.video_id in wrong else [])
    accept(s, batch_id, *ids[:2])
    run(s)
    assert increments.published(s.blobs, batch_id)[1]["quarantined"] == 2, "two masklets say little about a batch"
    accept(s, batch_id, *ids[2:])
    if bad > 2:
        with pytest.raises(publish.PublishStopped, match="3 of 4 rows quarantined"):
            run(s)
    else:
        run(s)
    assert len(s.tables.masklets()) == (0 if bad > 2 else 2)
    refused = [row.subject for row in s.tables.quarantine()]
    assert len(refused) == len(set(refused)) == 2, "those of a publish that is stopped are not committed"


def test_what_was_withdrawn_says_nothing_about_the_rest_of_the_batch():
    passed = table_checks.Report(success=True, results=(), docs_index=None)
    good = publish_checks.Checked(rows=(), videos=(), problems=[[]] * 2, broken={}, gone=(), report=passed)
    earlier = {"quarantined": 3, "masklets": 0}
    assert good.decision([earlier | {"bad": 0, "offered": 3}], is_limited=True).passed
    assert not good.decision([earlier | {"bad": 3, "offered": 3}], is_limited=True).passed
    assert not good.decision([earlier], is_limited=True).passed, "an earlier version did not tell them apart"


def refused_rows(s) -> list[tuple[str, str, str]]:
    return sorted((row.stage, row.subject, row.reason) for row in s.tables.quarantine())


def test_a_lead_publishes_the_rest_of_an_increment_that_the_checks_stopped(s, monkeypatch):
    """Once, and with a reason: an increment that is stopped later needs a decision of its own."""
    monkeypatch.setattr(publish, "LEAST_JUDGED", 2)
    batch_id, ids = reviewed(s, 1, 9)
    problem, wrong = masklet_checks.Problem(check="area", detail="wrong"), {*ids[:3], *ids[5:8]}
    monkeypatch.setattr(masklet_checks, "problems", lambda row, video: [problem] if row.video_id in wrong else [])
    for accepted, left in ((ids[:5], 2), (ids[5:], 3)):
        accept(s, batch_id, *accepted)
        with pytest.raises(publish.PublishStopped, match="3 of . rows quarantined, at most 50%"):
            run(s)
        waits = why.of_batch(s, batch_id, s.queue.tickets)
        assert f"`masklets publish {batch_id} --without-refused --why REASON` publishes the rest" in waits.waits_for
        assert [(one.stage, one.reason, one.detail) for one in waits.refused] == [("publish", "area", "wrong")]
        assert "a lead decides" in waits.next
        with pytest.raises(ValueError, match="say why"):
            publish.leave_out(s, batch_id, by="lea", why=" ")
        assert publish.leave_out(s, batch_id, by="lea", why="a broken camera")
        assert len(s.tables.masklets()) == left
    facts = increments.published(s.blobs, batch_id)[1]
    assert (facts["masklets"], facts["left_out"]["by"], facts["left_out"]["why"]) == (2, "lea", "a broken camera")
    assert len(refused_rows(s)) == len(wrong) and not trouble.stuck(s.blobs) and not publish.pending(s)


def test_rows_that_break_a_rule_of_their_table_are_quarantined_and_the_rest_is_published(s, monkeypatch):
    batch_id, ids = reviewed(s, 1, 4)
    accept(s, batch_id, *ids)

    def report(table, rows):
        broken = table_checks.RuleResult(table=table, rule="rule", success=False, rows=rows, examples=("x",))
        return lambda *arguments, **named: table_checks.Report(success=False, results=(broken,), docs_index=None)

    monkeypatch.setattr(table_checks, "check_tables", report("masklets", ()))
    review.collect(s, batch_id)
    for attempt in (publish.publish_batch, partial(publish.leave_out, by="lea", why="all good")):
        with pytest.raises(
            publish.PublishStopped, match="the table checks failed; masklets: rule could not be checked"
        ):
            attempt(s, batch_id)
    assert not s.tables.quarantine()
    monkeypatch.setattr(table_checks, "check_tables", report("videos", (2,)))
    publish.publish_batch(s, batch_id)
    assert sorted(row.video_id for row in s.tables.masklets()) == sorted({*ids} - {sorted(ids)[2]})
    assert [(stage, reason) for stage, _, reason in refused_rows(s)] == [("publish", "table")] * 2
    assert sorted(row.detail for row in s.tables.quarantine()) == ["it breaks rule", "its video breaks rule"]


def test_what_propose_and_open_review_refused_goes_with_the_first_increment(s):
    batch_id, ids = reviewed(s, 1, 4)
    for stage, name in (("propose", ids[3]), ("review", "review"), ("collect", "collect-0001"), ("collect", "collect")):
        row = Quarantined(stage=stage, subject=name, reason="failed", detail="", batch_id=batch_id)
        parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id=name, rows=[row])
    seen = []
    for accepted in (ids[:2], ids[2:]):
        accept(s, batch_id, *accepted)
        run(s)
        seen.append([subject for _, subject, _ in refused_rows(s)])
    assert set(seen[0]) == {ids[3], "review", "collect-0001"}
    assert sorted(seen[1]) == sorted([*seen[0], "collect"])


def test_the_published_batches_and_increments_are_listed_once(s, monkeypatch):
    batch_id, ids = reviewed(s, 1, 4)
    for accepted in (ids[:2], ids[2:]):
        accept(s, batch_id, *accepted)
        run(s)
    counts = counted(monkeypatch)
    assert [one.masklets for one in published.of_all(s.blobs)] == [2, 2] and counts["keys"] == 1
