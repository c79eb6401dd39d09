"""Videos of every kind become 24 fps H.264, or are refused with a reason."""

from __future__ import annotations

import hashlib
import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from storage.records import FPS, Refusal
from storage.videos import video
from storage.videos.normalise import Limits, normalise
from storage.videos.source_file import Refused, is_encrypted
from storage.videos.upright import Upright
from tests.shared import SHARED
from tests.storage.made_videos import COLOURS, H, W, corner_names, corners, make, number_of, numbered

LIMITS = Limits(min_s=0.5, min_side_px=32)


def refusal(path: Path, tmp_path: Path, limits: Limits = LIMITS) -> Refused:
    """The refusal of a file. Checks that no file is left behind."""
    target = tmp_path / "out" / "target.mp4"
    with pytest.raises(Refused) as caught:
        normalise(path, target, limits=limits)
    assert not target.exists()
    assert not target.parent.exists() or not list(target.parent.iterdir())
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return caught.value


def test_a_video_that_is_already_right_keeps_its_frames(tmp_path):
    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(48)))
    done = normalise(tmp_path / "v.mp4", tmp_path / "n.mp4", limits=LIMITS)
    assert (done.height, done.width, done.frame_count, done.duration_s) == (H, W, 48, 2.0)
    assert done.source_fps == pytest.approx(24) and (done.variable_rate, done.rotation) == (False, 0)
    assert done.timestamps == done.source_s == tuple(round(i / 24, 6) for i in range(48))
    assert [number_of(rgb) for _, rgb in video.frames(tmp_path / "n.mp4")] == list(range(48))


def test_normalising_twice_gives_the_same_bytes(tmp_path):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(30)], fps=30)
    hashes = set()
    for name in ("a.mp4", "b.mp4"):
        normalise(source, tmp_path / name, limits=LIMITS)
        hashes.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(hashes) == 1


@pytest.mark.parametrize("fps", [10, 15, 25, 30, 60])
def test_every_output_frame_is_the_nearest_source_frame(tmp_path, fps):
    count = 2 * fps
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(count)], fps=fps)
    done = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
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
    done = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert done.variable_rate
    for k, rgb in video.frames(tmp_path / "n.mp4"):
        distance = [abs(t / 1000 - k / FPS) for t in times_ms]
        assert distance[number_of(rgb)] <= min(distance) + 1e-6
        assert done.timestamps[k] == times_ms[number_of(rgb)] / 1000
    assert done.frame_count == round((1990 + 1990 / 9) / 1000 * 24)


