"""Videos of every shape that people send, made here by PyAV, and the one shape that is stored."""

from __future__ import annotations

import hashlib
import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from storage import video
from storage.records import FPS, Refusal

SHARED = Path(__file__).parents[3] / "shared" / "data"
LIMITS = video.Limits(min_s=0.5, min_side_px=32)
H, W = 64, 96
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (230, 230, 230)}


def numbered(index: int, height: int = H, width: int = W) -> np.ndarray:
    """A frame that says which it is: eight blocks, light for the bits of `index` that are set."""
    rgb = np.full((height, width, 3), 40, dtype=np.uint8)
    for bit in range(8):
        if index >> bit & 1:
            rgb[height // 4 : 3 * height // 4, width * bit // 8 : width * (bit + 1) // 8] = 220
    return rgb


def number_of(rgb: np.ndarray) -> int:
    height, width = rgb.shape[:2]
    centre = rgb[height // 2 - 2 : height // 2 + 2].mean(axis=(0, 2))
    return sum(1 << bit for bit in range(8) if centre[int(width * (bit + 0.5) / 8)] > 130)


def corners(height: int = H, width: int = W) -> np.ndarray:
    """Red, green / blue, white: any turn or mirror shows."""
    rgb = np.zeros((height, width, 3), dtype=np.uint8)
    rgb[: height // 2, : width // 2] = COLOURS["red"]
    rgb[: height // 2, width // 2 :] = COLOURS["green"]
    rgb[height // 2 :, : width // 2] = COLOURS["blue"]
    rgb[height // 2 :, width // 2 :] = COLOURS["white"]
    return rgb


def corner_names(rgb: np.ndarray) -> list[str]:
    height, width = rgb.shape[:2]
    found = []
    for y, x in ((4, 4), (4, width - 5), (height - 5, 4), (height - 5, width - 5)):
        distances = {name: np.abs(rgb[y, x].astype(int) - colour).sum() for name, colour in COLOURS.items()}
        found.append(min(distances, key=distances.get))
    return found


def make(
    path: Path,
    frames: list[np.ndarray],
    *,
    times_ms: list[int] | None = None,
    fps: int = 24,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int | None = None,
    hflip: bool = False,
    sar: Fraction | None = None,
    audio_s: float = 0.0,
    faststart: bool = False,
    last_ms: int = 0,
) -> Path:
    """A stranger's video. last_ms: how long its last frame says it is shown."""
    options = {"movflags": "+faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000) if times_ms else Fraction(1, fps)
        if sar:
            stream.codec_context.sample_aspect_ratio = sar
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=hflip)
        sound = container.add_stream("aac", rate=16000) if audio_s else None
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = times_ms[index] if times_ms else index
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        rest = stream.encode(None)
        for packet in rest:
            if last_ms and packet.pts == max(p.pts for p in rest):
                packet.duration = last_ms
        container.mux(rest)
        if sound:
            for index in range(int(audio_s * 16000 / 1024)):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 16000, index * 1024
                container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return path


def refusal(path: Path, tmp_path: Path, limits: video.Limits = LIMITS) -> video.Refused:
    """What normalising says, having made sure that it leaves nothing behind."""
    target = tmp_path / "out" / "target.mp4"
    with pytest.raises(video.Refused) as caught:
        video.normalise(path, target, limits=limits)
    assert not target.exists()
    assert not target.parent.exists() or not list(target.parent.iterdir())
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return caught.value


# What is stored


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


def test_a_reader_gives_the_same_array_again_and_nobody_may_change_it(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(30)))
    with video.FrameReader(tmp_path / "v.mp4", keep=2) as reader:
        first = reader.read(5)
        assert reader.read(5) is first
        with pytest.raises(ValueError, match="read-only"):
            first[0, 0] = 0
        reader.read(6), reader.read(20)
        assert reader.read(5) is not first
        assert np.array_equal(reader.read(5), first)
        assert (reader.frame_count, reader.height, reader.width) == (30, H, W)


def test_a_reader_that_was_closed_gives_no_frame_and_harms_nobody(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(30)))
    reader = video.FrameReader(tmp_path / "v.mp4")
    reader.read(0)
    reader.close()
    reader.close()
    for frame_idx in (0, 1, 20):  # kept, next, and one to seek
        with pytest.raises(video.FrameUnreadable, match="closed"):
            reader.read(frame_idx)


@pytest.mark.parametrize("frame_idx", [-1, 30, 1000])
def test_a_frame_outside_the_video_is_a_value_error_that_says_which_there_are(tmp_path, frame_idx):
    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(30)))
    with pytest.raises(ValueError, match="frames 0 to 29"):
        video.frame_jpeg(tmp_path / "v.mp4", frame_idx)


def test_a_jpeg_shows_the_frame(tmp_path):
    import cv2

    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(30)))
    data = video.frame_jpeg(tmp_path / "v.mp4", 21)
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert number_of(decoded) == 21
    assert len(video.frame_jpeg(tmp_path / "v.mp4", 21, quality=20)) < len(data)


