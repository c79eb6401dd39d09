"""The search for every object of a picture, and its filters one by one."""

import dataclasses

import numpy as np
import pytest
import torch

from model import image, inputs, proposals
from model.proposals import GridConfig, MaskProposal, Scale
from storage.iou import mask_table
from storage.pixels import box_of

HW = (96, 160)


SCALES = (
    Scale(crops_per_side=1, points_per_side=4),
    Scale(crops_per_side=2, points_per_side=2),
)


EVERYTHING = GridConfig(
    scales=SCALES,
    min_iou=0,
    min_stability=0,
    max_box_overlap=1,
    max_mask_overlap=1,
    min_area=0,
    max_area=1,
    min_part_px=0,
    edge_tolerance=0,
    min_object_score=-np.inf,
)


@pytest.fixture(scope="module")
def picture(clip):
    return clip[0][0]


def test_the_default_grid_has_sa_vs_points():
    config = GridConfig()
    assert sum(s.crops_per_side**2 * s.points_per_side**2 for s in config.scales) == 2304


@pytest.mark.parametrize(
    ("side", "box", "expected"),
    [
        (1, (0, 0, 10, 20), [(5, 10)]),
        (2, (0, 0, 8, 4), [(2, 1), (6, 1), (2, 3), (6, 3)]),
        (2, (10, 20, 18, 24), [(12, 21), (16, 21), (12, 23), (16, 23)]),
    ],
)
def test_grid_points_are_cell_centres(side, box, expected):
    assert proposals.grid_points(side, box).tolist() == [list(map(float, xy)) for xy in expected]


@pytest.mark.parametrize("hw", [(480, 848), (848, 480), (96, 160), (97, 161)])
@pytest.mark.parametrize("per_side", [1, 2, 4])
def test_crops_cover_the_frame_and_stay_in_it(hw, per_side):
    covered = np.zeros(hw, dtype=int)
    crops = proposals.crop_boxes(hw, per_side, 512 / 1500)
    assert len(set(crops)) == per_side**2
    for x0, y0, x1, y1 in crops:
        assert 0 <= x0 < x1 <= hw[1] and 0 <= y0 < y1 <= hw[0]
        covered[y0:y1, x0:x1] += 1
    assert covered.min() == 1
    assert covered.max() == (1 if per_side == 1 else 4)


def test_crops_have_sams_size():
    assert proposals.crop_boxes((1000, 1500), 2, 512 / 1500)[0] == (0, 0, 921, 671)  # 341 px shared


@pytest.mark.parametrize(
    ("box", "cut_off"),
    [
        ((30, 30, 60, 60), False),
        ((0, 10, 60, 60), False),
        ((30, 30, 79, 60), True),
        ((30, 30, 81, 60), True),
        ((30, 30, 60, 78), True),
        ((30, 30, 60, 77), False),
    ],
    ids=["inside", "at the frame's edge", "right", "just beyond", "bottom", "near the bottom"],
)
def test_a_box_at_an_inner_edge_of_its_crop_is_cut_off(box, cut_off):
    assert proposals.is_cut_off(box, (0, 0, 80, 80), (160, 200), tolerance_px=2) is cut_off


