"""Draws docs/domains.jpg: two clips of every domain, three frames each, the last one with its true masks.

python -m docs.domains [OUT.jpg]
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine import pictures
from engine.synthetic.domains.catalogue import DOMAINS
from engine.synthetic.domains.drawing import Size

SIZE = Size(height=240, width=320, frames=3, stride=30)


def draw(out: Path) -> Path:
    rows = []
    for domain in DOMAINS.values():
        for seed in (2, 3):
            clip = domain.render(seed, SIZE)
            cells = [*clip.frames, pictures.overlay(clip.frames[-1], list(clip.masks[-1]))]
            rows.append(pictures.side_by_side(cells, width_px=SIZE.width, height_px=SIZE.height))
    return pictures.write_jpeg(pictures.stacked(rows), out, quality=85)


if __name__ == "__main__":
    print(draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("domains.jpg")))
