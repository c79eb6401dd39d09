"""What looks wrong in masks: each check finds its own mistake, on its frames, and nothing else."""

import numpy as np
import pytest

from storage import rle
from tests.storage.rows import make_masklet
from validation import mask_warnings
from validation.mask_warnings import CHECKS, Thresholds, warnings

H, W = 120, 160


def square(x, y=50, size=20):
    """A mask; None: an absent object."""
    mask = np.zeros((H, W), bool)
    if x is not None:
        mask[y : y + size, x : x + size] = True
    return mask


def masklet_of(*masks, masklet_id="m", frame_idx=None):
    return make_masklet(
        masklet_id,
        height=H,
        width=W,
        frame_idx=frame_idx or tuple(range(0, 4 * len(masks), 4)),
        rle=tuple(map(rle.encode, masks)),
        area_px=tuple(int(mask.sum()) for mask in masks),
        score=(1.0,) * len(masks),
        object_score=(1.0,) * len(masks),
        stability=(1.0,) * len(masks),
    )


def found(*masks, thresholds=None, **kwargs):
    given = warnings(masklet_of(*masks, **kwargs), thresholds or Thresholds())
    return {warning.check: warning.frame_idx for warning in given}


def places(*xs):
    return [square(x) for x in xs]


def with_speck(size=3):
    mask = square(60)
    mask[20 : 20 + size, 20 : 20 + size] = size > 0
    return mask


def with_hole(size=2, at=60):
    mask = square(60)
    mask[at : at + size, 70 : 70 + size] = False
    return mask


def strip(width):
    mask = np.zeros((H, W), bool)
    mask[50:60, :width] = True
    return mask


def grown(size):
    return square(60, 40, size)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (places(60, 62, 64, 66), {}),
        (places(60, 60, None, 60, 60), {"flicker": (8,)}),
        (places(60, None, None, 60), {}),  # two absent frames: it may have been hidden
        (places(60, None, 85, 85), {}),  # it comes back elsewhere
        (places(None, None, 60, None), {"ghost": (8,)}),
        (places(60, None, None, None), {}),  # it leaves
        (places(None, None, None, 60), {}),  # it enters
        (places(None, 60, 60, None), {}),
        (places(None, 20, None, 80, None), {"ghost": (4, 12)}),
        (places(None, 60, None, 60, None), {"flicker": (8,)}),  # one mistake, not two
        (places(20, 20, 90, 90), {"jump": (8,)}),
        (places(20, 40, 60, 80), {}),
        ([strip(160), strip(20)], {}),  # its centre moves far, but it stays where it was
        ([grown(12), grown(22)], {"jump": (4,)}),
        ([grown(12), grown(20)], {}),
        ([square(0, 40, 12), square(0, 40, 40)], {}),  # it enters at the border
        ([square(60, 60, 1), square(60, 60, 3)], {}),  # too small to say
        ([square(60), with_speck()], {}),
        ([square(60), with_speck(1)], {"specks": (4,)}),
        ([square(60), with_hole()], {}),
        ([square(60), with_hole(1)], {"holes": (4,)}),
        ([square(60), with_hole(1, at=50)], {}),  # open to the outside: no hole
        (places(None, None), {}),
    ],
)
def test_each_check_finds_its_own_mistake_on_its_frames(masks, expected):
    assert found(*masks) == expected


def test_frames_without_a_row_count_as_absent():
    assert found(*places(60, 60, 60), frame_idx=(0, 8, 12)) == {"flicker": (4,)}


def test_every_threshold_moves_its_check_and_0_switches_it_off():
    hidden = places(60, None, None, 60)
    assert found(*hidden, thresholds=Thresholds(flicker_frames=2)) == {"flicker": (4, 8)}
    assert found(*places(60, None, 60), thresholds=Thresholds(flicker_frames=0)) == {}
    brief = places(None, 60, 60, None)
    assert found(*brief, thresholds=Thresholds(ghost_frames=2)) == {"ghost": (4, 8)}
    assert found(*places(None, 60, None), thresholds=Thresholds(ghost_frames=0)) == {}
    assert found(*places(20, 45), thresholds=Thresholds(jump_share=0.1)) == {"jump": (4,)}
    assert found(*places(20, 90), thresholds=Thresholds(jump_share=0)) == {}
    assert found(grown(12), grown(20), thresholds=Thresholds(jump_area=2)) == {"jump": (4,)}
    assert found(grown(12), grown(40), thresholds=Thresholds(jump_area=0)) == {}
    assert found(with_speck(3), thresholds=Thresholds(speck_share=0.001)) == {"specks": (0,)}
    assert found(with_speck(1), thresholds=Thresholds(speck_share=0)) == {}
    assert found(with_hole(3), thresholds=Thresholds(hole_share=0.001)) == {"holes": (0,)}
    assert found(with_hole(1), thresholds=Thresholds(hole_share=0)) == {}


def test_the_outside_is_no_hole_and_4_pixels_are_the_least_limit():
    assert found(square(60), thresholds=Thresholds(hole_share=0.01)) == {}
    assert found(with_speck(1), thresholds=Thresholds(speck_share=1e-9)) == {"specks": (0,)}


def test_the_whole_frame_has_neither_specks_nor_holes():
    assert found(np.ones((H, W), bool)) == {}


def test_a_summary_counts_masklets_and_frames_and_skips_invalid_ones():
    flickering = masklet_of(*places(60, None, 60, None, 60), masklet_id="a")
    broken = make_masklet("broken", rle=(b"\xff",) * 3)
    uneven = make_masklet("uneven", rle=())
    result = mask_warnings.summary([flickering, broken, uneven, masklet_of(*places(60, 60))], Thresholds())
    assert (result.checked, dict(result.masklets), dict(result.frames)) == (2, {"flicker": 1}, {"flicker": 2})
    assert result.lines() == [f"flicker: 1 masklet, 2 frames, such as a, frames 4, 12 ({CHECKS['flicker']})"]
    assert mask_warnings.as_json(result)["flicker"]["examples"] == ["a, frames 4, 12"]


def test_a_line_names_the_first_frames_and_counts_the_others():
    warning = mask_warnings.MaskWarning(check="jump", frame_idx=tuple(range(0, 32, 4)))
    assert warning.detail == "frames 0, 4, 8, 12, 16 and 3 more"
    assert mask_warnings.MaskWarning(check="jump", frame_idx=(4,)).detail == "frame 4"
