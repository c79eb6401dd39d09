"""Videos from anywhere, read without storing them: every frame is the one that ingest would store."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from storage.records import FPS, Refusal
from storage.videos import video
from storage.videos.normalise import Limits, normalise
from storage.videos.reader import FrameUnreadable
from storage.videos.source_file import Refused
from storage.videos.source_reader import SourceReader
from tests.storage.made_videos import H, W, corner_names, corners, make, number_of, numbered

LIMITS = Limits(min_s=0.5, min_side_px=32)
ORDERS = ("forwards", "backwards", "mixed")


def indices(count: int, order: str) -> list[int]:
    if order == "mixed":
        return [int(k) for k in np.random.default_rng(0).permutation(count)]
    return list(range(count)) if order == "forwards" else list(range(count))[::-1]


def variable(path: Path) -> Path:
    times_ms = [int(t) for t in np.cumsum([0, *np.random.default_rng(3).integers(10, 130, 46)])]
    return make(path, [numbered(i) for i in range(47)], times_ms=times_ms)


def with_b_frames(path: Path) -> Path:
    return make(path, [numbered(i) for i in range(96)], options={"bf": "3", "x264-params": "b-adapt=0:keyint=24"})


def open_gop(path: Path) -> Path:
    options = {"bf": "3", "x264-params": "b-adapt=0:keyint=24:open-gop=1"}
    return make(path, [numbered(i) for i in range(96)], options=options)


def cut_at_the_front(path: Path) -> Path:
    """An edit list hides the first frames. The file begins in the middle of a group of pictures."""
    whole = make(path.with_name("whole.mp4"), [numbered(i) for i in range(96)], options={"bf": "0", "g": "24"})
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        shift = 17 * source.streams.video[0].time_base.denominator // FPS
        for packet in source.demux(video=0):
            if packet.pts is None or packet.dts is None:
                continue
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = stream
            target.mux(packet)
    return path


MADE = {
    "variable rate": ("v.mp4", variable),
    "B-frames": ("v.mp4", with_b_frames),
    "open groups of pictures": ("v.mp4", open_gop),
    "25 fps": ("v.mp4", lambda path: make(path, [numbered(i) for i in range(75)], fps=25)),
    "60 fps": ("v.mp4", lambda path: make(path, [numbered(i) for i in range(120)], fps=60)),
    "edit list": ("v.mp4", cut_at_the_front),
    "AVI with B-frames": ("v.avi", with_b_frames),
    "MPEG-TS": ("v.ts", with_b_frames),
    "Matroska": ("v.mkv", with_b_frames),
}


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("order", ORDERS)
def test_every_frame_is_the_one_that_ingest_stores(tmp_path, kind, order):
    name, make_it = MADE[kind]
    source = make_it(tmp_path / name)
    normalise(source, tmp_path / "stored.mp4", limits=LIMITS)
    stored = [number_of(rgb) for _, rgb in video.frames(tmp_path / "stored.mp4")]
    with SourceReader(source) as reader:
        assert (reader.frame_count, reader.height, reader.width) == (len(stored), H, W)
        assert [number_of(reader.read(k)) for k in indices(len(stored), order)] == [
            stored[k] for k in indices(len(stored), order)
        ]


def test_an_edit_list_hides_frames_as_in_a_player(tmp_path):
    source = cut_at_the_front(tmp_path / "v.mp4")
    with SourceReader(source) as reader:
        assert [number_of(reader.read(k)) for k in (0, 1, 30)] == [17, 18, 47]


@pytest.mark.parametrize(
    ("matrix_ccw", "expected"),
    [(-90, ["blue", "red", "white", "green"]), (180, ["white", "blue", "green", "red"])],
)
def test_a_rotation_in_the_container_is_applied(tmp_path, matrix_ccw, expected):
    source = make(tmp_path / "v.mp4", [corners()] * 24, rotation=matrix_ccw)
    with SourceReader(source) as reader:
        assert (reader.height, reader.width) == ((W, H) if matrix_ccw == -90 else (H, W))
        assert reader.read(5).shape == (reader.height, reader.width, 3)
        assert corner_names(reader.read(5)) == expected


def test_colours_are_those_of_the_stored_video(tmp_path):
    source = make(tmp_path / "v.mp4", [corners()] * 24, sar=Fraction(4, 3))
    normalise(source, tmp_path / "stored.mp4", limits=LIMITS)
    _, stored = next(video.frames(tmp_path / "stored.mp4"))
    with SourceReader(source) as reader:
        assert np.abs(reader.read(0)[8:24, 8:40].astype(int) - stored[8:24, 8:40]).max() <= 6


def test_an_odd_side_keeps_its_last_row_and_column(tmp_path):
    odd = np.full((65, 97, 3), 40, dtype=np.uint8)
    odd[64], odd[:, 96] = 220, 220
    source = make(tmp_path / "v.mkv", [odd] * 24, codec="ffv1", pix_fmt="yuv444p")
    with SourceReader(source) as reader:
        assert (reader.height, reader.width) == (65, 97)
        assert reader.read(3)[64, 5, 0] > 180 and reader.read(3)[5, 96, 0] > 180 and reader.read(3)[63, 95, 0] < 80


def test_a_reader_caches_arrays_that_are_read_only_and_refuses_work_after_it_is_closed(tmp_path):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(30)])
    with SourceReader(source, keep=2) as reader:
        first = reader.read(5)
        assert reader.read(5) is first
        with pytest.raises(ValueError, match="read-only"):
            first[0, 0] = 0
        with pytest.raises(ValueError, match="frames 0 to 29, not 30"):
            reader.read(30)
    with pytest.raises(FrameUnreadable, match="frame 5: the video was closed"):
        reader.read(5)


def test_a_broken_packet_costs_its_frames_and_no_others(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (H, W, 3), dtype=np.uint8) for _ in range(48)]
    source = make(tmp_path / "v.mp4", noise, codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(source)) as container:
        packet = [p for p in container.demux(video=0) if p.size][20]
        assert packet.pos is not None
    data = bytearray(source.read_bytes())
    data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    source.write_bytes(data)
    with SourceReader(source) as reader:
        with pytest.raises(FrameUnreadable, match=r"frame at 0\.833 s does not decode"):
            reader.read(20)
        assert reader.read(21).shape == (H, W, 3) and reader.read(19).shape == (H, W, 3)


def test_files_that_are_no_video_are_refused_with_their_name(tmp_path):
    (tmp_path / "v.mp4").write_text("no")
    for name in ("v.mp4", "missing.mp4"):
        with pytest.raises(Refused, match=name) as error:
            SourceReader(tmp_path / name)
        assert error.value.reason is Refusal.UNREADABLE


def test_two_files_that_were_joined_are_refused(tmp_path):
    once = make(tmp_path / "once.ts", [numbered(i) for i in range(48)]).read_bytes()
    (tmp_path / "twice.ts").write_bytes(once + once)
    with pytest.raises(Refused, match="times go back"):
        SourceReader(tmp_path / "twice.ts")


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    make(tmp_path / "v.mp4", [numbered(i) for i in range(30)])
    with SourceReader(tmp_path / "v.mp4") as reader:
        assert reader.frame_count == 30
    make(tmp_path / "v.mp4", [numbered(100 + i) for i in range(40)])
    with SourceReader(tmp_path / "v.mp4") as reader:
        assert reader.frame_count == 40 and number_of(reader.read(39)) == 139