def test_a_rate_rounded_to_milliseconds_is_not_variable(tmp_path):
    times_ms = [round(i * 1000 / 29.97) for i in range(40)]
    source = make(tmp_path / "v.mkv", [numbered(i) for i in range(40)], times_ms=times_ms)
    assert not normalise(source, tmp_path / "n.mp4", limits=LIMITS).variable_rate


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
    done = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert done.rotation == clockwise
    upright = (W, H) if clockwise in (90, 270) else (H, W)
    assert (done.height, done.width) == upright
    _, rgb = next(video.frames(tmp_path / "n.mp4"))
    assert corner_names(rgb) == expected
    assert normalise(tmp_path / "n.mp4", tmp_path / "again.mp4", limits=LIMITS).rotation == 0


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_mirrored_picture_is_mirrored_back(tmp_path, degrees):
    """The matrix turns, then mirrors left and right."""
    source = make(tmp_path / "v.mp4", [corners()] * 24, rotation=-degrees, hflip=True)
    normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    _, rgb = next(video.frames(tmp_path / "n.mp4"))
    assert corner_names(rgb) == corner_names(np.rot90(corners(), -degrees // 90)[:, ::-1])


def test_an_encrypted_video_is_told_from_a_truncated_one(tmp_path):
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "7" * 32, "encryption_kid": "a" * 32}
    clear = make(tmp_path / "clear.mp4", [numbered(i) for i in range(48)])
    with av.open(str(clear)) as of, av.open(str(tmp_path / "locked.mp4"), "w", options=key) as to:
        stream = to.add_stream_from_template(of.streams.video[0])
        for packet in of.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                to.mux(packet)
    with pytest.raises(Refused) as caught:
        normalise(tmp_path / "locked.mp4", tmp_path / "n.mp4", limits=Limits(min_s=0.5))
    assert str(caught.value) == "encrypted: locked.mp4: its video is encrypted"
    assert not is_encrypted(clear)
    for head in (b"", b"\0\0\0", b"\0\0\0\0moov", b"\0\0\0\1mdat", b"\0\0\0\4free" * 9, b"RIFF" * 9):
        (tmp_path / "odd").write_bytes(head)
        assert not is_encrypted(tmp_path / "odd")


def test_odd_sides_lose_their_last_row_and_column_and_nothing_else(tmp_path):
    odd = np.full((65, 97, 3), 40, dtype=np.uint8)
    odd[:, 48:] = 220
    odd[64], odd[:, 96] = (255, 0, 0), (255, 0, 0)
    source = make(tmp_path / "v.mkv", [odd] * 24, codec="ffv1", pix_fmt="yuv444p")
    done = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert (done.height, done.width) == (64, 96)
    _, rgb = next(video.frames(tmp_path / "n.mp4"))
    row = rgb[32].astype(int).mean(axis=1)
    assert abs(row[40] - 40) < 8 and abs(row[47] - 40) < 24  # the edge stays where it was: not scaled
    assert abs(row[48] - 220) < 24 and abs(row[90] - 220) < 8
    assert (rgb[62, 90].astype(int) > 180).all()


def test_pixels_that_are_not_square_become_square(tmp_path):
    source = make(tmp_path / "v.mp4", [corners()] * 24, sar=Fraction(4, 3))
    done = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert (done.height, done.width) == (H, 128)
    assert corner_names(next(video.frames(tmp_path / "n.mp4"))[1]) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "yuv444p", "yuv422p10le", "bgr0"])
def test_other_pixel_formats_keep_their_colours(tmp_path, pix_fmt):
    codec = "mjpeg" if pix_fmt == "yuvj420p" else "ffv1"
    source = make(tmp_path / "v.mkv", [corners()] * 24, codec=codec, pix_fmt=pix_fmt)
    normalise(source, tmp_path / "n.mp4", limits=LIMITS)
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
    done = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert (done.frame_count, done.variable_rate, done.duration_s) == (48, False, 2.0)
    assert done.source_fps == pytest.approx(24, abs=0.1)
    assert [number_of(rgb) for _, rgb in video.frames(tmp_path / "n.mp4")] == list(range(48))


def test_sound_is_dropped_and_may_be_longer_than_the_picture(tmp_path):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(48)], audio_s=6.0)
    with av.open(str(source)) as container:
        assert len(container.streams) == 2
    done = normalise(source, tmp_path / "n.mp4", limits=LIMITS)
    assert done.frame_count == 48
    with av.open(str(tmp_path / "n.mp4")) as container:
        assert len(container.streams) == 1


