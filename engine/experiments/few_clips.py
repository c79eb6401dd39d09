"""Training clips of a domain with a given number of true masklets, to measure what more of them improve."""

from __future__ import annotations

import numpy as np

from engine.synthetic import labelled_clips
from engine.synthetic.domains.catalogue import DOMAINS
from model.clips import Clip


class FewClips:
    """Draws whole clips of a domain, at 6 frames a second. masklets: their number in all clips together."""

    def __init__(self, domain: str, masklets: int) -> None:
        self.clips: list[Clip] = []
        seed, left = 0, masklets
        while left > 0:
            seed += 1
            clip = DOMAINS[domain].render(seed, labelled_clips.AT_6_FPS)
            large = labelled_clips.large_objects(clip)[:left]
            if large:
                self.clips.append(Clip(clip.frames, clip.masks[:, large]))
            left -= len(large)

    def __call__(self, seed: int) -> Clip:
        """The clip of a seed."""
        rng = np.random.default_rng(seed)
        return self.clips[int(rng.integers(len(self.clips)))]
