"""What all readers share: the cache, the limits of the video, and closing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from storage.formats.picture_folder import PictureReader
from storage.videos import video
from storage.videos.reader import FrameUnreadable
from storage.videos.source_reader import SourceReader
from tests.storage.made_videos import numbered

FRAMES = 30


@pytest.fixture(params=["stored", "source", "pictures"])
def reader(request, tmp_path):
    """A reader of 30 different frames that caches 2 of them."""
    if request.param == "pictures":
        paths = [tmp_path / f"{i:05d}.png" for i in range(FRAMES)]
        for i, path in enumerate(paths):
            Image.fromarray(numbered(i)).save(path)
        return PictureReader("v", paths, keep=2)
    video.write(tmp_path / "v.mp4", map(numbered, range(FRAMES)))
    return (video.FrameReader if request.param == "stored" else SourceReader)(tmp_path / "v.mp4", keep=2)


def test_a_reader_caches_arrays_that_are_read_only(reader):
    with reader:
        first = reader.read(5)
        assert reader.read(5) is first
        with pytest.raises(ValueError, match="read-only"):
            first[0, 0] = 0
        reader.read(6), reader.read(20)
        assert reader.read(5) is not first
        assert np.array_equal(reader.read(5), first)


def test_a_closed_reader_raises_and_does_not_crash(reader):
    reader.read(0)
    reader.close()
    reader.close()
    for frame_idx in (0, 1, 20):  # in the cache, the next one, and one that needs a seek
        with pytest.raises(FrameUnreadable, match="closed"):
            reader.read(frame_idx)


@pytest.mark.parametrize("frame_idx", [-1, FRAMES, 1000])
def test_a_frame_outside_the_video_is_a_value_error_with_the_valid_range(reader, frame_idx):
    with reader, pytest.raises(ValueError, match="frames 0 to 29"):
        reader.read(frame_idx)
