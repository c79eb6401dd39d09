"""Simulated people close only the reviews that they are given."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

import pytest

from annotation_queue.client import QueueClient
from annotation_queue.records import Kind, NewTicket, Person, QueuePolicy, Role, State, Ticket
from annotation_queue.rules import why_not
from engine import batches
from engine.batches import BatchStage
from engine.demo import simulated_review
from engine.ingest import admitted
from engine.services import Services, connect
from engine.serving import queue_process
from engine.settings import QueueSettings, ReviewSettings, Settings
from engine.stages import propose, review
from engine.verifier import consensus
from engine.verifier.judged import judged_of
from storage.dataset import parts
from storage.records import Masklet, Video
from tests.engine.admitting import admit_batch
from tests.free_ports import free_port


@pytest.mark.server
def test_simulated_people_leave_other_batches_alone_and_wait_for_leased_tickets(tmp_path):
    mine, other = "0" * 16, "1" * 16
    bare = Settings(home=tmp_path, queue=QueueSettings(port=free_port()))
    with queue_process.QueueProcess(bare, deliver=False), connect(bare) as s:
        for batch_id in (mine, other):
            for stage in (BatchStage.INGESTED, BatchStage.PROPOSED, BatchStage.IN_REVIEW):
                batches.mark(s.blobs, batch_id, stage, {"videos": []})
            tickets = [NewTicket(ticket_id=f"{batch_id}-{i}", kind=Kind.TRACK, video_id="clip") for i in range(2)]
            s.queue.open_batch(batch_id, tickets)
        _, accounts = s.open_queue()
        accounts.add("ann", [Role.ANNOTATOR], "correct horse")
        with QueueClient(bare.queue_url, username="ann", password="correct horse") as client:
            held = client.claim(batch_id=mine)
            assert held is not None
            said: list[str] = []
            give_back = cast(Callable[[], None], partial(client.release, held))  # the released ticket is not needed
            tally, made = simulated_review.close_reviews(s, [mine], give_back, said.append)
        assert tally.verdicts == {"reject": 2} and made == [""]
        assert BatchStage.PUBLISHED in batches.reached(s.blobs)[mine]
        assert s.queue.batch(other).remaining == 2
    assert len(said) == 1 and "waiting for leased tickets" in said[0]


def test_a_team_has_more_people_than_a_ticket_takes_answers():
    def roles(**policy: float) -> list[str]:
        return [role.value for _, role in simulated_review.team(QueuePolicy.model_validate(policy))]

    assert roles() == ["annotator", "verifier", "verifier", "lead", "lead"]
    assert roles(overlap_share=0.1, overlap=3) == ["annotator", *["verifier"] * 4, "lead", "lead"]
    assert roles(makers_share=0.1) == ["annotator", "annotator", "verifier", "verifier", "lead", "lead"]
    names = [name for name, _ in simulated_review.team(QueuePolicy(overlap_share=1, makers_share=1))]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("policy", [QueuePolicy(), QueuePolicy(overlap_share=0.3, overlap=3)])
def test_enough_of_a_team_may_judge_whoever_made_a_masklet_and_sent_it_back(policy: QueuePolicy) -> None:
    people = [Person(name=name, roles=frozenset({role})) for name, role in simulated_review.team(policy)]
    asked = policy.overlap if policy.overlap_share else 1
    for maker in [None, *(each.name for each in people)]:
        for sender in [None, *(each.name for each in people if Role.ANNOTATOR not in each.roles)]:
            for needs_lead in (False, True):
                ticket = Ticket(
                    ticket_id="t", batch_id="b", kind=Kind.VERIFY, video_id="v", masklet_id="m", phase="3", priority=0,
                    payload="{}", state=State.OPEN, made_by=maker, sent_back_by=sender, needs_lead=needs_lead,
                    attempt=3, lease_token=0, leased_by=None, expires_at=None,
                )  # fmt: skip
                may = [each.name for each in people if why_not(each, ticket) is None]
                assert len(may) >= (1 if needs_lead else asked), (maker, sender, needs_lead)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    shared = settings.queue.model_copy(update={"overlap_share": 1.0, "overlap": 3})
    return settings.model_copy(update={"queue": shared, "review": ReviewSettings()})


def test_several_simulated_people_judge_one_candidate_and_no_one_takes_it_for_a_duplicate(
    queue: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def truths(s: Services, video: Video, *_: object) -> list[Masklet]:
        return [
            replace(m, masklet_id=f"c{m.masklet_id}", batch_id=video.batch_id, kind="auto", phase="auto", verdict=None)
            for m in admitted.truths(s.blobs, video)
        ]

    monkeypatch.setattr(propose, "propose_video", truths)
    batch_id = admit_batch(queue)
    propose.propose_batch(queue, batch_id)
    review.open_batch(queue, batch_id, "3")
    tally, (release,) = simulated_review.close_reviews(queue, [batch_id], lambda: None, lambda line: None)
    rows = list(parts.rows(queue.blobs, "candidates", batch_id))
    judged = judged_of(rows, parts.rows(queue.blobs, "operations", batch_id))
    assert release and len(judged) == len(rows) > 0
    assert all(len(set(one.people)) == 3 and set(one.answers) == {"accept"} for one in judged)
    assert tally.verdicts == {"accept": 3 * len(rows)}
    assert (agreement := consensus.agreement(judged)) is not None and agreement.value == 1.0
