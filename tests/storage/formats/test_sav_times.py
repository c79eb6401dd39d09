"""Where the masks of an SA-V annotation belong: by the video's real times, by stated figures, or nowhere."""

import numpy as np
import pytest

from storage.formats.sav_times import Timing, placed

EVERY_4TH = [4 * t for t in range(24)]


def steady(count, fps):
    return Timing.of([k / fps for k in range(count)])


def uneven(count):
    times = np.cumsum([0, *np.random.default_rng(3).integers(10, 130, count - 1)]) / 1000
    return Timing.of(times.tolist())


def near_24(count):
    """24 frames a second on the whole: the first half is slower, the second half faster."""
    intervals = np.repeat([1.4 / 24, 0.6 / 24], count // 2)
    return Timing.of(np.cumsum([0, *intervals[:-1]]).tolist())


@pytest.mark.parametrize(
    ("count", "frame_count", "duration_s", "timing", "expected"),
    [
        (24, 96, 4.0, steady(96, 24), EVERY_4TH),
        (24, 96, 0, steady(96, 24), EVERY_4TH),  # the duration is not stated
        (24, 0, 4.0, steady(96, 24), EVERY_4TH),
        (25, 0, 0, steady(96, 24), [*EVERY_4TH, 96]),  # one too many
        (24, 96, 4.0, steady(100, 25), EVERY_4TH),  # annotated on a version at 24 fps
        (24, 0, 0, steady(100, 25), EVERY_4TH),
        (25, 0, 0, steady(100, 25), [0, 4, 8, 12, 15, 19, 23, 27, 31, 35, 38]),
        (25, 99, 4.0, steady(100, 25), [0, 4, 8, 12, 15, 19, 23, 27, 31, 35, 38]),  # one frame fewer than we read
        (360, 1440, 60.06, steady(1440, 23.976), EVERY_4TH),
        (360, 1440, 60.0, steady(1438, 23.976), EVERY_4TH),  # annotated on a version at 24 fps
        (5, 17, 0, Timing.of([*[k / 24 for k in range(17)], 0.68]), EVERY_4TH[:5]),  # both readings agree
        (24, 48, 4.0, steady(48, 12), EVERY_4TH),  # each frame is shown twice
    ],
)
def test_annotated_frames_are_placed_where_the_video_shows_them(count, frame_count, duration_s, timing, expected):
    assert list(placed(count, frame_count, duration_s, timing).values())[: len(expected)] == expected


@pytest.mark.parametrize("lost", [1, 22, 50, 94])
def test_a_dropped_frame_moves_no_mask(lost):
    times = [k / 24 for k in range(96) if k != lost]
    numbered_by_file = placed(24, 95, 4.0, Timing.of(times))
    assert [round(24 * times[4 * t]) for t in numbered_by_file] == list(numbered_by_file.values())
    assert list(placed(24, 96, 4.0, Timing.of(times)).values()) == EVERY_4TH  # numbered before the loss


@pytest.mark.parametrize("lost", [22, 25])
def test_a_dropped_frame_at_another_rate_moves_no_mask(lost):
    times = [k / 30 for k in range(120) if k != lost]
    at = placed(24, 120, 4.0, Timing.of(times))
    assert at == {t: 4 * t for t in range(24) if 5 * t != lost}


def test_two_frames_with_one_time_count_as_two():
    times = [k / 24 for k in range(40)] + [39 / 24] + [k / 24 for k in range(40, 96)]
    at = placed(25, 97, 4.0, Timing.of(times))
    assert [round(24 * times[4 * t]) for t in at] == list(at.values()) and at[11] == 43


@pytest.mark.parametrize(
    ("count", "frame_count", "duration_s", "timing", "says"),
    [
        (23, 0, 0, steady(100, 25), "23 annotated frames without 'video_frame_count', the video has 100 in 4 s, 96 at"),
        (15, 60, 0, steady(100, 25), "60 frames annotated, the video has 100 in 4 s, 96 at 24 fps"),
        (20, 80, 3.9, uneven(60), "80 frames in 3.9 s annotated, the video has 60 at a variable rate in 3.9"),
        (25, 100, 4.0, steady(96, 25), "100 frames in 4 s annotated, the video has 96 in 3.83333 s"),  # 4 are hidden
        (25, 100, 3.96, steady(96, 25), "100 frames in 3.96 s annotated, the video has 96 in 3.83333 s"),
        (24, 96, 4.0, steady(100, 24), "96 frames in 4 s annotated, the video has 100 in 4.16"),
        (15, 59, 2.5, near_24(60), "59 frames in 2.5 s annotated, the video has 60 at a variable rate in 2.5 s, 60 at"),
        (15, 59, 0, near_24(60), "59 frames annotated, the video has 60 at a variable rate in 2.5 s, 60 at 24 fps"),
        (15, 61, 2.5, near_24(60), "61 frames in 2.5 s annotated, the video has 60 at a variable rate in 2.5 s"),
        (24, 96, 4.0, steady(200, 25), "24 annotated frames in 4 s, the video has 8 s"),
        (70, 100, 4.0, steady(100, 25), "70 annotated frames are not every k-th of 100 frames in 4 s"),
        (24, 0, 4.0, Timing(frame_count=96, variable_rate=False), "the video has 96 at 24 fps in 4 s: which frames"),
    ],
)
def test_figures_that_do_not_tell_which_frames_were_annotated_are_an_error(
    count, frame_count, duration_s, timing, says
):
    with pytest.raises(ValueError, match=says):
        placed(count, frame_count, duration_s, timing)