def test_an_interrupted_normalisation_leaves_nothing_behind(tmp_path, monkeypatch):
    video.write(tmp_path / "v.mp4", (numbered(i) for i in range(48)))
    written = []

    def interrupted(upright, frame):
        written.append(frame)
        if len(written) == 20:
            raise KeyboardInterrupt
        return real(upright, frame)

    real = Upright.__call__
    monkeypatch.setattr(Upright, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        normalise(tmp_path / "v.mp4", tmp_path / "out" / "n.mp4", limits=LIMITS)
    assert list((tmp_path / "out").iterdir()) == []


# Refusals


def test_zero_bytes_are_unreadable(tmp_path):
    (tmp_path / "v.mp4").touch()
    refused = refusal(tmp_path / "v.mp4", tmp_path)
    assert refused.reason is Refusal.UNREADABLE and "zero bytes" in refused.detail


@pytest.mark.parametrize(
    "text", ["Just some text.\n" * 100, "#EXTM3U\n#EXTINF:10,\nsecret.ts\n", "ffconcat version 1.0\nfile a.mp4\n"]
)
def test_text_named_mp4_is_unreadable_and_opens_nothing_else(tmp_path, text):
    (tmp_path / "v.mp4").write_text(text)
    video.write(tmp_path / "a.mp4", (numbered(i) for i in range(48)))
    assert refusal(tmp_path / "v.mp4", tmp_path).reason is Refusal.UNREADABLE


def test_a_missing_file_and_a_folder_are_unreadable(tmp_path):
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


def test_a_long_last_frame_is_not_a_truncation(tmp_path):
    times = [100 * i for i in range(40)]
    source = make(tmp_path / "v.mkv", [numbered(i) for i in range(40)], times_ms=times, last_ms=1500)
    made = normalise(source, tmp_path / "target.mp4", limits=LIMITS)
    assert made.duration_s == 4.0
    (tmp_path / "cut.mkv").write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert refusal(tmp_path / "cut.mkv", tmp_path).reason is Refusal.TRUNCATED


def test_pictures_that_begin_after_their_sound_are_not_truncated(tmp_path):
    times = [4000 + 42 * i for i in range(48)]
    source = make(tmp_path / "v.mkv", [numbered(i) for i in range(48)], times_ms=times, audio_s=6.0)
    assert normalise(source, tmp_path / "target.mp4", limits=LIMITS).frame_count == 48


def test_a_clock_that_goes_back_is_refused_with_the_whole_video(tmp_path):
    once = make(tmp_path / "once.ts", [numbered(i) for i in range(48)]).read_bytes()
    (tmp_path / "twice.ts").write_bytes(once + once)
    refused = refusal(tmp_path / "twice.ts", tmp_path)
    assert refused.reason is Refusal.FAILED and "not after the frame before" in refused.detail
    assert normalise(tmp_path / "once.ts", tmp_path / "target.mp4", limits=LIMITS).frame_count == 48


def test_a_file_cut_before_its_index_is_unreadable(tmp_path):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(72)])
    (tmp_path / "cut.mp4").write_bytes(source.read_bytes()[:-2000])
    assert refusal(tmp_path / "cut.mp4", tmp_path).reason in (Refusal.UNREADABLE, Refusal.TRUNCATED)


def test_a_few_broken_packets_are_accepted(tmp_path):
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
    assert normalise(tmp_path / "dented.mp4", tmp_path / "n.mp4", limits=LIMITS).frame_count >= 70


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
        (Limits(min_s=3.0, min_side_px=32), Refusal.TOO_SHORT),
        (Limits(max_s=1.0, min_side_px=32), Refusal.TOO_LONG),
        (Limits(min_side_px=65), Refusal.TOO_SMALL),
        (Limits(min_side_px=32, max_side_px=95), Refusal.TOO_LARGE),
    ],
)
def test_limits_refuse_with_their_own_reason(tmp_path, limits, reason):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(48)])
    assert refusal(source, tmp_path, limits).reason is reason


def test_a_refusal_survives_being_sent_between_processes():
    again = pickle.loads(pickle.dumps(Refused(Refusal.TOO_SHORT, "v.mp4: one frame")))
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
        with pytest.raises(Refused):
            normalise(tmp_path / name, tmp_path / "n.mp4", limits=LIMITS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not (SHARED / "01_dog.mp4").exists(), reason="the real videos are not here")
def test_a_real_video_at_29_97_fps_becomes_24_fps(tmp_path):
    source = tmp_path / "dog.mp4"
    with av.open(str(SHARED / "01_dog.mp4")) as real, av.open(str(source), "w") as beginning:
        stream = beginning.add_stream_from_template(real.streams.video[0])
        packets = 0
        for packet in real.demux(video=0):
            if packet.is_keyframe and (packet.pts or 0) * packet.time_base > 1:
                break
            packets += 1
            packet.stream = stream
            beginning.mux(packet)
    done = normalise(source, tmp_path / "n.mp4")
    assert done.source_fps == pytest.approx(29.97, abs=0.01)
    assert done.frame_count == round(packets / 29.97 * 24)
    assert (done.height, done.width, done.variable_rate) == (720, 1280, False)
    assert max(abs(t - k / 24) for k, t in enumerate(done.timestamps)) <= 0.5 / 29.97 + 1e-3
