"""Seeds from words: a detector's boxes become masks with labels."""

import numpy as np
import pytest

from engine.candidates import finders
from model import checkpoints
from model.detector import Detection, Detector
from storage.iou import mask_iou


class Boxes(Detector):
    """A detector that gives the same boxes for all pictures. asked: the words and the least score."""

    def __init__(self, *found):  # loads no model
        self.found, self.asked = found, []

    def find(self, rgb, words, min_score):
        self.asked.append((words, min_score))
        return list(self.found)


@pytest.fixture(scope="module")
def loaded():
    return checkpoints.load("micro")


@pytest.fixture
def picture():
    """A red disc on grey, and its mask."""
    y, x = np.mgrid[:96, :160]
    disc = (x - 60) ** 2 + (y - 40) ** 2 < 20**2
    rgb = np.random.default_rng(0).integers(90, 110, (96, 160, 3)).astype(np.uint8)
    rgb[disc] = (220, 60, 50)
    return rgb, disc


def test_a_box_becomes_a_mask_with_the_label_of_its_word_and_duplicates_go(loaded, picture):
    rgb, disc = picture
    twice = Boxes(Detection((39, 19, 81, 61), 0.9, "ball"), Detection((38, 20, 80, 62), 0.5, "fruit"))
    find = finders.text_finder(
        loaded, twice, {"ball": "Ball", "fruit": "Fruit"}, name="boxes", min_score=0.3, max_overlap=0.8
    )
    (seed,) = find(rgb, None)
    assert mask_iou(seed.mask, disc) > 0.8 and (seed.label, seed.rank) == ("Ball", 0.9)
    assert twice.asked == [(["ball", "fruit"], 0.3)]
    assert dict(seed.found_by) | {"seed_score": 0} == {
        "box_xyxy": [39, 19, 81, 61],
        "word": "ball",
        "box_score": 0.9,
        "seed_score": 0,
        "detector": "boxes",
        "min_score": 0.3,
    }


def test_without_boxes_there_are_no_seeds(loaded, picture):
    find = finders.text_finder(loaded, Boxes(), {"ball": "Ball"}, name="boxes", min_score=0.3, max_overlap=0.8)
    assert find(picture[0], None) == []
