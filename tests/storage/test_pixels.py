"""The box around a mask, and arrays that are not masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from storage.pixels import box_of, check_mask


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_a_box_is_the_tightest_one(mask):
    box = box_of(mask)
    if box is None:
        assert not mask.any()
        return
    x0, y0, x1, y1 = box
    outside = mask.copy()
    outside[y0:y1, x0:x1] = False
    assert not outside.any()
    inside = mask[y0:y1, x0:x1]
    assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


@pytest.mark.parametrize("mask", [np.zeros((2, 2)), np.zeros(4, dtype=bool), np.zeros((1, 2, 2), dtype=bool)])
def test_an_array_of_another_type_or_rank_is_not_a_mask(mask):
    with pytest.raises(ValueError, match=r"bool \(H, W\)"):
        check_mask(mask)
