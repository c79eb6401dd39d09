"""Image mode: prompts on one picture are answered as by the library."""

import numpy as np
import pytest
import torch

from model import inputs
from model.image import ImagePredictor
from model.tracker import Tracker
from storage import rle
from storage.records import Prompt

HW = (96, 160)


@pytest.fixture(scope="module")
def picture(clip):
    return clip[0][0]


@pytest.fixture()
def predictor(loaded, picture):
    predictor = ImagePredictor(loaded)
    predictor.set_image(picture)
    return predictor


def points(*xy, labels=None):
    return Prompt(frame_idx=0, points_xy=xy, labels=labels or (1,) * len(xy))


PROMPTS = [
    points((40.0, 40.0)),
    points((120.0, 70.0), (20.0, 20.0), labels=(1, 0)),
    Prompt(frame_idx=0, box_xyxy=(100.0, 50.0, 140.0, 90.0)),
    points((10.0, 80.0)),
]


def library_masks(loaded, picture, prompt):
    """The answer of transformers' own image path."""
    clicks = inputs.to_clicks(loaded, [prompt], HW)
    with torch.inference_mode():
        return loaded.model._single_frame_forward(
            image_embeddings=loaded.model.get_image_embeddings(inputs.to_pixels(loaded, [picture])),
            input_points=clicks.xy[:, None],
            input_labels=clicks.labels[:, None],
            multimask_output=clicks.xy.shape[1] == 1,
        )


def test_prompts_are_answered_as_by_the_library(loaded, predictor, picture):
    answer = predictor.predict(PROMPTS)
    assert answer.logits.shape == (4, 3, 32, 32) and answer.iou.shape == (4, 3) and answer.object_score.shape == (4,)
    for row, prompt in enumerate(PROMPTS):
        theirs = library_masks(loaded, picture, prompt)
        torch.testing.assert_close(answer.best()[row], theirs.pred_masks[0, 0], atol=1e-4, rtol=0)
        torch.testing.assert_close(answer.iou[row].max(), theirs.iou_scores.max(), atol=1e-5, rtol=0)
        torch.testing.assert_close(answer.object_score[row], theirs.object_score_logits[0, 0, 0], atol=1e-4, rtol=0)


def test_a_first_prompt_in_a_video_is_a_prompt_on_a_picture(loaded, predictor, picture):
    tracker = Tracker(loaded, lambda _: picture, video_hw=HW, frame_count=3)
    tracked = tracker.prompt_all({str(i): prompt for i, prompt in enumerate(PROMPTS)})
    answer = predictor.predict(PROMPTS)
    torch.testing.assert_close(answer.best(), tracked.logits, atol=1e-4, rtol=0)
    assert np.array_equal(answer.masks(HW), tracked.masks(HW))


def test_previous_logits_and_mask_prompts_change_the_answer(predictor, clip):
    plain = predictor.predict(PROMPTS[1:2])
    refined = predictor.predict(PROMPTS[1:2], previous=plain.best())
    assert not torch.allclose(plain.logits, refined.logits, atol=1e-2)
    hinted = predictor.predict([Prompt(frame_idx=0, mask_rle=rle.encode(clip[1][0, 0]))])
    assert hinted.logits.shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match="the mask is the hint"):
        predictor.predict([Prompt(frame_idx=0, mask_rle=rle.encode(clip[1][0, 0]))], previous=plain.best())


def test_a_predictor_without_a_picture_or_a_prompt_says_so(loaded, predictor):
    with pytest.raises(ValueError, match="no prompts"):
        predictor.predict([])
    with pytest.raises(ValueError, match=r"point \(161.0, 3.0\) is outside the 160x96 frame"):
        predictor.predict([points((161.0, 3.0))])
    with pytest.raises(ValueError, match="set_image first"):
        ImagePredictor(loaded).predict_points(np.array([[1.0, 1.0]]))


def test_a_grid_of_clicks_is_answered_like_clicks_one_by_one(loaded, predictor):
    """The decoder for grids against the network's own, on more clicks than it takes at a time."""
    xy = np.random.default_rng(4).uniform((0, 0), (160, 96), (21, 2))
    rows, found = predictor.predict_points(xy)
    expected = predictor.predict([points((float(x), float(y))) for x, y in xy])
    assert rows.tolist() == list(range(21))
    for name in ("logits", "iou", "object_score"):
        assert torch.allclose(getattr(found, name), getattr(expected, name), atol=1e-4), name


def test_clicks_below_the_least_estimates_are_not_drawn(predictor):
    xy = np.random.default_rng(4).uniform((0, 0), (160, 96), (21, 2))
    _, every = predictor.predict_points(xy)
    least, present = float(every.iou.amax(1).median()), float(every.object_score.median())
    rows, found = predictor.predict_points(xy, min_iou=least, min_object_score=present)
    wanted = (every.iou.amax(1) >= least) & (every.object_score >= present)
    assert 0 < len(rows) < 21 and rows.tolist() == wanted.nonzero()[:, 0].tolist()
    for name in ("logits", "iou"):
        assert torch.allclose(getattr(found, name), getattr(every, name)[wanted], atol=1e-4), name
    nobody, nothing = predictor.predict_points(xy, min_iou=2.0)
    assert len(nobody) == 0 and nothing.logits.shape == (0, 3, 32, 32)
