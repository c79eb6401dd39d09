"""Modelled seconds of an annotator's work: the one formula. Nothing here is measured.

Source: Ravi et al. 2024. Appendix F: 1 s to find a place, 1.5 s a click, 30 s to watch 300 frames. Table 1: phase 1
took 37.8 s a frame with 4.8 clicks; we count the rest of that time as painting.
"""

from __future__ import annotations

_LOCATE_S = 1.0  # to find an object or the place of an error
_CLICK_S = 1.5
_WATCH_S = 30.0 / 300  # to watch one frame
_BRUSH_S = 37.8 - 4.8 * _CLICK_S  # to paint one frame by hand


def modelled_s(*, watched: int = 0, located: int = 0, clicks: int = 0, painted: int = 0) -> float:
    """Seconds that this work takes by the paper's model.

    watched: frames of the stored video (24 fps), each time that they are watched.  located: frames on which an object
    or an error was looked for and clicked.  painted: frames painted by hand, which includes finding the place.
    """
    return _WATCH_S * watched + _LOCATE_S * located + _CLICK_S * clicks + _BRUSH_S * painted
