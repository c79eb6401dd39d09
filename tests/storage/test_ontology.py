"""Ontologies: a file becomes one value with its guidelines and pictures, and what is wrong with it is one line."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from storage import ontology
from storage.ontology import OntologyError, Picture

TEXT = """
name = "Street"
guidelines = "rules.md"

[[classes]]
name = "dog"
colour = "#E6194B"
guideline = "Also puppies. ![a dog](pictures/dog.png)"
attributes = [{ name = "pose", values = ["stands", "lies"], required = true }]

[[classes]]
name = "cat"
key = "1"

[[attributes]]
name = "occluded"
kind = "boolean"
"""


@pytest.fixture
def file(tmp_path):
    """An ontology with guidelines and a picture."""
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "dog.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "rules.md").write_text("# Rules\n\nLook twice.")
    path = tmp_path / "ontology.toml"
    path.write_text(TEXT)
    return path


def test_a_file_is_read_with_its_guidelines_pictures_colours_and_keys(file):
    found = ontology.read(file)
    assert found.guidelines.startswith("# Rules") and list(found.pictures) == ["pictures/dog.png"]
    assert found.pictures["pictures/dog.png"].media_type == "image/png"
    dog, cat = found.classes
    assert (dog.colour, dog.key, cat.colour, cat.key) == ("#e6194b", "2", ontology.COLOURS[1], "1")
    assert [each.name for each in found.attributes_of("dog")] == ["pose", "occluded"]
    assert dog.attributes[0].kind == "choice"


def test_the_same_ontology_in_json_is_the_same_value_and_a_copy_keeps_the_version(file):
    found = ontology.read(file)
    other = file.with_suffix(".json")
    note = {"name": "Street", "guidelines": "rules.md", "attributes": [{"name": "occluded", "kind": "boolean"}]}
    pose = {"name": "pose", "values": ["stands", "lies"], "required": True}
    dog = {"name": "dog", "colour": "#E6194B", "guideline": found.classes[0].guideline, "attributes": [pose]}
    other.write_text(json.dumps(note | {"classes": [dog, {"name": "cat", "key": "1"}]}))
    assert ontology.read(other) == found
    copy = ontology.from_json(found.to_json())
    assert copy == found and copy.version == found.version


def test_the_version_changes_with_a_picture(file):
    before = ontology.read(file).version
    cv2.imwrite(str(file.parent / "pictures" / "dog.png"), np.ones((4, 4, 3), np.uint8))
    assert ontology.read(file).version != before


def test_objects_of_a_class_may_be_numbered_and_the_versions_of_before_there_were_instances_stay(file):
    before = ontology.read(file)
    assert "instances" not in before.to_json()
    file.write_text(TEXT.replace('key = "1"', 'instances = "numbered"'))
    found = ontology.from_json(ontology.read(file).to_json())
    assert [each.instances for each in found.classes] == ["many", "numbered"] and found.version != before.version
    assert [each.name for each in found.attributes_of("cat")] == ["instance", "occluded"]
    assert found.problem("cat", {"instance": 2}) is None and found.missing("cat", {}) is None
    for wrong in (0, 1.5, True, "2"):
        assert found.problem("cat", {"instance": wrong}) == f"instance is a whole number from 1, not {wrong!r}"
    assert found.problem("dog", {"instance": 2}) == "dog has no attribute 'instance' in the ontology"


SPOILT = {
    "Expected '=' after a key": ("[[classes]]", "classes"),
    "classes, number 1, colours: Unexpected": ("colour =", "colours ="),
    "class dog: the colour '#E6194' is not like": ("#E6194B", "#E6194"),
    "class cat: the key 'F1' is not one character": ('key = "1"', 'key = "F1"'),
    "class cat: attribute 'instance' comes twice": (
        'key = "1"',
        'instances = "numbered"\nattributes = [{ name = "instance" }]',
    ),
    "class 'dog' comes twice": ('name = "cat"', 'name = "dog"'),
    "class 'cat ': a name is one line": ('name = "cat"', 'name = "cat "'),
    "class dog: attribute 'occluded' comes twice": ('name = "pose"', 'name = "occluded"'),
    "attributes, number 1, kind: Input should be": ('"boolean"', '"yes"'),
    "attribute occluded: values belong to a choice": ('"boolean"', '"choice"'),
    "attribute pose: value 'lies' comes twice": ('"stands"', '"lies"'),
    "guidelines other.md: there is no such file": ("rules.md", "other.md"),
    "picture ../dog.png: it must lie beside the ontology": ("pictures/dog.png", "../dog.png"),
    "picture https://host/dog.png: it must lie beside": ("pictures/dog.png", "https://host/dog.png"),
    "picture rules.md: not a PNG, JPEG, GIF or WebP": ("pictures/dog.png", "rules.md"),
}


@pytest.mark.parametrize("line", SPOILT)
def test_what_is_wrong_is_one_line_with_the_file_and_the_place(file, line):
    old, new = SPOILT[line]
    assert old in TEXT
    file.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(OntologyError) as caught:
        ontology.read(file)
    assert str(caught.value).startswith(f"{file}: {line}") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("picture", "line"),
    [
        (Picture(media_type="text/html", base64=""), "picture dog.png: the type 'text/html' is not one of a picture"),
        (Picture(media_type="image/png", base64="?"), "picture dog.png: its content is not base64"),
    ],
)
def test_what_a_program_sends_as_a_picture_must_be_one(file, picture, line):
    sent = replace(ontology.read(file), pictures={"dog.png": picture}).to_json()
    with pytest.raises(OntologyError, match=line):
        ontology.from_json(sent)


def test_all_pictures_together_have_a_limit(file, monkeypatch):
    monkeypatch.setattr(ontology, "MAX_PICTURES", 10)
    with pytest.raises(OntologyError, match="all pictures together have more than 0 MiB"):
        ontology.read(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OntologyError, match="none.toml: No such file or directory"):
        ontology.read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("label", "attributes", "problem"),
    [
        ("dog", {"pose": "lies", "occluded": True}, None),
        ("cat", {}, None),
        (None, {}, None),
        ("dgo", {}, "the label 'dgo' is not in the ontology: dog, cat"),
        (None, {"occluded": True}, "attributes need a label"),
        ("cat", {"pose": "lies"}, "cat has no attribute 'pose' in the ontology"),
        ("dog", {"pose": "sits"}, "pose is one of stands, lies, not 'sits'"),
        ("dog", {"occluded": "yes"}, "occluded is true or false, not 'yes'"),
    ],
)
def test_a_label_is_checked_with_its_attributes(file, label, attributes, problem):
    assert ontology.read(file).problem(label, attributes) == problem


def test_a_complete_label_has_its_required_attributes(file):
    found = ontology.read(file)
    assert found.missing(None, {}) == "a label"
    assert found.missing("dog", {"occluded": True}) == "the attribute pose"
    assert found.missing("dog", {"pose": "lies"}) is None and found.missing("cat", {}) is None
