"""The frames that differ most, as a contact sheet: outlines of both masks, and what only one of them has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from engine import pictures
from engine.pictures import Entry, Image
from engine.views import frames
from engine.views.difference import Look
from engine.views.frames import Cell
from storage.pixels import Mask, box_of

BEFORE, AFTER = (213, 94, 0), (0, 114, 178)  # vermilion and blue of the palette, RGB
COLUMNS = 4
CELL_PX = 320
_MARGIN = 0.6  # of the object's longer side, shown on each side of it
_LEAST_PX = 96  # shorter side of a cut, so that small objects stay recognisable

Read = Callable[[str, int], Image]  # video_id, frame_idx -> uint8 (H, W, 3) RGB


def draw(looks: Sequence[Look], read: Read, names: tuple[str, str]) -> Image:
    """The sheet.  names: of the first and the second.  Raises ValueError for no frames, BadRle."""
    if not looks:
        raise ValueError("nothing differs: there is nothing to draw")
    cells = [_cell(look, read(look.video_id, look.frame_idx)) for look in looks]
    grid = frames.grid(cells, columns=COLUMNS, width_px=CELL_PX)
    entries = [Entry(f"only in {name}", colour) for name, colour in zip(names, (BEFORE, AFTER), strict=True)]
    return pictures.stacked([grid, pictures.legend(entries, grid.shape[1])])


def _cell(look: Look, rgb: Image) -> Cell:
    height, width = rgb.shape[:2]
    nothing = np.zeros((height, width), np.bool_)
    found = [nothing if row is None else frames.mask_at(row, look.frame_idx) for row in (look.before, look.after)]
    before, after = (mask if mask.shape == nothing.shape else nothing for mask in found)
    out = rgb.copy()
    for mask, colour in ((before & ~after, BEFORE), (after & ~before, AFTER)):
        out[mask] = (0.4 * out[mask] + 0.6 * np.array(colour, np.float32)).astype(np.uint8)
    x0, y0, x1, y1 = _cut(before | after)
    scale = CELL_PX / (x1 - x0)
    cut = pictures.scaled(out[y0:y1, x0:x1], CELL_PX, max(1, round((y1 - y0) * scale)))
    for mask, colour in ((before, BEFORE), (after, AFTER)):  # outlines last: they stay thin
        shown = cv2.resize(mask[y0:y1, x0:x1].astype(np.uint8), cut.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(shown, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(cut, contours, -1, colour, 1, cv2.LINE_AA)
    row = look.after or look.before
    masklet_id = "" if row is None else row.masklet_id
    return Cell(cut, f"{look.what}, {masklet_id[:12]}, frame {look.frame_idx}")


def _cut(mask: Mask) -> tuple[int, int, int, int]:
    """A part of the frame around the mask, of the frame's shape; the whole frame for an empty mask."""
    height, width = mask.shape
    if (box := box_of(mask)) is None:
        return 0, 0, width, height
    x0, y0, x1, y1 = box
    shape = width / height
    wide = max((x1 - x0) * (1 + 2 * _MARGIN), (y1 - y0) * (1 + 2 * _MARGIN) * shape, _LEAST_PX * max(1.0, shape))
    wide = min(wide, width)
    high = wide / shape
    left = min(max(0.0, (x0 + x1 - wide) / 2), width - wide)
    top = min(max(0.0, (y0 + y1 - high) / 2), height - high)
    return int(left), int(top), int(np.ceil(left + wide)), int(np.ceil(top + high))
