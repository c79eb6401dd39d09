"""One video with its masklets: every picture of the film has the masks of its own frame."""

import cv2
import numpy as np
import pytest

from engine import pictures
from engine.pictures import Style
from engine.views import frames, show
from storage.videos.video import FrameReader
from tests.engine.views.small_releases import H, W, block, masklet_of, publish, track
from tests.storage.made_videos import number_of

TOP = {"y": 0, "size": 12}  # above the blocks that show the number of a frame


@pytest.fixture
def release(s):
    return publish(s, [masklet_of("m1", track(0, 12, 24, None, 48, 60, **TOP))], source_name="holiday/dog")


def tinted(rgb):
    """The columns whose top row is not grey."""
    return np.flatnonzero((rgb[4].astype(int).max(-1) - rgb[4].astype(int).min(-1)) > 30)


def test_each_picture_of_the_film_is_an_annotated_frame_with_its_own_mask(release, tmp_path):
    shown = show.write(release, show.find(release, "v1"), tmp_path / "new" / "film.mp4")
    assert (shown.masklets, shown.frames) == (1, 6)
    with FrameReader(tmp_path / "new" / "film.mp4") as film:
        assert film.frame_count == 6
        for n, x in enumerate((0, 12, 24, None, 48, 60)):
            rgb = film.read(n)
            assert number_of(rgb) == 4 * n
            columns = tinted(rgb)
            assert len(columns) == 0 if x is None else abs(columns.min() - x) <= 2 and abs(columns.max() - x - 11) <= 2


def test_the_contact_sheet_has_the_frames_and_a_line_for_each_masklet(release, tmp_path):
    shown = show.write(release, show.find(release, "v1"), tmp_path / "film.mp4", Style.OUTLINE)
    sheet = np.asarray(cv2.imread(shown.sheet))
    cell = show.CELL_PX * H // W
    assert sheet.shape[1] == show.COLUMNS * show.CELL_PX + 3 * 6
    assert sheet.shape[0] > 2 * cell + 3 * 22
    rows = release.masklets()
    assert frames.made_by(["by hand", "micro"]) == "by hand, by micro"
    assert "m1: auto, phase auto, accept; visible on 5 of 6 annotated frames, small" in show._line(rows[0])


def test_the_styles_tint_outline_or_keep_only_the_object():
    rgb = np.full((H, W, 3), 100, np.uint8)
    mask = block(20, 20, 20)
    drawn = {style: pictures.overlay(rgb, [mask], style) for style in Style}
    inside, outside = (30, 30), (5, 5)
    assert tuple(drawn[Style.FILL][inside]) != (100, 100, 100) and tuple(drawn[Style.FILL][outside]) == (100, 100, 100)
    assert tuple(drawn[Style.OUTLINE][inside]) == tuple(drawn[Style.OUTLINE][outside]) == (100, 100, 100)
    red, _, blue = drawn[Style.OUTLINE][20, 30].tolist()
    assert red - blue > 100  # the first colour is orange
    assert tuple(drawn[Style.CUT_OUT][inside]) == (100, 100, 100) and drawn[Style.CUT_OUT][outside].min() > 200


def test_a_number_is_written_inside_its_mask_and_not_on_an_absent_one():
    rgb = np.full((H, W, 3), 100, np.uint8)
    ring = block(4, 4, 40)
    ring[10:44, 10:44] = False  # its middle is not part of it
    out = pictures.numbered(rgb, [ring])
    changed = (out != rgb).any(-1)
    assert changed.any() and (changed & ring).sum() > 0.3 * changed.sum()
    assert (pictures.numbered(rgb, [block(None)]) == rgb).all()


@pytest.mark.parametrize("name", ["v1", "v", "holiday/dog", "/in/v1.mp4", "v1.mp4"])
def test_a_video_is_found_by_its_id_or_a_beginning_or_the_name_of_its_source(release, name):
    assert show.find(release, name).video_id == "v1"


def test_a_name_of_no_video_or_of_several_is_a_mistake(s, release):
    both = publish(s, [masklet_of("m2", track(0), "v12", batch_id="b2")], "release-0002")
    with pytest.raises(ValueError, match="'w'; it has 2 videos"):
        show.find(both, "w")
    with pytest.raises(ValueError, match="'v' are 2 videos of release release-0002: v1, v12"):
        show.find(both, "v")
    with pytest.raises(ValueError, match="has no video ''"):
        show.find(both, "")
    assert show.find(both, "v12").video_id == "v12"
    assert show.find(both, "v1").video_id == "v1"  # an id, though another one begins with it


def test_a_film_is_an_mp4_only(release, tmp_path):
    with pytest.raises(ValueError, match=r"FILE\.mp4"):
        show.write(release, show.find(release, "v1"), tmp_path / "film.avi")


def test_pictures_of_different_shapes_keep_them_in_a_grid():
    tall, wide = np.full((80, 40, 3), 200, np.uint8), np.full((40, 80, 3), 200, np.uint8)
    grid = frames.grid([frames.Cell(tall, ""), frames.Cell(wide, ""), frames.Cell(wide, "")], columns=2, width_px=100)
    assert grid.shape == (2 * 125 + 6, 2 * 100 + 6, 3)
    light = (grid[:125, :100] == 200).all(-1)
    assert light.any(1).sum() == 125 and abs(light.any(0).sum() - 62) <= 2  # not stretched
