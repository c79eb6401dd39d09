"""The chain masklets -> release -> checkpoint -> masklets, as `masklets rounds` shows it."""

import pytest

from engine import batches
from engine.batches import BatchStage
from engine.rounds import chain
from engine.rounds.chain import NOT_RECORDED
from engine.stages import published
from storage.blobs.folder import LocalBlobs
from tests.engine.true_releases import two_rounds


def test_a_link_names_the_makers_of_its_masklets_and_the_checkpoint_before_and_after(s, true_release):
    first, second = two_rounds(s)
    one, two = chain.links(s)
    base = s.settings.model.checkpoint
    assert (one.begun.round_id, one.begun.parent, one.checkpoint_after) == (first, base, first)
    assert (two.begun.round_id, two.begun.parent, two.checkpoint_after) == (second, first, first)
    assert one.made_by == {"micro": 10}
    assert two.made_by == {first: 15, "micro": 10, "by hand": 3}
    assert two.added.checkpoints == {first: 15, "by hand": 3}
    assert (one.before.mean, one.before.interval) == (0.5, (0.5, 0.5))
    assert two.after.mean == pytest.approx(0.4)


def test_effort_is_that_of_the_masklets_published_since_the_round_before(s, true_release):
    two_rounds(s)
    one, two = (link.added for link in chain.links(s))
    assert (one.masklets, one.clicks_a_masklet, one.seconds_a_frame) == (10, 3.0, 1.65)
    assert one.hours == pytest.approx(165 / 3600)
    assert (two.masklets, two.clicks_a_masklet) == (18, 40 / 18)
    assert two.seconds_a_frame == pytest.approx((165 + 135) / 200)


def test_a_batch_of_an_earlier_version_and_an_import_have_masklets_without_effort(tmp_path):
    blobs = LocalBlobs(tmp_path)
    batches.mark(blobs, "0" * 16, BatchStage.PUBLISHED, {"release": "release-0001-x", "masklets": 4})
    (batch,) = published.of_all(blobs)
    assert (batch.checkpoints, batch.work, batch.masklets) == (None, None, 4)
    added = chain._added([batch])
    assert added == chain.Added(4, {NOT_RECORDED: 4}, None, None, None)