def test_a_stored_video_has_a_keyframe_every_12_frames_and_no_reordering(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i * 37 % 256) for i in range(40)))
    with av.open(str(tmp_path / "v.mp4")) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        assert [i for i, p in enumerate(packets) if p.is_keyframe] == [0, 12, 24, 36]
        assert [p.pts for p in packets] == [p.dts for p in packets]
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.codec_context.name, stream.pix_fmt) == (24, "h264", "yuv420p")
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


def test_reading_what_is_not_a_video_is_an_error_of_ours(tmp_path):
    (tmp_path / "v.mp4").write_text("no")
    with pytest.raises(video.FrameUnreadable, match="v.mp4"):
        video.frame_jpeg(tmp_path / "v.mp4", 0)
    with pytest.raises(video.FrameUnreadable, match="v2.mp4"):
        video.frame_jpeg(tmp_path / "v2.mp4", 0)


def test_a_damaged_stored_video_says_which_frame_is_missing(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i * 37 % 256) for i in range(48)))
    data = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "v.mp4").write_bytes(data[: len(data) * 2 // 3])
    with video.FrameReader(tmp_path / "v.mp4") as reader:
        assert number_of(reader.read(0)) == 0
        with pytest.raises(video.FrameUnreadable, match="frame 47"):
            reader.read(47)
        assert number_of(reader.read(1)) == 37


# Normalising


def test_a_video_that_is_already_right_keeps_its_frames(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(48)))
    done = video.normalise(tmp_path / "v.mp4", tmp_path / "n.mp4", limits=LIMITS)
    assert (done.height, done.width, done.frame_count, done.duration_s) == (H, W, 48, 2.0)
    assert (done.source_fps, done.variable_rate, done.rotation) == (pytest.approx(24), False, 0)
    assert done.timestamps == tuple(round(i / 24, 6) for i in range(48))
    assert [number_of(rgb) for _, rgb in video.frames(tmp_path / "n.mp4")] == list(range(48))


def test_normalising_twice_gives_the_same_bytes(tmp_path):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(30)], fps=30)
    hashes = set()
    for name in ("a.mp4", "b.mp4"):
        video.normalise(source, tmp_path / name, limits=LIMITS)
        hashes.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(hashes) == 1


@pytest.mark.parametrize("fps", [10, 15, 25, 30, 60])
def test_every_output_frame_is_the_nearest_source_frame(tmp_path, fps):
    count = 2 * fps
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(count)], fps=fps)
    done = video.normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert done.frame_count == 48
    assert done.source_fps == pytest.approx(fps)
    assert not done.variable_rate
    for k, rgb in video.frames(tmp_path / "n.mp4"):
        shown = number_of(rgb)
        assert abs(shown / fps - k / FPS) <= 0.5 / fps + 1e-6 or shown == count - 1
        assert done.timestamps[k] == pytest.approx(shown / fps, abs=1e-3)


def test_a_variable_rate_is_resampled_by_time(tmp_path):
    times_ms = [0, 40, 80, 480, 500, 520, 1500, 1540, 1580, 1990]
    source = make(tmp_path / "v.mkv", [numbered(i) for i in range(10)], times_ms=times_ms, codec="libx264")
    assert video.probe(source).variable_rate
    done = video.normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert done.variable_rate
    for k, rgb in video.frames(tmp_path / "n.mp4"):
        distance = [abs(t / 1000 - k / FPS) for t in times_ms]
        assert distance[number_of(rgb)] <= min(distance) + 1e-6
        assert done.timestamps[k] == times_ms[number_of(rgb)] / 1000
    assert done.frame_count == round((1990 + 1990 / 9) / 1000 * 24)


def test_a_rate_rounded_to_milliseconds_is_not_variable(tmp_path):
    times_ms = [round(i * 1000 / 29.97) for i in range(40)]
    source = make(tmp_path / "v.mkv", [numbered(i) for i in range(40)], times_ms=times_ms)
    assert not video.probe(source).variable_rate
    assert not video.normalise(source, tmp_path / "n.mp4", limits=LIMITS).variable_rate


