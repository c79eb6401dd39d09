"""What an evaluation measures beside J&F: J and F alone, MOSEv2's J&Ḟ, and HOTA."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from engine.protocols.first_frame import Tracked
from validation import hota, jf, mose


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The means over all objects of all videos, in [0, 1]. None: no object could be measured."""

    jf: jf.JF | None
    mose: mose.Scores | None
    hota: hota.Hota | None  # of all objects of a video together, on every annotated frame


class Beside:
    """Collects what was tracked, one video after the other."""

    def __init__(self) -> None:
        self._jf: list[jf.JF] = []
        self._mose: list[mose.Scores] = []
        self._videos: dict[str, dict[str, Tracked]] = defaultdict(dict)  # masks are compressed: they may stay

    def add(self, video_id: str, tracked: Tracked) -> None:
        """An object of a video, as `first_frame.measure` tracked it."""
        if tracked.jf is not None:
            self._jf.append(tracked.jf)
        of_mose = mose.of_masklet(tracked.made, tracked.truth.masks)
        if of_mose is not None:
            self._mose.append(of_mose)
        self._videos[video_id][tracked.name] = tracked

    def scores(self) -> Scores:
        """Of everything that was added."""
        counts = [
            hota.of_video(
                {name: each.made for name, each in objects.items()},
                {name: each.truth.masks for name, each in objects.items()},
            )
            for objects in self._videos.values()
        ]
        return Scores(jf=jf.mean(self._jf), mose=mose.mean(self._mose), hota=hota.combined(counts))
