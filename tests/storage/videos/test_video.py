"""Stored videos: what is written is read back, frame by frame."""

from __future__ import annotations

import av
import numpy as np
import pytest

from storage.videos import video
from storage.videos.reader import FrameUnreadable
from tests.storage.made_videos import COLOURS, H, W, corner_names, corners, number_of, numbered


def test_written_frames_are_read_back_by_index(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(50)))
    assert [(i, number_of(rgb)) for i, rgb in video.frames(tmp_path / "v.mp4")] == [(i, i) for i in range(50)]


def test_colours_survive_writing_and_reading(tmp_path):
    video.write(tmp_path / "v.mp4", [corners()] * 3, crf=10)
    _, rgb = next(video.frames(tmp_path / "v.mp4"))
    assert np.abs(rgb[5, 5].astype(int) - COLOURS["red"]).max() <= 6
    assert corner_names(rgb) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("indices", [[0], [49], [7, 8, 9], [40, 3, 41, 3, 12, 11], [0, 12, 24, 36, 48], []])
def test_any_frames_in_any_order_are_the_ones_asked_for(tmp_path, indices):
    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(50)))
    assert [(i, number_of(rgb)) for i, rgb in video.frames(tmp_path / "v.mp4", indices)] == [(i, i) for i in indices]


def test_a_jpeg_shows_the_picture():
    import cv2

    data = video.jpeg(numbered(21))
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert number_of(np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)) == 21
    assert len(video.jpeg(numbered(21), quality=20)) < len(data)


def test_a_stored_video_has_a_keyframe_every_12_frames_and_no_reordering(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i * 37 % 256) for i in range(40)))
    with av.open(str(tmp_path / "v.mp4")) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        assert [i for i, p in enumerate(packets) if p.is_keyframe] == [0, 12, 24, 36]
        assert [p.pts for p in packets] == [p.dts for p in packets]
        stream = container.streams.video[0]
        assert stream.average_rate == 24
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
    data = (tmp_path / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(
    "frames",
    [[], [np.zeros((63, 64, 3), np.uint8)], [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 66, 3), np.uint8)]],
)
def test_frames_that_cannot_be_a_stored_video_are_a_value_error_and_leave_no_file(tmp_path, frames):
    with pytest.raises(ValueError):
        video.write(tmp_path / "v.mp4", frames)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_a_video_is_an_error_of_ours(tmp_path):
    (tmp_path / "v.mp4").write_text("no")
    with pytest.raises(FrameUnreadable, match="v.mp4"):
        video.FrameReader(tmp_path / "v.mp4")
    with pytest.raises(FrameUnreadable, match="v2.mp4"):
        video.FrameReader(tmp_path / "v2.mp4")


def test_a_stored_video_has_its_size_and_length(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(30)))
    with video.FrameReader(tmp_path / "v.mp4") as reader:
        assert (reader.frame_count, reader.height, reader.width) == (30, H, W)


def test_a_damaged_stored_video_says_which_frame_is_missing(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i * 37 % 256) for i in range(48)))
    data = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "v.mp4").write_bytes(data[: len(data) * 2 // 3])
    with video.FrameReader(tmp_path / "v.mp4") as reader:
        assert number_of(reader.read(0)) == 0
        with pytest.raises(FrameUnreadable, match="frame 47"):
            reader.read(47)
        assert number_of(reader.read(1)) == 37
