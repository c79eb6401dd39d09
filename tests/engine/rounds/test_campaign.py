"""The campaign: where it stands, which phase new tickets get, and when a round is due."""

import pytest
from pydantic import ValidationError

from engine import batches
from engine.batches import BatchStage
from engine.ingest import ingest
from engine.rounds import campaign, retraining, starting
from engine.services import connect
from engine.settings import CampaignPhase, CampaignSettings, Settings
from engine.stages import review
from engine.stages.published import PublishedBatch
from storage.dataset import parts
from tests.engine.true_releases import measured, publish, release_of

PAPER = (
    CampaignPhase(phase="1", masklets=100),
    CampaignPhase(phase="2", masklets=60, retrainings=2),
    CampaignPhase(phase="3", retrainings=5),
)


def batch(number, phase, masklets):
    return PublishedBatch(
        batch_id=f"{number:016x}",
        release=f"release-{number:04d}-x",
        masklets=masklets,
        annotated_frames=None,
        checkpoints=None,
        work=None,
        phase=phase,
    )


def release(number):
    return f"release-{number:04d}-x"


def figures(plan, published, trained_on=()):
    return [(p.state, p.masklets, p.retrainings) for p in campaign.progress(plan, published, trained_on)]


def test_a_phase_ends_with_its_masklets_and_its_retrainings():
    assert figures(PAPER, []) == [("current", 0, 0), ("planned", 0, 0), ("planned", 0, 0)]
    first = [batch(1, "1", 60), batch(2, "1", 60)]
    assert figures(PAPER, first[:1]) == [("current", 60, 0), ("planned", 0, 0), ("planned", 0, 0)]
    assert figures(PAPER, first) == [("done", 120, 0), ("current", 0, 0), ("planned", 0, 0)]
    second = [*first, batch(3, "2", 30), batch(4, "2", 30)]
    assert figures(PAPER, second) == [("done", 120, 0), ("current", 60, 0), ("planned", 0, 0)]
    trained = [release(3), release(4)]
    assert figures(PAPER, second, trained) == [("done", 120, 0), ("done", 60, 2), ("current", 0, 0)]
    fifth = [*trained, *[release(n) for n in range(5, 10)]]
    assert figures(PAPER, second, fifth) == [("done", 120, 0), ("done", 60, 2), ("done", 0, 5)]
    assert figures(PAPER, second, [*fifth, release(11)])[-1] == ("done", 0, 5)


def test_only_masklets_of_the_current_phase_count_and_the_order_is_that_of_the_releases():
    late = [batch(1, "1", 100), batch(10, "1", 50), batch(9, "2", 10), batch(2, None, 70)]
    assert figures(PAPER, late) == [("done", 100, 0), ("current", 10, 0), ("planned", 0, 0)]
    twice = (CampaignPhase(phase="3", masklets=5), CampaignPhase(phase="3", masklets=5, retrainings=1))
    assert figures(twice, [batch(2, "3", 6), batch(1, "3", 5)], [release(1)]) == [("done", 5, 0), ("done", 6, 1)]


@pytest.fixture
def planned(settings):
    """Settings with a plan: phase 1 until 10 masklets, phase 2 with 2 retrainings within 20, phase 3 with 1 more."""
    phases = (
        CampaignPhase(phase="1", masklets=10),
        CampaignPhase(phase="2", masklets=20, retrainings=2),
        CampaignPhase(phase="3", retrainings=1),
    )
    return settings.model_copy(update={"campaign": CampaignSettings(phases=phases)})


def test_rounds_and_tickets_follow_the_plan(planned, s, true_release):
    with connect(planned) as c:
        assert campaign.phase_of_new_tickets(c) == "1"
        assert campaign.needed_for_round(c, 7) == ("phase 1 is current: 0 of 10 masklets; it has no further retraining")
        assert starting.due(c) is None  # without the plan, this release is due
        assert starting.due(s) == "release-0001"
        publish(c, 1, "release-0001", phase="1")
        assert campaign.phase_of_new_tickets(c) == "2"
        assert campaign.needed_for_round(c, 7) == "10 masklets of phase 2 missing"
        release_of(s, "release-0002")
        publish(c, 2, "release-0002", phase="2")
        assert starting.due(c) == "release-0002"
        assert campaign.summary(c) == "campaign: phase 2 is current: 10 of 20 masklets, 0 of 2 retrainings"
        retraining.decide(c, measured(c, starting.start(c, "release-0002"), gain=-0.1))
        assert starting.due(c) is None  # the second retraining is for 20 masklets
        release_of(s, "release-0003")
        publish(c, 3, "release-0003", phase="2")
        assert starting.due(c) == "release-0003"
        retraining.decide(c, measured(c, starting.start(c, "release-0003")))
        assert campaign.phase_of_new_tickets(c) == "3"
        assert campaign.needed_for_round(c, 0) == "1 masklet to train on missing"  # as rounds.min_new_masklets says
        release_of(s, "release-0004")
        assert starting.due(c) == "release-0004"
        retraining.decide(c, measured(c, starting.start(c, "release-0004"), gain=-0.1))
        assert campaign.summary(c) == "the campaign is complete" == campaign.needed_for_round(c, 99)
        assert campaign.phase_of_new_tickets(c) == "3"


def test_without_a_plan_the_settings_of_review_and_rounds_hold(s):
    assert campaign.standing(s) == []
    assert campaign.phase_of_new_tickets(s) == s.settings.review.phase
    assert campaign.needed_for_round(s, 1) is None
    assert campaign.needed_for_round(s, 0) == "1 masklet to train on missing"
    assert campaign.summary(s) == "no campaign is planned"


def test_a_batch_keeps_the_phase_in_which_its_review_first_opened(planned, queue):
    with connect(planned) as c:
        ingest.admit(c)
        (batch_id,) = batches.reached(c.blobs)
        for video_id in batches.video_ids(c.blobs, batch_id):
            parts.write_part(c.blobs, kind="candidates", batch_id=batch_id, video_id=video_id, rows=[])
        batches.mark(c.blobs, batch_id, BatchStage.PROPOSED, {})
        review.open_batch(c, batch_id, campaign.phase_of_new_tickets(c))
        publish(c, 1, "release-0001", phase="1")
        assert campaign.phase_of_new_tickets(c) == "2"
        review.open_batch(c, batch_id, "2")
        assert batches.facts(c.blobs, batch_id, batches.PHASE) == {"phase": "1"}


def test_the_plan_is_read_from_the_file_and_given_to_other_processes(tmp_path, monkeypatch):
    file = tmp_path / "masklets.toml"
    file.write_text('[campaign]\nphases = [{ phase = "1", masklets = 100 }, { phase = "3", retrainings = 5 }]\n')
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    settings = Settings()
    assert settings.campaign.phases == (PAPER[0], PAPER[2])
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings().campaign == settings.campaign


def test_a_phase_that_never_ends_is_an_error():
    with pytest.raises(ValidationError, match="phase 3 never ends: set masklets, retrainings or both"):
        CampaignSettings(phases=(CampaignPhase(phase="3"),))
