"""The commands `export` and the imports: every format, on both timelines, and what they say."""

import json

import pytest

from engine.cli import data
from engine.settings import Settings
from tests.engine import labelled_folders
from tests.storage import made_videos


@pytest.fixture
def settings(tmp_path):
    """A home without a model."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def imported(command, tmp_path):
    """A folder with a video of 5 frames a second and its annotation, which is imported."""
    place = tmp_path / "given"
    place.mkdir()
    made_videos.make(place / "v.mp4", [made_videos.numbered(i) for i in range(15)], fps=5)
    labelled_folders.write_sav_note(place / "v_manual.json", range(0, 72, 4), 72, 3.0)
    assert "1 video, 1 masklet, release release-0001-" in command("import-sav", str(place))
    return place


def test_every_format_is_exported_and_says_what_it_could_not_hold(command, imported, tmp_path):
    for form in data.EXPORTS:
        facts = json.loads(command("export", str(tmp_path / form), "--format", form, "--json"))
        assert facts["repeats"] == 0 and facts["files"], form
        assert ("iou" in facts) == (form in ("cvat", "yolo")), form
    said = command("export", str(tmp_path / "cvat"), "--format", "cvat")
    assert "18 masks as polygons: IoU with the masks 1.000 on average, 1.000 at least" in said
    said = command("export", str(tmp_path / "source"), "--format", "coco", "--timeline", "source")
    assert "3 annotated frames left out: the source shows the same frame as in another one" in said
    note = json.loads((tmp_path / "source" / "annotations" / "instances_train.json").read_text())
    assert [image["frame_id"] for image in note["images"]] == list(range(15))


def test_formats_that_cannot_be_on_the_timeline_of_the_source_say_it_in_one_line(mistake, imported, tmp_path):
    for words in (["--format", "sa-v-frames"], ["--media"]):
        said = mistake("export", str(tmp_path / "out"), "--timeline", "source", *words)
        assert "24 f" in said and len(said.strip().splitlines()) == 1


def test_annotations_of_other_tools_are_imported_or_reviewed(command, imported, tmp_path, monkeypatch):
    for form in ("coco", "youtube-vis", "cvat"):
        folder = tmp_path / form
        command("export", str(folder), "--format", form, "--timeline", "source")
        (folder / "v.mp4").write_bytes((imported / "v.mp4").read_bytes())
        with monkeypatch.context() as patch:
            patch.setenv("MASKLETS_HOME", str(tmp_path / f"home of {form}"))
            (folder / "broken.json").write_text("{")
            said = command(f"import-{form}", str(folder), "--review")
            assert "1 video, 1 masklet, to be reviewed" in said
            assert ("1 annotation file with bad rows" in said) == (form != "cvat")