@pytest.mark.parametrize(
    ("matrix_ccw", "hflip", "clockwise", "expected"),
    [
        (0, False, 0, ["red", "green", "blue", "white"]),
        (-90, False, 90, ["blue", "red", "white", "green"]),
        (180, False, 180, ["white", "blue", "green", "red"]),
        (90, False, 270, ["green", "white", "red", "blue"]),
    ],
)
def test_a_rotation_in_the_container_is_applied_to_the_pixels(tmp_path, matrix_ccw, hflip, clockwise, expected):
    source = make(tmp_path / "v.mp4", [corners()] * 24, rotation=matrix_ccw, hflip=hflip)
    probed = video.probe(source)
    done = video.normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert done.rotation == probed.rotation == clockwise
    upright = (W, H) if clockwise in (90, 270) else (H, W)
    assert (done.height, done.width) == (probed.height, probed.width) == upright
    _, rgb = next(video.frames(tmp_path / "n.mp4"))
    assert corner_names(rgb) == expected
    assert video.probe(tmp_path / "n.mp4").rotation == 0


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_mirrored_picture_is_mirrored_back(tmp_path, degrees):
    """The matrix turns, then mirrors left and right."""
    source = make(tmp_path / "v.mp4", [corners()] * 24, rotation=-degrees, hflip=True)
    video.normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    _, rgb = next(video.frames(tmp_path / "n.mp4"))
    assert corner_names(rgb) == corner_names(np.rot90(corners(), -degrees // 90)[:, ::-1])


def test_odd_sides_lose_their_last_row_and_column_and_nothing_else(tmp_path):
    odd = np.full((65, 97, 3), 40, dtype=np.uint8)
    odd[:, 48:] = 220
    odd[64], odd[:, 96] = (255, 0, 0), (255, 0, 0)
    source = make(tmp_path / "v.mkv", [odd] * 24, codec="ffv1", pix_fmt="yuv444p")
    probed = video.probe(source)
    done = video.normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert (done.height, done.width) == (probed.height, probed.width) == (64, 96)
    _, rgb = next(video.frames(tmp_path / "n.mp4"))
    row = rgb[32].astype(int).mean(axis=1)
    assert abs(row[40] - 40) < 8 and abs(row[47] - 40) < 24  # the edge stays where it was: not scaled
    assert abs(row[48] - 220) < 24 and abs(row[90] - 220) < 8
    assert (rgb[62, 90].astype(int) > 180).all()


def test_pixels_that_are_not_square_become_square(tmp_path):
    source = make(tmp_path / "v.mp4", [corners()] * 24, sar=Fraction(4, 3))
    done = video.normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert (done.height, done.width) == (H, 128)
    assert corner_names(next(video.frames(tmp_path / "n.mp4"))[1]) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "yuv444p", "yuv422p10le", "bgr0"])
def test_other_pixel_formats_keep_their_colours(tmp_path, pix_fmt):
    codec = "mjpeg" if pix_fmt == "yuvj420p" else "ffv1"
    source = make(tmp_path / "v.mkv", [corners()] * 24, codec=codec, pix_fmt=pix_fmt)
    video.normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    _, rgb = next(video.frames(tmp_path / "n.mp4"))
    assert np.abs(rgb[5, 5].astype(int) - COLOURS["red"]).max() <= 16
    assert np.abs(rgb[-5, -5].astype(int) - COLOURS["white"]).max() <= 10


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("avi", "mpeg4"),
        ("webm", "libvpx"),
        ("mov", "libx264"),
        ("ts", "mpeg2video"),
        ("mkv", "libx264"),
        ("flv", "flv"),
    ],
)
def test_the_common_containers_give_all_their_frames(tmp_path, suffix, codec):
    source = make(tmp_path / f"v.{suffix}", [numbered(i) for i in range(48)], codec=codec)
    probed = video.probe(source)
    assert (probed.frame_count, probed.fps) == (48, pytest.approx(24, abs=0.1))
    assert probed.duration_s == pytest.approx(2, abs=0.1)
    done = video.normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert (done.frame_count, done.variable_rate) == (48, False)
    assert [number_of(rgb) for _, rgb in video.frames(tmp_path / "n.mp4")] == list(range(48))