def proposal(box, score, crop=(0, 0, 160, 96), holes=(), agreed=0.0):
    mask = np.zeros(HW, dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    for x0, y0, x1, y1 in holes:
        mask[y0:y1, x0:x1] = False
    return MaskProposal(mask, score, agreed, 1.0, 1.0, (0.0, 0.0), box, crop)


def test_duplicates_by_box_go_to_the_finer_crop_and_then_to_the_better_score():
    whole, fine = proposal((10, 10, 30, 30), 0.99), proposal((10, 10, 30, 31), 0.9, crop=(0, 0, 80, 48))
    twin, far = proposal((10, 11, 30, 30), 0.95), proposal((100, 50, 120, 70), 0.85)
    assert proposals.without_duplicates([whole, twin, far, fine], GridConfig()) == [fine, far]
    assert proposals.without_duplicates([twin, far, whole], GridConfig()) == [whole, far]
    assert proposals.without_duplicates([], GridConfig()) == []


def test_duplicates_by_mask_go_to_the_better_score():
    config = GridConfig(max_box_overlap=1.0)
    ring = proposal((10, 10, 50, 50), 0.8, holes=[(15, 15, 45, 45)])
    disc, other = proposal((10, 10, 50, 50), 0.9), proposal((11, 10, 50, 50), 0.95)
    assert proposals.without_duplicates([ring, disc, other], config) == [other, ring]


def answers(*rows):
    """The model's answers to N points. A row is one answer: (box of the mask in 16x16, logit, iou, object score)."""
    logits = torch.full((len(rows), 1, 16, 16), -8.0)
    for row, ((x0, y0, x1, y1), logit, _, _) in enumerate(rows):
        logits[row, 0, y0:y1, x0:x1] = logit
    return image.ImageMasks(
        logits, torch.tensor([[iou] for *_, iou, _ in rows]), torch.tensor([score for *_, score in rows])
    )


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, [0, 1]),
        ({"min_iou": 0.95}, [0]),
        ({"min_iou": 0.5}, [0, 1, 2]),
        ({"min_stability": 0.0}, [0, 1, 3]),
        ({"stability_offset": 0.4}, [0, 1, 3]),
        ({"min_object_score": -9.0}, [0, 4, 1]),
        ({"max_box_overlap": 1.0}, [0, 1, 5]),
        ({"min_object_score": 9.0}, []),
    ],
    ids=["as is", "iou", "lower iou", "stability", "offset", "presence", "overlap", "nothing left"],
)
def test_the_models_own_estimates_decide_what_is_trusted(change, kept):
    answer = answers(
        ((0, 0, 4, 4), 8.0, 0.97, 1.0),
        ((8, 8, 16, 16), 8.0, 0.90, 1.0),
        ((0, 8, 4, 12), 8.0, 0.60, 1.0),  # a low estimate
        ((0, 12, 4, 16), 0.5, 0.85, 1.0),  # unstable
        ((12, 0, 16, 4), 8.0, 0.95, -1.0),  # absent
        ((8, 8, 16, 15), 8.0, 0.82, 1.0),  # a duplicate of the second
        ((0, 0, 0, 0), 8.0, 0.99, 1.0),  # empty
    )
    points_xy = np.stack([np.arange(7.0), np.zeros(7)], axis=1)
    rough = proposals.trusted(answer, points_xy, dataclasses.replace(GridConfig(), **change))
    assert rough.points_xy[:, 0].tolist() == kept
    assert len(rough) == len(rough.logits) == len(rough.boxes) == len(kept)


@pytest.mark.parametrize(
    ("change", "crop", "box", "fate"),
    [
        ({}, (0, 0, 160, 96), (4, 4, 8, 8), True),
        ({"max_area": 0.05}, (0, 0, 160, 96), (4, 4, 8, 8), False),
        ({"min_area": 0.07}, (0, 0, 160, 96), (4, 4, 8, 8), False),
        ({}, (64, 0, 160, 96), (4, 4, 8, 8), True),
        ({}, (64, 0, 160, 96), (0, 4, 8, 8), False),
        ({}, (64, 0, 160, 96), (12, 4, 16, 8), True),
        ({"min_part_px": 10000}, (0, 0, 160, 96), (4, 4, 8, 8), True),
    ],
    ids=["as is", "too large", "too small", "in a crop", "cut off", "at the frame's edge", "a lone speck"],
)
def test_size_and_place_decide_what_becomes_a_proposal(change, crop, box, fate):
    config = dataclasses.replace(GridConfig(), **change)
    rough = proposals.trusted(answers((box, 8.0, 0.9, 1.0)), np.array([[3.0, 5.0]]), config)
    found = proposals.finished(rough, crop, HW, config) if len(rough) else None
    assert (found is not None) is fate
    if found is not None:
        assert found.mask.shape == HW and found.point_xy == (crop[0] + 3, crop[1] + 5) and found.crop_xyxy == crop
        assert found.score == pytest.approx(0.9) and found.stability == 1 and found.object_score == 1
        sides = [(crop[2] - crop[0]) / 16, (crop[3] - crop[1]) / 16] * 2
        expected = [edge * side + start for edge, side, start in zip(box, sides, crop[:2] * 2, strict=True)]
        assert found.box_xyxy == pytest.approx(expected, abs=2)


class Redraws(image.ImagePredictor):
    """In place of a predictor: answers with given squares, and keeps what it was asked."""

    def __init__(self, *boxes):
        self.answer, self.asked = answers(*((box, 8.0, 0.7, 2.0) for box in boxes)), []

    def predict(self, prompts, previous=None):
        self.asked.append((prompts, previous))
        return self.answer


