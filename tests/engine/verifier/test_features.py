"""What a masklet shows of its quality: numbers with known values."""

import numpy as np
import pytest

from engine.verifier import features
from engine.verifier.features import FEATURES
from storage import rle
from storage.rle import BadRle
from tests.storage.rows import make_masklet

H, W = 60, 80


def masklet(masks, **changes):
    count = len(masks)
    values = {"score": (0.9,) * count, "object_score": (5.0,) * count, "stability": (0.95,) * count} | changes
    return make_masklet(
        height=H,
        width=W,
        frame_idx=tuple(range(0, 4 * count, 4)),
        rle=tuple(rle.encode(mask) for mask in masks),
        area_px=tuple(int(mask.sum()) for mask in masks),
        **values,
    )


def boxes(*places):
    """Masks with boxes (x, y, width, height); an empty mask for None."""
    masks = np.zeros((len(places), H, W), dtype=bool)
    for mask, place in zip(masks, places, strict=True):
        for x, y, width, height in [place] if isinstance(place, tuple) else place or []:
            mask[y : y + height, x : x + width] = True
    return masks


def of(masks, **changes):
    return dict(zip(FEATURES, features.features_of(masklet(masks, **changes)), strict=True))


def test_a_still_square_is_whole_and_never_changes():
    found = of(boxes((10, 10, 24, 24), (10, 10, 24, 24), (10, 10, 24, 24)))
    assert (found["fragments"], found["loose_share"], found["flips"], found["border_share"]) == (1, 0, 0, 0)
    assert (found["area_jump"], found["size_change"], found["motion"]) == (0, 0, 0)
    assert (found["shape_mean"], found["shape_min"], found["visible_share"]) == (1, 1, 1)
    assert found["size"] == pytest.approx(24 / np.sqrt(H * W)) and found["frames"] == 3


def test_a_square_that_only_moves_keeps_its_shape():
    found = of(boxes((10, 10, 20, 20), (20, 10, 20, 20), (40, 30, 20, 20)))
    assert (found["shape_min"], found["area_jump"]) == (1, 0)
    assert found["motion"] == pytest.approx((10 / 20 + np.hypot(20, 20) / 20) / 2)


def test_a_square_that_doubles_jumps_by_the_logarithm_of_its_area():
    found = of(boxes((10, 10, 20, 20), (10, 10, 40, 20), (10, 10, 40, 20)))
    assert found["area_jump"] == pytest.approx(np.log(2))
    assert found["shape_min"] == pytest.approx(0.5, abs=0.03) and found["shape_mean"] == pytest.approx(0.75, abs=0.02)
    assert found["size_change"] == pytest.approx(np.std([0, np.log(2), np.log(2)]))


def test_fragments_and_the_area_outside_of_the_largest_part_are_counted():
    found = of(boxes([(0, 20, 30, 10), (40, 20, 10, 10)], (0, 20, 30, 10)))
    assert (found["fragments"], found["fragments_max"]) == (1.5, 2)
    assert found["loose_share"] == pytest.approx(0.25 / 2, abs=0.02)
    assert found["border_share"] == 1


@pytest.mark.parametrize("box", [(0, 9, 5, 5), (75, 9, 5, 5), (9, 0, 5, 5), (9, 55, 5, 5), (9, 0, 5, 60)])
def test_each_border_counts(box):
    assert of(boxes(box, (30, 30, 5, 5)))["border_share"] == 0.5


def test_absences_are_flips_and_their_frames_are_no_neighbours():
    found = of(boxes((10, 10, 8, 8), None, (40, 40, 16, 16), (40, 40, 16, 16)))
    assert (found["flips"], found["visible_share"]) == (2 / 3, 0.75)
    assert (found["area_jump"], found["motion"]) == (0, 0), "the jump happened while the object was absent"


def test_scores_are_those_of_the_frames_that_show_the_object():
    scores = tuple(float(i) / 10 for i in range(1, 11))
    masks = boxes(*[(10, 10, 8, 8)] * 9, None)
    found = of(masks, score=scores, stability=scores, object_score=(*(4.0,) * 8, 0.5, -6.0))
    assert found["score_mean"] == pytest.approx(0.5) and found["score_min"] == pytest.approx(0.1)
    assert found["score_p10"] == pytest.approx(np.percentile(scores[:9], 10)) == found["stability_p10"]
    assert found["seed_score"] == pytest.approx(0.1)
    assert found["presence_margin"] == 0.5 and found["presence_mean"] == pytest.approx((32 + 0.5 - 6) / 10)


def test_a_masklet_that_is_never_visible_has_numbers_too():
    found = of(boxes(None, None))
    assert np.isfinite(list(found.values())).all() and found["fragments"] == found["size"] == 0


@pytest.mark.parametrize("name", ["seed_agreement", "cycle_iou", "last_iou"])
def test_what_only_the_model_can_tell_comes_from_the_prompt(name):
    masks = boxes((10, 10, 20, 20))
    assert of(masks, prompt=f'{{"frame_idx": 0, "{name}": 0.75}}')[name] == 0.75
    assert of(masks, prompt="{}")[name] == (-1 if name == "last_iou" else 0)


def test_features_of_several_masklets_are_a_table():
    rows = [masklet(boxes((10, 10, 8, 8))), masklet(boxes((10, 10, 8, 9)))]
    table = features.table_of(rows)
    assert table.shape == (2, len(FEATURES)) and table[1].tolist() == list(features.features_of(rows[1]))
    assert features.table_of([]).shape == (0, len(FEATURES))


def test_malformed_masks_are_refused():
    with pytest.raises(BadRle):
        features.features_of(make_masklet(rle=(b"~~",) * 3))
