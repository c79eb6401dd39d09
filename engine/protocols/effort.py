"""Modelled seconds of an annotator's work. Nothing here is measured.

Source: Ravi et al. 2024. Appendix F: 1 s to find a place, 1.5 s a click, 30 s to watch 300 frames. Table 1: phase 1
took 37.8 s a frame with 4.8 clicks; we count the rest of that time as painting.
"""

from __future__ import annotations

LOCATE_S = 1.0  # to find an object or the place of an error
CLICK_S = 1.5
WATCH_S = 30.0 / 300  # to watch one frame
BRUSH_S = 37.8 - 4.8 * CLICK_S  # to paint one frame by hand


def correction_s(watched: int, corrected: int, clicks: int) -> float:
    """Seconds to watch `watched` frames and to correct `corrected` of them with `clicks` clicks in all."""
    return WATCH_S * watched + LOCATE_S * corrected + CLICK_S * clicks
