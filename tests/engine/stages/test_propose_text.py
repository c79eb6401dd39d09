"""Candidates that words ask for: the words of the settings, and their labels."""

import json

import pytest
from pydantic import ValidationError

from engine.services import connect
from engine.settings import AutoSettings, ReviewSettings, Settings
from engine.stages import propose
from engine.stages.propose import UnknownWord
from model.detector import Detection
from storage.dataset import parts
from tests.engine.admitting import admit_batch


@pytest.fixture
def pets(tmp_path):
    path = tmp_path / "pets.toml"
    path.write_text('[[classes]]\nname = "Dog"\n[[classes]]\nname = "cat"\n')
    return path


def test_the_words_of_a_text_are_in_lower_case_and_each_once():
    assert AutoSettings(text=" Guide  dog. CAT.. guide dog").words == ["guide dog", "cat"]
    assert AutoSettings().words == []
    with pytest.raises(ValidationError, match="no words"):
        AutoSettings(text=" . ")


def test_words_become_the_classes_of_the_ontology_or_else_labels_as_they_are(tmp_path, pets):
    auto = AutoSettings(text="dog. cat.")
    with connect(Settings(home=tmp_path / "home", auto=auto)) as s:
        assert propose.labels_of_words(s) == {"dog": "dog", "cat": "cat"}
    with connect(Settings(home=tmp_path / "home", auto=auto, review=ReviewSettings(ontology=pets))) as s:
        assert propose.labels_of_words(s) == {"dog": "Dog", "cat": "cat"}


def test_a_word_that_the_ontology_lacks_is_refused(tmp_path, pets):
    auto, review = AutoSettings(text="dog. wolf."), ReviewSettings(ontology=pets)
    with connect(Settings(home=tmp_path / "home", auto=auto, review=review)) as s:
        with pytest.raises(UnknownWord, match="no class 'wolf': it has Dog, cat"):
            propose.labels_of_words(s)


class Boxes:
    """A detector that sees one object in the middle of each picture."""

    def find(self, rgb, words, min_score):
        h, w = rgb.shape[:2]
        return [Detection((w / 4, h / 4, w / 2, h / 2), 0.8, words[0])]


def test_candidates_of_words_have_their_label_and_say_how_they_were_found(settings):
    asking = settings.auto.model_copy(update={"text": "cat. dog."})
    with connect(settings.model_copy(update={"auto": asking})) as s:
        vars(s)["detector"] = Boxes()  # in place of the one that the settings name
        batch_id = admit_batch(s)
        propose.propose_batch(s, batch_id)
        rows = list(parts.rows(s.blobs, "candidates", batch_id))
    assert rows and {row.label for row in rows} == {"cat"}
    for row in rows:
        said = json.loads(row.prompt)
        assert said["word"] == "cat" and said["box_score"] == 0.8 and said["detector"] == asking.detector
        assert 0 <= said["cycle_iou"] <= 1 and said["search"]["max_objects"] == 3
