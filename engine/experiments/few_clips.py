"""Training clips of a domain with a given number of true masklets, to see what a label buys."""

from __future__ import annotations

import numpy as np

from engine.demo import rendered
from engine.demo.domains.catalogue import DOMAINS
from model.clips import Clip


class FewClips:
    """Draws whole clips of a domain, at 6 frames a second. masklets: their number in all clips together."""

    def __init__(self, domain: str, masklets: int) -> None:
        self.clips: list[Clip] = []
        seed, left = 0, masklets
        while left > 0:
            seed += 1
            clip = DOMAINS[domain].render(seed, rendered.AT_6_FPS)
            large = [k for k in range(clip.masks.shape[1]) if clip.masks[:, k].sum((1, 2)).max() >= rendered.LEAST_PX][
                :left
            ]
            if large:
                self.clips.append(Clip(clip.frames, clip.masks[:, large]))
            left -= len(large)

    def __call__(self, seed: int) -> Clip:
        """The clip of a seed."""
        rng = np.random.default_rng(seed)
        return self.clips[int(rng.integers(len(self.clips)))]
