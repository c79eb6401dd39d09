"""High dynamic range, interlacing, several streams, cut streams: the stored video is what a player shows."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest

from storage.records import Refusal
from storage.videos import upright, video
from storage.videos.normalise import Limits, normalise
from storage.videos.source_file import Refused
from storage.videos.source_reader import SourceReader
from tests.storage.made_videos import COLOURS, H, W, corners, make, number_of, numbered

pytestmark = pytest.mark.slow  # colour tables take seconds

LIMITS = Limits(min_s=0.5, min_side_px=32)

#: BT.709 to BT.2020 primaries, linear light. Source: ITU-R BT.2087.
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def pq(nits: np.ndarray) -> np.ndarray:
    """Source: SMPTE ST 2084."""
    y = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


def hlg(light: np.ndarray) -> np.ndarray:
    """light: of the scene, 0 to 1. Source: ITU-R BT.2100."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(light <= 1 / 12, np.sqrt(3 * light), a * np.log(np.maximum(12 * light - b, 1e-9)) + c)


def hdr(path: Path, curve: str) -> Path:
    """`corners` as a phone stores them: BT.2020, 10 bit, white at 203 nits in PQ and at 0.75 in HLG."""
    linear = (corners() / 255.0) ** 2.4 @ TO_2020.T
    r, g, b = np.moveaxis(pq(linear * 203) if curve == "PQ" else hlg(linear * 0.265), -1, 0)
    y = 0.2627 * r + 0.6780 * g + 0.0593 * b
    planes = [64 + 876 * y, 512 + 896 * (b - y) / 1.8814, 512 + 896 * (r - y) / 1.4746]
    frames = [np.rint(np.stack(planes)).astype(np.uint16)] * 24
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv444p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, 16 if curve == "PQ" else 18, 9
        context.color_range = 1
        for index, yuv in enumerate(frames):
            frame = av.VideoFrame(W, H, "yuv444p10le")
            for plane, values in zip(frame.planes, yuv, strict=True):
                rows = np.zeros((H, plane.line_size // 2), np.uint16)
                rows[:, :W] = values
                plane.update(rows.tobytes())
            frame.color_primaries, frame.color_trc, frame.colorspace = 9, context.color_trc, 9
            frame.color_range = 1
            frame.pts, frame.time_base = index, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def white_in_pq(path: Path, peak_nits: int | None) -> Path:
    """Reference white, 203 nits. peak_nits: of the mastering display; None states none."""
    primaries = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
    display = f":master-display={primaries}L({peak_nits * 10000},50)" if peak_nits else ""
    grey = round(float(64 + 876 * pq(np.array(203.0))))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=24, options={"x265-params": f"log-level=none:crf=4{display}"})
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 16, 9, 1
        for index in range(24):
            frame = av.VideoFrame(W, H, "yuv420p10le")
            for plane, value in zip(frame.planes, (grey, 512, 512), strict=True):
                plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
            frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = 9, 16, 9, 1
            frame.pts, frame.time_base = index, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def saturation(rgb: Iterable[float]) -> float:
    values = [float(v) for v in rgb]
    return (max(values) - min(values)) / max(values)


@pytest.mark.parametrize("curve", ["PQ", "HLG"])
def test_a_high_dynamic_range_is_mapped_to_the_standard_one(tmp_path, curve):
    source = hdr(tmp_path / "v.mkv", curve)
    made = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert made.changes == (f"tone-mapped from {curve}",)
    shown = [next(video.frames(tmp_path / "n.mp4"))[1]]
    if curve == "HLG":  # both ways use one function, and a table for PQ takes the longest
        with SourceReader(source) as reader:
            shown.append(reader.read(0))
    for rgb in shown:
        found = {"red": rgb[8, 8], "green": rgb[8, -8], "blue": rgb[-8, 8], "white": rgb[-8, -8]}
        for name, colour in COLOURS.items():
            assert int(np.argmax(found[name])) == int(np.argmax(colour)) or name == "white"
            assert saturation(found[name]) == pytest.approx(saturation(colour), abs=0.2)
        assert found["white"].min() > 130
        assert curve == "HLG" or 155 <= found["white"].mean() <= 180  # nearly as with a stated peak of 1000 nits
    with av.open(str(tmp_path / "n.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == 1


# libav computes a table of colours for each video with a high dynamic range, which takes seconds: so few videos here.
@pytest.mark.parametrize(("peak_nits", "darkest", "brightest"), [(1000, 165, 180), (4000, 150, 164)])
def test_white_in_pq_is_as_bright_with_a_stated_peak_of_1000_nits_as_without_one_and_darker_with_a_higher_one(
    tmp_path, peak_nits, darkest, brightest
):
    normalise(white_in_pq(tmp_path / "v.mkv", peak_nits), tmp_path / "n.mp4", limits=LIMITS)
    for _, rgb in video.frames(tmp_path / "n.mp4"):
        assert darkest <= rgb.mean() <= brightest


@pytest.mark.parametrize(("peak_nits", "lacks"), [(None, True), (1, True), (100, True), (1000, False)])
def test_a_peak_below_white_counts_as_none(tmp_path, peak_nits, lacks):
    with av.open(str(white_in_pq(tmp_path / "v.mkv", peak_nits))) as container:
        assert [upright._lacks_peak(frame) for frame in container.decode(video=0)] == [lacks] * 24


def test_a_standard_video_is_not_changed(tmp_path):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(24)])
    assert normalise(source, tmp_path / "n.mp4", limits=LIMITS).changes == ()


def combed(path: Path) -> Path:
    """A bar that moves by 2 px a field: two fields in every frame."""
    frames = []
    for i in range(18):
        rgb = np.full((H, W, 3), 40, np.uint8)
        rgb[0::2, 4 * i : 4 * i + 20] = 220
        rgb[1::2, 4 * i + 2 : 4 * i + 22] = 220
        frames.append(rgb)
    return make(path, frames, options={"bf": "2", "x264-params": "tff=1:keyint=24"})


def combing(rgb: np.ndarray) -> float:
    """How much rows differ from the mean of their neighbours."""
    grey = rgb.mean(axis=2)
    return float(np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2)[4:-4].max())