def test_a_mask_is_drawn_anew_from_its_click_its_box_and_itself_unless_nothing_is_left_of_it():
    rough = proposals.trusted(
        answers(((0, 0, 4, 8), 8.0, 0.9, 1.0), ((8, 8, 16, 16), 8.0, 0.8, 1.0)),
        np.array([[3.0, 5.0], [90.0, 70.0]]),
        GridConfig(),
        torch.tensor([[0.6], [0.5]]),
    )
    predictor = Redraws((0, 0, 4, 4), (0, 0, 0, 0))
    found = proposals.redrawn(predictor, rough, HW, GridConfig())  # a cell is 10 x 6 px
    ((prompts, previous),) = predictor.asked
    assert [(p.points_xy, p.labels, p.box_xyxy) for p in prompts] == [
        (((3.0, 5.0),), (1,), (0.0, 0.0, 40.0, 48.0)),
        (((90.0, 70.0),), (1,), (80.0, 48.0, 160.0, 96.0)),
    ]
    assert torch.equal(previous, rough.logits)
    assert found.boxes.tolist() == [[0, 0, 4, 4], [8, 8, 16, 16]]
    assert found.iou.tolist() == pytest.approx([0.7, 0.8]) and found.object_score.tolist() == [2, 1]
    assert found.agreement.tolist() == rough.agreement.tolist()
    assert torch.equal(found.logits[1], rough.logits[1])


def test_proposals_are_drawn_anew_if_asked(loaded, picture):
    once = dataclasses.replace(EVERYTHING, scales=SCALES[:1])
    before = proposals.propose(loaded, picture, once)
    after = proposals.propose(loaded, picture, dataclasses.replace(once, redraw=True))
    assert any((a.mask != b.mask).any() for a, b in zip(before, after, strict=False))


def squares(*boxes):
    """Logits (N, 1, 16, 16), one square for each click."""
    logits = torch.full((len(boxes), 1, 16, 16), -8.0)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        logits[i, 0, y0:y1, x0:x1] = 8.0
    return logits


def test_agreement_is_how_alike_an_object_is_found_from_everywhere_in_it():
    large, half, far = (0, 0, 8, 8), (0, 0, 8, 4), (12, 12, 16, 16)
    clicks = np.array(
        [[10.0, 10.0], [70.0, 30.0], [30.0, 70.0], [140.0, 140.0]]
    )  # of a crop of 160 x 160: 10 px a cell
    agreed = proposals.agreement(squares(large, large, half, far), clicks, (160, 160))[:, 0]
    # Two other clicks in the square, one answered alike (IoU 1) and one by its half; one more counts as half agreed.
    assert agreed.tolist() == pytest.approx([(1 + 0.5 + 0.5) / 3, (1 + 0.5 + 0.5) / 3, (0.5 + 0.5 + 0.5) / 3, 0.5])


def test_a_mask_of_everything_replaces_no_object_although_all_clicks_agree_on_it():
    everything, thing = (0, 0, 16, 16), (0, 0, 15, 15)  # their boxes are duplicates
    config = dataclasses.replace(EVERYTHING, max_area=0.9, by_agreement=True)
    two = answers((everything, 8.0, 0.9, 1.0), (thing, 8.0, 0.9, 1.0))
    agreed = torch.tensor([[0.95], [0.6]])
    assert proposals.trusted(two, np.zeros((2, 2)), config, agreed).agreement.tolist() == pytest.approx([0.6])


def test_agreement_takes_the_best_answer_of_each_click():
    both = torch.cat([squares((0, 0, 8, 8), (8, 8, 16, 16)), squares((0, 0, 2, 2), (0, 0, 8, 8))], 1)
    agreed = proposals.agreement(both, np.array([[1.0, 1.0], [5.0, 5.0]]), (16, 16))
    assert agreed[0, 0] == pytest.approx((1 + 0.5) / 2)  # the second answer of the second click is the same square
    assert agreed[1, 1] == pytest.approx((1 + 0.5) / 2)


def test_by_agreement_the_mask_that_clicks_agree_on_wins_and_comes_first(loaded, picture):
    sure, agreed = proposal((10, 10, 30, 30), 0.99, agreed=0.2), proposal((10, 11, 30, 30), 0.3, agreed=0.9)
    other = proposal((100, 50, 120, 70), 0.5, agreed=0.5)
    by_agreement = GridConfig(by_agreement=True)
    assert proposals.without_duplicates([sure, other, agreed], by_agreement) == [agreed, other]
    found = proposals.propose(loaded, picture, dataclasses.replace(EVERYTHING, by_agreement=True))
    ranks = [c.agreement for c in found]
    assert ranks == sorted(ranks, reverse=True) and ranks[0] > ranks[-1]
    assert all(0 < rank <= 1 for rank in ranks)


