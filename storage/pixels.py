"""Pictures and masks as arrays: their types, and the box around a mask.

Does not know files, videos or compressed masks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]  # (H, W, 3)
Mask = NDArray[np.bool_]  # (H, W)
Masks = NDArray[np.bool_]  # (N, H, W)
Boxes = NDArray[np.float64]  # (N, 4) xyxy, right and bottom exclusive


class PictureError(ValueError):
    """These are not the pictures of a video."""


def check_mask(mask: Mask) -> Mask:
    """The mask itself. Raises ValueError unless it is bool (H, W)."""
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"a mask is bool (H, W), not {mask.dtype} {mask.shape}")
    return mask


def box_of(mask: Mask) -> tuple[int, int, int, int] | None:
    """The tightest box (x0, y0, x1, y1) around a mask, right and bottom exclusive; None for an empty mask."""
    check_mask(mask)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
