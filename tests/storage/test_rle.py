"""Masks as run lengths: a round trip changes nothing, and no input can crash the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pycocotools.mask as coco
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from storage import rle
from tests.shared import SHARED

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@settings(deadline=None)
@given(masks)
def test_a_mask_survives_the_round_trip(mask):
    height, width = mask.shape
    counts = rle.encode(mask)
    assert np.array_equal(rle.decode(counts, height, width), mask)
    assert rle.area(counts, height, width) == mask.sum()
    assert rle.problem(counts, height, width) is None


@settings(deadline=None)
@given(masks)
def test_spans_are_the_pixels_of_the_object(mask):
    height, width = mask.shape
    spans = rle.spans(rle.encode(mask), height, width)
    found = np.zeros(height * width, dtype=bool)
    for first, end in spans:
        assert first < end
        found[first:end] = True
    assert np.array_equal(found.reshape(width, height).T, mask)
    assert np.array_equal(np.sort(spans.ravel()), spans.ravel())


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@settings(deadline=None)
@given(masks)
def test_decoding_agrees_with_pycocotools(mask):
    counts = rle.encode(mask)
    theirs = coco.decode({"size": list(mask.shape), "counts": counts})
    assert np.array_equal(rle.decode(counts, *mask.shape), theirs.astype(bool))


@given(st.binary(max_size=40), st.integers(-1, 50), st.integers(-1, 50))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_checked_without_harm(counts, height, width):
    problem = rle.problem(counts, height, width)
    if problem is None:
        assert rle.encode(rle.decode(counts, height, width)) is not None
    else:
        assert "\n" not in problem
        for function in (rle.decode, rle.area):
            with pytest.raises(rle.BadRle):
                function(counts, height, width)


@settings(deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=12))
def test_every_wrong_total_is_refused(runs):
    height, width = 20, 20
    counts = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"]
    assert (rle.problem(counts, height, width) is None) == (sum(runs) == height * width)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 5), (480, 640)])
@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks_of_any_shape(shape, value):
    mask = np.full(shape, value)
    counts = rle.encode(mask)
    assert np.array_equal(rle.decode(counts, *shape), mask)
    assert rle.area(counts, *shape) == (mask.size if value else 0)
    if not value:
        assert rle.empty(*shape) == counts


@pytest.mark.parametrize("at", [(0, 0), (0, 8), (6, 0), (6, 8), (3, 4)])
def test_a_single_pixel_stays_where_it_is(at):
    mask = np.zeros((7, 9), dtype=bool)
    mask[at] = True
    assert np.argwhere(rle.decode(rle.encode(mask), 7, 9)).tolist() == [list(at)]


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_memory_order_of_a_mask_does_not_matter(order):
    mask = np.asarray(np.arange(35).reshape(5, 7) % 3 == 0, order=order)
    assert rle.encode(mask) == rle.encode(np.ascontiguousarray(mask))
    assert rle.encode(mask[::-1, ::2]) == rle.encode(np.ascontiguousarray(mask[::-1, ::2]))


@pytest.mark.parametrize("mask", [np.zeros((2, 2)), np.zeros(4, dtype=bool), np.zeros((0, 3), dtype=bool)])
def test_an_array_that_is_not_a_mask_is_a_value_error(mask):
    with pytest.raises(ValueError, match="bool"):
        rle.encode(mask)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        (b"", "no counts"),
        (b"\x00", "not part of compressed counts"),
        (b"\xff\xff", "not part of compressed counts"),
        (b"P]", "breaks off"),
        (b"oooooooooooooooo0", "17 digits"),
        (b"0", "fill 0 px"),
        (b"O0", "negative"),
        ("P0", "counts are bytes, not str"),
    ],
)
def test_malformed_counts_say_what_is_wrong(counts, says):
    assert says in (rle.problem(counts, 10, 10) or "")


@pytest.mark.server
def test_counts_that_crash_pycocotools_do_not_crash_us():
    """With these counts pycocotools aborts the interpreter or reads foreign memory."""
    program = (
        "from storage import iou, rle\n"
        "for counts in (b'', b'\\x00', b'zzzz', b'\\xff\\xff', b'P]<0', b'oooo', b'o' * 1000):\n"
        "    assert rle.problem(counts, 848, 480)\n"
        "    try: iou.rle_iou(counts, counts, 848, 480)\n"
        "    except rle.BadRle: pass\n"
        "    else: raise SystemExit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not (SHARED / "sav_000001_manual.json").exists(), reason="the real SA-V file is not here")
def test_real_sa_v_masks_are_reproduced_to_the_byte():
    annotation = json.loads((SHARED / "sav_000001_manual.json").read_text())
    for mask in [mask for frame in annotation["masklet"][::20] for mask in frame]:
        counts = mask["counts"].encode()
        assert rle.encode(rle.decode(counts, *mask["size"])) == counts


@settings(deadline=None)
@given(masks)
def test_the_box_is_that_of_the_pixels(mask):
    ys, xs = np.nonzero(mask)
    box = (xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1) if len(ys) else (0, 0, 0, 0)
    assert rle.box_xywh(rle.encode(mask), *mask.shape) == box