def test_sound_is_dropped_and_may_be_longer_than_the_picture(tmp_path):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(48)], audio_s=6.0)
    assert video.probe(source).has_audio
    done = video.normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert done.frame_count == 48
    with av.open(str(tmp_path / "n.mp4")) as container:
        assert len(container.streams) == 1


def test_probe_describes_without_decoding(tmp_path):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(60)], fps=30)
    probed = video.probe(source)
    assert (probed.height, probed.width, probed.frame_count, probed.codec) == (H, W, 60, "h264")
    assert (probed.fps, probed.duration_s) == (pytest.approx(30), pytest.approx(2))
    assert (probed.has_audio, probed.variable_rate, probed.rotation) == (False, False, 0)


def test_progress_counts_up_to_what_was_expected(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(48)))
    seen = []
    video.normalise(
        tmp_path / "v.mp4",
        tmp_path / "n.mp4",
        limits=LIMITS,
        progress=lambda done, expected: seen.append((done, expected)),
    )
    assert seen == [(i, 48) for i in range(1, 49)]


def test_an_interrupted_normalisation_leaves_nothing_behind(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(48)))

    def stop(done, expected):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.normalise(tmp_path / "v.mp4", tmp_path / "out" / "n.mp4", limits=LIMITS, progress=stop)
    assert list((tmp_path / "out").iterdir()) == []


# Refusals


def test_zero_bytes_are_unreadable(tmp_path):
    (tmp_path / "v.mp4").touch()
    assert refusal(tmp_path / "v.mp4", tmp_path).reason is Refusal.UNREADABLE
    with pytest.raises(video.Refused, match="zero bytes"):
        video.probe(tmp_path / "v.mp4")


@pytest.mark.parametrize(
    "text", ["Just some text.\n" * 100, "#EXTM3U\n#EXTINF:10,\nsecret.ts\n", "ffconcat version 1.0\nfile a.mp4\n"]
)
def test_text_named_mp4_is_unreadable_and_opens_nothing_else(tmp_path, text):
    (tmp_path / "v.mp4").write_text(text)
    video.write(tmp_path / "a.mp4", (numbered(i) for i in range(48)))
    assert refusal(tmp_path / "v.mp4", tmp_path).reason is Refusal.UNREADABLE


def test_a_file_that_is_absent_or_a_folder_is_unreadable(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    assert refusal(tmp_path / "folder.mp4", tmp_path).reason is Refusal.UNREADABLE
    assert refusal(tmp_path / "absent.mp4", tmp_path).reason is Refusal.UNREADABLE


def test_sound_alone_has_no_video_stream(tmp_path):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        for index in range(40):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 16000, index * 1024
            container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    assert refusal(path, tmp_path).reason is Refusal.NO_VIDEO_STREAM


def test_a_still_picture_has_no_video_stream(tmp_path):
    import cv2

    for name in ("a.png", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), corners())
        assert refusal(tmp_path / name, tmp_path).reason is Refusal.NO_VIDEO_STREAM


def test_a_single_frame_is_too_short(tmp_path):
    source = make(tmp_path / "v.mp4", [numbered(0)])
    assert refusal(source, tmp_path).reason is Refusal.TOO_SHORT


def test_a_truncated_file_is_refused_with_how_far_it_got(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (H, W, 3), dtype=np.uint8) for _ in range(72)]
    source = make(tmp_path / "v.mp4", noise, faststart=True)
    data = source.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    refused = refusal(tmp_path / "cut.mp4", tmp_path)
    assert refused.reason is Refusal.TRUNCATED
    assert "of 3.00 s" in refused.detail or "of 72 frames" in refused.detail


def test_a_still_ending_is_no_truncation(tmp_path):
    times = [100 * i for i in range(40)]
    source = make(tmp_path / "v.mkv", [numbered(i) for i in range(40)], times_ms=times, last_ms=1500)
    made = video.normalise(source, tmp_path / "target.mp4", limits=LIMITS)
    assert made.duration_s == 4.0
    (tmp_path / "cut.mkv").write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert refusal(tmp_path / "cut.mkv", tmp_path).reason is Refusal.TRUNCATED


def test_pictures_that_begin_after_their_sound_are_no_truncation(tmp_path):
    times = [4000 + 42 * i for i in range(48)]
    source = make(tmp_path / "v.mkv", [numbered(i) for i in range(48)], times_ms=times, audio_s=6.0)
    assert video.normalise(source, tmp_path / "target.mp4", limits=LIMITS).frame_count == 48
    assert video.probe(source).duration_s == pytest.approx(2.0, abs=0.1)