def test_where_the_model_sees_no_object_agreement_counts_less(loaded, picture, monkeypatch):
    config, real = dataclasses.replace(EVERYTHING, by_agreement=True), image.ImagePredictor.predict_points
    sure = {c.point_xy: c.agreement for c in proposals.propose(loaded, picture, config)}

    def unsure(predictor, points, **limits):
        rows, answer = real(predictor, points, **limits)
        return rows, dataclasses.replace(answer, object_score=torch.full_like(answer.object_score, -1.0))

    monkeypatch.setattr(image.ImagePredictor, "predict_points", unsure)
    found = proposals.propose(loaded, picture, config)
    assert len(found) > 2 and max(c.agreement for c in found) <= 1 / (1 + np.exp(1.0)) < max(sure.values())


def test_proposals_are_masks_of_the_frame_with_their_origin(loaded, picture):
    found = proposals.propose(loaded, picture, EVERYTHING)
    assert len(found) > 5
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    for c in found:
        assert c.mask.shape == HW and c.mask.dtype == np.bool_ and c.mask.any()
        assert c.box_xyxy == box_of(c.mask)
        x0, y0, x1, y1 = c.crop_xyxy
        assert x0 <= c.point_xy[0] < x1 and y0 <= c.point_xy[1] < y1
        assert 0 <= c.score <= 1 and 0 <= c.stability <= 1


def test_proposals_are_distinct(loaded, picture):
    config = dataclasses.replace(EVERYTHING, max_mask_overlap=0.6)
    found = proposals.propose(loaded, picture, config)
    overlaps = mask_table(*[np.stack([c.mask for c in found])] * 2)
    assert 0 < len(found) < len(proposals.propose(loaded, picture, EVERYTHING))
    assert (overlaps - np.eye(len(found))).max() <= 0.6


def test_the_size_of_a_batch_changes_nothing(loaded, picture):
    all_at_once, few = (
        proposals.propose(loaded, picture, dataclasses.replace(EVERYTHING, points_per_batch=size)) for size in (1000, 3)
    )
    assert len(all_at_once) == len(few)
    for a, b in zip(all_at_once, few, strict=True):
        assert a.point_xy == b.point_xy and a.box_xyxy == b.box_xyxy and a.score == pytest.approx(b.score, abs=1e-4)


def test_a_crop_is_encoded_once(loaded, picture, monkeypatch):
    encoded = []
    original = inputs.to_pixels

    def counted(loaded, frames):
        encoded.append(frames[0].shape)
        return original(loaded, frames)

    monkeypatch.setattr(inputs, "to_pixels", counted)
    proposals.propose(loaded, picture, dataclasses.replace(EVERYTHING, points_per_batch=2))
    assert len(encoded) == 1 + 4


def test_only_the_points_that_are_asked_for_are_searched_and_crops_without_one_are_not_encoded(
    loaded, picture, monkeypatch
):
    encoded = []
    original = inputs.to_pixels

    def counted(loaded, frames):
        encoded.append(1)
        return original(loaded, frames)

    monkeypatch.setattr(inputs, "to_pixels", counted)
    where = np.zeros(HW, np.bool_)
    where[:30, :50] = True  # inside the first of the four crops only
    found = proposals.propose(loaded, picture, EVERYTHING, where=where)
    assert found and all(where[int(c.point_xy[1]), int(c.point_xy[0])] for c in found)
    assert len(encoded) == 1 + 1
    assert proposals.propose(loaded, picture, EVERYTHING, where=np.zeros(HW, np.bool_)) == []


def test_masks_that_other_clicks_disagree_with_are_dropped(loaded, picture):
    everything = dataclasses.replace(EVERYTHING, by_agreement=True)
    ranks = [c.agreement for c in proposals.propose(loaded, picture, everything)]
    least = sorted(ranks)[len(ranks) // 2]
    found = proposals.propose(loaded, picture, dataclasses.replace(everything, min_agreement=least))
    assert 0 < len(found) < len(ranks) and min(c.agreement for c in found) >= least


@pytest.mark.parametrize(
    "change",
    [
        {"min_iou": 1.5},
        {"min_agreement": 1.5, "by_agreement": True},
        {"crop_overlap": 1.0},
        {"points_per_batch": 0},
        {"stability_offset": 0.0},
        {"scales": ()},
        {"scales": (Scale(crops_per_side=0, points_per_side=1),)},
    ],
)
def test_a_threshold_out_of_its_range_is_refused(change):
    with pytest.raises(ValueError, match="got|range"):
        GridConfig(**change)