def test_interlaced_frames_are_deinterlaced_and_none_is_lost(tmp_path):
    source = combed(tmp_path / "v.ts")
    made = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert made.changes == ("deinterlaced",) and made.frame_count == 18
    with SourceReader(source) as reader:
        assert reader.frame_count == 18
        for k, rgb in video.frames(tmp_path / "n.mp4"):
            for shown in (rgb, reader.read(k)):
                if 2 < k < 16:
                    assert combing(shown) < 80
                    bar = np.flatnonzero(shown[H // 2 + 1 : H // 2 + 3].mean(axis=(0, 2)) > 130)
                    assert abs(bar.mean() - (4 * k + 10.5)) < 2


def two_streams(path: Path, first: list[np.ndarray], second: list[np.ndarray], default: int, codec: str) -> Path:
    with av.open(str(path), "w") as container:
        streams = []
        for n, (frames, name) in enumerate(((first, codec), (second, "libx264"))):
            stream = cast(av.VideoStream, container.add_stream(name, rate=24))
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuvj420p" if name == "mjpeg" else "yuv420p"
            stream.disposition = av.stream.Disposition.default if n == default else av.stream.Disposition(0)
            streams.append((stream, frames))
        for stream, frames in streams:
            for index, rgb in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 24)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("suffix", "default"), [("mp4", 0), ("mp4", 1), ("mkv", 0), ("mkv", 1), ("mkv", None)])
def test_the_default_video_stream_is_the_film_and_else_the_largest(tmp_path, suffix, default):
    small, large = [numbered(i, 32, 48) for i in range(24)], [numbered(100 + i) for i in range(24)]
    source = two_streams(tmp_path / f"v.{suffix}", small, large, -1 if default is None else default, "libx264")
    expected = (32, 48) if default == 0 else (H, W)
    made = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert (made.height, made.width) == expected
    with SourceReader(source) as reader:
        assert (reader.height, reader.width) == expected
        assert number_of(reader.read(7)) == 7 + (0 if default == 0 else 100)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_cover_picture_is_not_the_film(tmp_path, suffix):
    source = two_streams(
        tmp_path / f"v.{suffix}", [corners(128, 192)], [numbered(i) for i in range(48)], 0, codec="mjpeg"
    )
    made = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert (made.height, made.width, made.frame_count) == (H, W, 48)


def cut_between_keyframes(path: Path) -> Path:
    """A recording that begins in the middle of a group of pictures, as every capture of a broadcast does."""
    options = {"bf": "0", "x264-params": "keyint=48:min-keyint=48:scenecut=0"}
    whole = make(path.with_name("whole.ts"), [numbered(i) for i in range(144)], options=options)
    with av.open(str(whole)) as container:
        positions = [p.pos for p in container.demux(video=0) if p.size and p.pos is not None]
    path.write_bytes(whole.read_bytes()[positions[16] :])
    return path


def test_a_stream_that_was_cut_between_keyframes_begins_at_the_first_one(tmp_path):
    source = cut_between_keyframes(tmp_path / "v.ts")
    made = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert made.frame_count == 96
    assert len(made.changes) == 1 and made.changes[0].startswith("began at its first keyframe, 1.3")
    assert [number_of(rgb) for _, rgb in video.frames(tmp_path / "n.mp4")] == list(range(48, 144))
    with SourceReader(source) as reader:
        assert [number_of(reader.read(k)) for k in (95, 0, 50)] == [143, 48, 98] and reader.frame_count == 96


def joined(path: Path, second: tuple[int, int]) -> Path:
    """H.264 whose size changes after a second."""
    parts = []
    for n, (height, width) in enumerate(((H, W), second)):
        part = make(path.with_name(f"{n}.h264"), [numbered(i, height, width) for i in range(24)], options={"bf": "0"})
        parts.append(part.read_bytes())
    raw = path.with_name("raw.h264")
    raw.write_bytes(b"".join(parts))
    return raw


def test_a_picture_that_changes_its_shape_is_refused_and_another_size_is_scaled(tmp_path):
    with pytest.raises(Refused, match="96 x 96 px.*, the video began with 96 x 64") as error:
        normalise(joined(tmp_path / "v", (96, 96)), tmp_path / "n.mp4", limits=LIMITS)
    assert error.value.reason is Refusal.FAILED
    made = normalise(joined(tmp_path / "v", (2 * H, 2 * W)), tmp_path / "n.mp4", limits=LIMITS)
    shown = [number_of(rgb) for _, rgb in video.frames(tmp_path / "n.mp4")]  # raw H.264 counts as 25 fps
    assert (shown[0], shown[-1], len(shown)) == (0, 23, 46) and sorted(set(shown)) == list(range(24))
    assert (made.height, made.width) == (H, W)


def test_an_avi_with_b_frames_gives_all_its_frames_in_order(tmp_path):
    options = {"bf": "3", "x264-params": "b-adapt=0:keyint=24"}
    source = make(tmp_path / "v.avi", [numbered(i) for i in range(96)], options=options)
    made = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert (made.frame_count, made.variable_rate) == (96, False)
    assert [number_of(rgb) for _, rgb in video.frames(tmp_path / "n.mp4")] == list(range(96))
