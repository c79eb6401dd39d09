"""Reads YOLO's label files back."""

from __future__ import annotations

import numpy as np

from storage.formats import polygons


def read_labels(text: str, height: int, width: int) -> list[tuple[int, bytes]]:
    """The objects of a label file: class and compressed counts."""
    found = []
    for line in text.splitlines():
        name, *shares = line.split()
        points = np.array(shares, np.float64).reshape(-1, 2) * (width, height)
        found.append((int(name), polygons.drawn([points], height, width)))
    return found
