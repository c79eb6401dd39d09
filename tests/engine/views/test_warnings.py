"""Masks that look wrong, over a whole release."""

from tests.engine.views.small_releases import masklet_of, publish, track
from validation import mask_warnings
from validation.mask_warnings import Thresholds


def test_a_sample_is_spread_over_the_release_and_a_file_that_cannot_be_read_is_skipped(s):
    flicker = track(0, 0, None, 0, 0, 0)
    rows = [masklet_of(f"m{n}", flicker, video_id=f"v{n // 3}") for n in range(6)]
    release = publish(s, rows)
    every = mask_warnings.of_release(release, Thresholds())
    assert (every.checked, every.frames["flicker"]) == (6, 6)
    few = mask_warnings.of_release(release, Thresholds(), most=2)
    assert (few.checked, [line.partition(",")[0] for line in few.examples["flicker"]]) == (2, ["m0", "m3"])
    s.blobs.write(next(release.files("masklets")).key, b"nothing")
    assert mask_warnings.of_release(release, Thresholds()).checked == 3
