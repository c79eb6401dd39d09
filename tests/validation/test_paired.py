"""Paired comparison of two checkpoints: gains by masklet, and intervals over videos."""

import numpy as np
import pytest

from validation import paired
from validation.paired import MaskletJF, NotPaired


def scored(video, name, jf, *slices):
    return MaskletJF(video_id=video, name=name, jf=jf, slices=slices)


def test_gains_are_paired_by_video_and_masklet_in_any_order():
    before = [scored("a", "0", 0.5), scored("b", "0", 0.7)]
    after = [scored("b", "0", 0.6, "size=small"), scored("a", "0", 0.9)]
    gains = {(g.video_id, g.name): (g.jf, g.slices) for g in paired.gains(before, after)}
    assert gains["a", "0"][0] == pytest.approx(0.4)
    assert gains["b", "0"][0] == pytest.approx(-0.1)
    assert [slices for _, slices in gains.values()] == [("size=small",), ()]


@pytest.mark.parametrize("after", [[], [scored("a", "1", 0.5)], [scored("a", "0", 0.5), scored("a", "1", 0.5)]])
def test_different_masklets_cannot_be_compared(after):
    with pytest.raises(NotPaired):
        paired.gains([scored("a", "0", 0.5)], after)


def test_each_masklet_counts_once_in_the_mean():
    change = paired.mean_of([scored("a", "0", 0.9), scored("b", "0", 0.1), scored("b", "1", 0.2)])
    assert change.mean == pytest.approx(0.4)
    assert (change.masklets, change.videos) == (3, 2)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        of_videos = rng.normal(0.1, 0.1, 20)
        change = paired.mean_of(
            [scored(str(v), str(k), mean + rng.normal(0, 0.05)) for v, mean in enumerate(of_videos) for k in range(3)]
        )
        covered += change.low <= 0.1 <= change.high
    assert 0.86 <= covered / 200 <= 0.99


@pytest.mark.parametrize("videos", [3, 5, 8])
def test_a_gain_of_nothing_in_few_videos_is_seldom_called_a_gain(videos):
    rng = np.random.default_rng(1)
    called = {"gain_of": 0, "mean_of": 0}
    for _ in range(400):
        gains = [
            scored(f"v{n}", str(k), value)
            for n in range(videos)
            for k, value in enumerate(rng.normal(rng.normal(0, 0.05), 0.08, rng.integers(1, 8)))
        ]
        for name in called:
            called[name] += getattr(paired, name)(gains).low > 0
    assert called["gain_of"] <= 0.05 * 400 < called["mean_of"]


def test_one_video_says_nothing_about_a_gain():
    change = paired.gain_of([scored("a", "0", 0.5), scored("a", "1", 0.4)])
    assert change.mean == pytest.approx(0.45) and change.low < -100 and change.high > 100


def test_masklets_of_one_video_do_not_make_the_interval_narrower():
    one = [scored(str(v), "0", v / 10) for v in range(6)]
    many = [scored(str(v), str(k), v / 10) for v in range(6) for k in range(50)]
    assert paired.mean_of(one).low == pytest.approx(paired.mean_of(many).low)


def test_slices_hold_the_masklets_that_name_them():
    small, large = scored("a", "0", 0.1, "size=small", "entry=late"), scored("a", "1", 0.2, "size=large", "entry=late")
    assert paired.by_slice([small, large]) == {
        "entry=late": [small, large],
        "size=large": [large],
        "size=small": [small],
    }
