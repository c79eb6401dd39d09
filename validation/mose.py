"""J&Ḟ as MOSEv2 measures it: a boundary measure that follows the size of the object, also where it is gone and back.

Knows masks. Does not know videos, files or models. J and Ḟ are in [0, 1]; papers print them times 100.
Source: Ding et al. 2025, "MOSEv2", and the scores in its repository (henghuiding/MOSE-api); differs: written
independently; J is plain IoU, where that code adds one pixel to both areas; the distances are whole pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from storage.iou import mask_iou
from storage.pixels import Mask
from storage.wording import counted
from validation import jf
from validation.jf import JF

SHARE = 0.1  # of the square root of the object's area: the distance at which two boundaries still agree


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one masklet, or their means over many."""

    all: JF  # J&Ḟ of every frame
    gone: JF | None  # of the frames where the object has disappeared; None if it never does
    back: JF | None  # of the frames after it has appeared again, until it disappears once more; None if it never does


def adaptive_f(pred: Mask, gt: Mask) -> float:
    """Ḟ: `boundary_f` with a distance of a tenth of the square root of the true area, at most that of F.

    So a small object needs a better boundary than with F, whose distance follows the size of the picture.
    """
    area = int(np.count_nonzero(gt))
    most = jf.tolerance_px(gt.shape)
    return jf.boundary_f(pred, gt, min(most, math.ceil(SHARE * math.sqrt(area))) if area else most)


def of_masklet(pred: Sequence[Mask], gt: Sequence[Mask]) -> Scores | None:
    """The scores of a masklet on its frames without the first and the last one.

    pred, gt: (T,) masks bool (H, W) of the annotated frames. Every frame counts: 1 where both show nothing.
    A stretch of frames counts as a whole, and all stretches of a masklet count alike. The object is gone where the
    truth is empty after it was there; it is back where the truth shows it after an empty frame.
    None if no frame is left. Raises ValueError for different lengths or sizes.
    """
    if len(pred) != len(gt):
        raise ValueError(f"{counted(len(pred), 'predicted frame')} and {counted(len(gt), 'true one')}")
    js, fs, shown = list[float](), list[float](), list[bool]()
    for t in range(1, len(gt) - 1):
        made, true = pred[t], gt[t]  # each access may decode the mask
        js.append(mask_iou(made, true))
        fs.append(adaptive_f(made, true))
        shown.append(bool(true.any()))
    if not js:
        return None
    begins = [0, *(t for t in range(1, len(shown)) if shown[t] != shown[t - 1])]
    stretches = list(zip(begins, [*begins[1:], len(shown)], strict=True))[1:]  # the first is neither gone nor back

    def of(which: bool) -> JF | None:
        found = [
            JF(j=float(np.mean(js[a:b])), f=float(np.mean(fs[a:b])), count=b - a)
            for a, b in stretches
            if shown[a] is which
        ]
        return jf.mean(found)

    return Scores(all=JF(j=float(np.mean(js)), f=float(np.mean(fs)), count=len(js)), gone=of(False), back=of(True))


def mean(of_masklets: Iterable[Scores]) -> Scores | None:
    """The mean over all masklets of all videos, each counting once where it has the score. None without masklets."""
    found = list(of_masklets)
    overall = jf.mean(scores.all for scores in found)
    if overall is None:
        return None
    return Scores(
        all=overall,
        gone=jf.mean(scores.gone for scores in found if scores.gone),
        back=jf.mean(scores.back for scores in found if scores.back),
    )
