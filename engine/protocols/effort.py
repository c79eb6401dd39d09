"""Modelled seconds of an annotator's work. Nothing here is measured.

Source: Ravi et al. 2024. Appendix F: 1 s to find a place, 1.5 s a click, 30 s to watch 300 frames. Table 1: phase 1
took 37.8 s a frame with 4.8 clicks; the time beside the clicks is taken as brush time.
"""

from __future__ import annotations

LOCATE_S = 1.0  # to find an object or the place of an error
CLICK_S = 1.5
WATCH_S = 30.0 / 300  # to watch one frame
BRUSH_S = 37.8 - 4.8 * CLICK_S  # to paint one frame by hand


def correction_s(watched: int, corrected: int, clicks: int) -> float:
    """Seconds to watch so many frames and to correct so many of them with so many clicks in all."""
    return WATCH_S * watched + LOCATE_S * corrected + CLICK_S * clicks