def test_a_clock_that_goes_back_is_refused_and_no_half_of_a_video_admitted(tmp_path):
    once = make(tmp_path / "once.ts", [numbered(i) for i in range(48)]).read_bytes()
    (tmp_path / "twice.ts").write_bytes(once + once)
    refused = refusal(tmp_path / "twice.ts", tmp_path)
    assert refused.reason is Refusal.FAILED and "not after the frame before" in refused.detail
    assert video.normalise(tmp_path / "once.ts", tmp_path / "target.mp4", limits=LIMITS).frame_count == 48


def test_a_file_cut_before_its_index_is_unreadable(tmp_path):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(72)])
    (tmp_path / "cut.mp4").write_bytes(source.read_bytes()[:-2000])
    assert refusal(tmp_path / "cut.mp4", tmp_path).reason in (Refusal.UNREADABLE, Refusal.TRUNCATED)


def test_a_few_broken_packets_are_no_reason_to_refuse(tmp_path):
    rng = np.random.default_rng(0)
    source = make(
        tmp_path / "v.mp4",
        [rng.integers(0, 255, (H, W, 3), dtype=np.uint8) for _ in range(72)],
        codec="mjpeg",
        pix_fmt="yuvj420p",
    )
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(600)
    (tmp_path / "dented.mp4").write_bytes(data)
    assert video.normalise(tmp_path / "dented.mp4", tmp_path / "n.mp4", limits=LIMITS).frame_count >= 70


def test_garbage_in_most_packets_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    source = make(tmp_path / "v.mp4", [rng.integers(0, 255, (H, W, 3), dtype=np.uint8) for _ in range(48)])
    data = bytearray(source.read_bytes())
    start, end = data.index(b"mdat") + 2000, len(data) - 4000
    data[start:end] = rng.integers(0, 255, end - start, dtype=np.uint8).tobytes()
    (tmp_path / "broken.mp4").write_bytes(data)
    assert refusal(tmp_path / "broken.mp4", tmp_path).reason in (Refusal.TRUNCATED, Refusal.UNREADABLE)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (video.Limits(min_s=3.0, min_side_px=32), Refusal.TOO_SHORT),
        (video.Limits(max_s=1.0, min_side_px=32), Refusal.TOO_LONG),
        (video.Limits(min_side_px=65), Refusal.TOO_SMALL),
        (video.Limits(min_side_px=32, max_side_px=95), Refusal.TOO_LARGE),
    ],
)
def test_limits_refuse_with_their_own_reason(tmp_path, limits, reason):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(48)])
    assert refusal(source, tmp_path, limits).reason is reason


def test_a_refusal_survives_being_sent_between_processes():
    again = pickle.loads(pickle.dumps(video.Refused(Refusal.TOO_SHORT, "v.mp4: one frame")))
    assert (again.reason, again.detail, str(again)) == (
        Refusal.TOO_SHORT,
        "v.mp4: one frame",
        "too_short: v.mp4: one frame",
    )


def test_nothing_is_printed_about_broken_files(tmp_path, capfd):
    make(tmp_path / "v.mp4", [numbered(i) for i in range(72)], faststart=True)
    data = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.mp4").write_text("text")
    capfd.readouterr()
    for name in ("cut.mp4", "text.mp4"):
        with pytest.raises(video.Refused):
            video.normalise(tmp_path / name, tmp_path / "n.mp4", limits=LIMITS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not (SHARED / "01_dog.mp4").exists(), reason="the real videos are not here")
def test_a_real_video_at_29_97_fps_becomes_24_fps(tmp_path):
    source = tmp_path / "dog.mp4"
    with av.open(str(SHARED / "01_dog.mp4")) as real, av.open(str(source), "w") as beginning:
        stream = beginning.add_stream_from_template(real.streams.video[0])
        for packet in real.demux(video=0):
            if packet.is_keyframe and packet.pts * packet.time_base > 1:
                break
            packet.stream = stream
            beginning.mux(packet)
    probed = video.probe(source)
    done = video.normalise(source, tmp_path / "n.mp4")
    assert (probed.fps, done.source_fps) == (pytest.approx(29.97, abs=0.01), pytest.approx(29.97, abs=0.01))
    assert done.frame_count == round(probed.duration_s * 24)
    assert (done.height, done.width, done.variable_rate) == (720, 1280, False)
    assert max(abs(t - k / 24) for k, t in enumerate(done.timestamps)) <= 0.5 / 29.97 + 1e-3
