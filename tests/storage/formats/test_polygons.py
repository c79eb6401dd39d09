"""Polygons of masks: along the pixels they are exact, simplified they are measured."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import iou, rle
from storage.formats import polygons
from storage.formats.polygons import BadPolygon

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(MASKS.filter(lambda mask: bool(mask.any())))
@settings(max_examples=150, deadline=None)
def test_a_polygon_along_the_pixels_gives_every_mask_again(mask):
    """Parts that touch at a corner, holes, and parts in holes."""
    ring = polygons.bridged(polygons.outlines(mask))
    assert polygons.drawn([ring], *mask.shape) == rle.encode(mask)


@given(MASKS.filter(lambda mask: bool(mask.any())))
@settings(max_examples=100, deadline=None)
def test_the_iou_that_is_said_is_that_of_the_polygon(mask):
    counts = rle.encode(mask)
    ring, said = polygons.shape_of(counts, *mask.shape)
    assert said == iou.rle_iou(polygons.drawn([ring], *mask.shape), counts, *mask.shape) >= polygons.LEAST_IOU


def test_an_outline_is_simplified_where_that_costs_little():
    y, x = np.mgrid[:120, :120]
    disc = (y - 60) ** 2 + (x - 60) ** 2 <= 45**2
    ring, said = polygons.shape_of(rle.encode(disc), 120, 120)
    assert 0.97 < said < 1 and len(ring) < 0.4 * len(polygons.outlines(disc)[0])


@pytest.mark.parametrize(
    ("rings", "says"),
    [
        ([], "no polygon"),
        ([[[0, 0], [1, 1]]], "at least 3 points"),
        ([[1, 2, 3]], "at least 3 points"),
        ([[[0, 0], [1, float("nan")], [3, 3]]], "not a finite number"),
    ],
)
def test_what_is_no_polygon_is_refused(rings, says):
    with pytest.raises(BadPolygon, match=says):
        polygons.drawn(rings, 9, 9)


def test_what_lies_outside_the_picture_is_cut_off():
    whole = [[-1e12, -5], [1e12, -5], [1e12, 1e12], [-1e12, 1e12]]
    assert rle.decode(polygons.drawn([whole], 7, 5), 7, 5).all()


def test_the_parts_of_one_object_are_one_mask():
    parts = [[[0, 0], [2, 0], [2, 2], [0, 2]], [[3, 3], [5, 3], [5, 5], [3, 5]]]
    assert rle.area(polygons.drawn(parts, 6, 6), 6, 6) == 8
