"""Masks as COCO compressed run lengths: encode, decode, measure, check.

Knows the byte format. Does not know files or records. Runs alternate background, object, background, … down the
columns. A count is written in base 32 with a continuation bit; from the fourth count on, as the difference to the count
two places before. pycocotools does not check its input, and malformed counts crash the process. So counts from outside
are parsed here, and only valid counts reach pycocotools.

Source: the string format of pycocotools' `rleToString` and `rleFrString` (Lin et al., COCO API).
"""

from __future__ import annotations

import numpy as np
import pycocotools.mask as coco
from numpy.typing import NDArray

from storage.pixels import Mask
from storage.wording import counted

_DIGITS = 7  # base 32 digits of the longest count: 34 bits and a sign


class BadRle(ValueError):
    """These counts are not a mask of this size."""


def encode(mask: Mask) -> bytes:
    """The compressed counts of a mask.

    mask: bool (H, W), H and W at least 1.
    Raises ValueError for another shape or type.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
        raise ValueError(f"a mask is bool (H, W) and not empty, not {mask.dtype} {mask.shape}")
    counts: bytes = coco.encode(np.asfortranarray(mask).view(np.uint8))["counts"]
    return counts


def decode(counts: bytes, height: int, width: int) -> Mask:
    """The mask of compressed counts: bool (height, width). Raises BadRle for malformed counts."""
    runs = _runs(counts, height, width)
    values = np.zeros(len(runs), dtype=np.bool_)
    values[1::2] = True
    return np.repeat(values, runs).reshape(width, height).T


def empty(height: int, width: int) -> bytes:
    """The counts of an empty mask, which stands for an absent object."""
    if height < 1 or width < 1:
        raise ValueError(f"a mask has at least one pixel, not {height} x {width}")
    counts: bytes = coco.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width)["counts"]
    return counts


def area(counts: bytes, height: int, width: int) -> int:
    """Pixels of the object. Raises BadRle for malformed counts."""
    return int(_runs(counts, height, width)[1::2].sum())


def box_xywh(counts: bytes, height: int, width: int) -> tuple[int, int, int, int]:
    """The box around the object as COCO writes it: left, top, width and height in px; zeros for an empty mask.

    Raises BadRle for malformed counts.
    """
    found = spans(counts, height, width)
    if not len(found):
        return 0, 0, 0, 0
    first, last = found[:, 0], found[:, 1] - 1
    left, right = int(first[0]) // height, int(last[-1]) // height
    over = first // height != last // height  # such a run fills a column to its end and begins the next one
    top = 0 if over.any() else int((first % height).min())
    bottom = height - 1 if over.any() else int((last % height).max())
    return left, top, right - left + 1, bottom - top + 1


def spans(counts: bytes, height: int, width: int) -> NDArray[np.int64]:
    """The object's pixels without decoding: int64 (R, 2), each row a run from its first pixel up to its end (excluded).

    A pixel is column * height + row; the rows are sorted. An empty mask gives (0, 2). Raises BadRle.
    """
    ends = np.cumsum(_runs(counts, height, width))
    last = len(ends) // 2 * 2  # a background run at the end has no object after it
    found: NDArray[np.int64] = ends[:last].reshape(-1, 2)
    return found[found[:, 0] < found[:, 1]]


def problem(counts: bytes, height: int, width: int) -> str | None:
    """One line about what is wrong with these counts, or None for valid counts. Never raises, for any bytes."""
    try:
        _runs(counts, height, width)
    except BadRle as error:
        return str(error)
    return None


def _runs(counts: bytes, height: int, width: int) -> NDArray[np.int64]:
    """The run lengths, int64 (R,), background first. Raises BadRle unless they fill height x width exactly."""
    if height < 1 or width < 1:
        raise BadRle(f"a mask has at least one pixel, not {height} x {width}")
    if not isinstance(counts, bytes):
        raise BadRle(f"counts are bytes, not {type(counts).__name__}")
    if not counts:
        raise BadRle("no counts")
    digits = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if digits.min() < 0 or digits.max() > 63:
        at = int(np.flatnonzero((digits < 0) | (digits > 63))[0])
        raise BadRle(f"byte {counts[at]:#04x} at {at} is not part of compressed counts")
    ends = np.flatnonzero(digits < 32)
    if not len(ends) or ends[-1] != len(digits) - 1:
        raise BadRle("the last count breaks off")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _DIGITS:
        raise BadRle(f"a count of {counted(int(lengths.max()), 'digit')} is larger than any mask")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * place), starts)
    negative = (digits[ends] & 16) != 0
    runs[negative] -= np.left_shift(1, 5 * lengths[negative])
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.min() < 0:
        raise BadRle(f"run {int(np.flatnonzero(runs < 0)[0])} is negative")
    if (total := int(runs.sum())) != height * width:
        raise BadRle(f"the runs fill {total} px, not {height} x {width} = {height * width}")
    return runs
