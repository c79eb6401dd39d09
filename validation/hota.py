"""HOTA: how well tracks follow the objects of a video, from how many masks are found to whether identities hold.

Knows masks and names of tracks. Does not know videos, files or models. Scores are in [0, 1]; papers print them
times 100. Source: Luiten et al. 2021, "HOTA", and the figures of its code (JonathonLuiten/TrackEval); differs: written
independently, because that package brings a second OpenCV, which overwrites the files of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from storage.iou import mask_table
from storage.pixels import Mask
from storage.wording import counted

ALPHAS = np.arange(1, 20) * 0.05  # IoU from which a true and a predicted mask may match: 0.05, 0.10, … 0.95
EPS = float(np.finfo(np.float64).eps)

PerAlpha = NDArray[np.float64]  # (19,)


@dataclass(frozen=True, kw_only=True)
class Hota:
    """The scores of all videos, each a mean over ALPHAS."""

    hota: float  # mean of sqrt(det * ass)
    det: float  # DetA: matched masks, of all true and predicted ones
    ass: float  # AssA: of the matched masks, how far their two tracks are matched on other frames too
    loc: float  # LocA: mean IoU of the matched masks


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What one video adds to the scores, at each of ALPHAS."""

    matched: PerAlpha  # masks
    missed: PerAlpha  # true masks without a predicted one
    extra: PerAlpha  # predicted masks without a true one
    iou: PerAlpha  # sum over the matched masks
    ass: PerAlpha  # sum over the matched masks of the association of their two tracks


def of_video(pred: Mapping[str, Sequence[Mask]], gt: Mapping[str, Sequence[Mask]]) -> Counts:
    """Compares the tracks of a video: predicted ones and true ones.

    pred, gt: name of a track -> (T,) masks bool (H, W) of the annotated frames, empty where the object is absent. Names
    of the two need not agree: masks are matched by IoU. All frames count. Raises ValueError for different lengths or
    sizes.
    """
    if len({len(masks) for masks in (*pred.values(), *gt.values())}) > 1:
        lengths = sorted({len(masks) for masks in (*pred.values(), *gt.values())})
        raise ValueError(f"tracks of {lengths[0]} and of {counted(lengths[-1], 'frame')}")
    length = len(next(iter((*pred.values(), *gt.values())), ()))
    made, true = list(pred.values()), list(gt.values())
    frames = [_shown(made, true, t) for t in range(length)]
    alike = np.zeros((len(true), len(made)))  # on how many frames the two tracks are alike, by IoU
    in_true, in_made = np.zeros((len(true), 1)), np.zeros((1, len(made)))  # frames that show the object
    for at_true, at_made, ious in frames:
        total = ious.sum(0)[None, :] + ious.sum(1)[:, None] - ious
        alike[np.ix_(at_true, at_made)] += np.divide(ious, total, out=np.zeros_like(ious), where=total > EPS)
        in_true[at_true] += 1
        in_made[0, at_made] += 1
    either = in_true + in_made - alike
    prior = np.divide(alike, either, out=np.zeros_like(alike), where=either > 0)
    matched, iou_sum = np.zeros(len(ALPHAS)), np.zeros(len(ALPHAS))
    pairs = np.zeros((len(ALPHAS), len(true), len(made)))  # frames on which two tracks are matched
    for at_true, at_made, ious in frames:
        rows, columns = linear_sum_assignment(-prior[np.ix_(at_true, at_made)] * ious)
        for a, alpha in enumerate(ALPHAS):
            enough = ious[rows, columns] >= alpha - EPS
            matched[a] += enough.sum()
            iou_sum[a] += ious[rows, columns][enough].sum()
            pairs[a, at_true[rows[enough]], at_made[columns[enough]]] += 1
    return Counts(
        matched=matched,
        missed=in_true.sum() - matched,
        extra=in_made.sum() - matched,
        iou=iou_sum,
        ass=(pairs * pairs / np.maximum(1, in_true + in_made - pairs)).sum((1, 2)),
    )


def combined(of_videos: Iterable[Counts]) -> Hota | None:
    """The scores of all videos together: each mask counts once. None if no mask is true and none is predicted."""
    found = list(of_videos)
    matched, missed, extra, iou, ass = (
        np.sum([getattr(counts, name) for counts in found], axis=0)
        for name in ("matched", "missed", "extra", "iou", "ass")
    )
    if not found or not (matched + missed + extra).any():
        return None
    det = matched / (matched + missed + extra)
    mean_ass = ass / np.maximum(1, matched)
    return Hota(
        hota=float(np.sqrt(det * mean_ass).mean()),
        det=float(det.mean()),
        ass=float(mean_ass.mean()),
        loc=float(np.divide(iou, matched, out=np.ones_like(iou), where=matched > 0).mean()),
    )


def _shown(
    pred: Sequence[Sequence[Mask]], gt: Sequence[Sequence[Mask]], t: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The tracks that show their object on frame t: places in `gt` (N,), in `pred` (M,), and their IoU (N, M)."""
    sides = []
    for tracks in (gt, pred):
        masks = [track[t] for track in tracks]  # each access may decode the mask
        at = np.array([n for n, mask in enumerate(masks) if mask.any()], np.int64)
        sides.append((at, [masks[n] for n in at]))
    (at_true, true), (at_made, made) = sides
    if not true or not made:
        return at_true, at_made, np.zeros((len(true), len(made)))
    return at_true, at_made, mask_table(np.stack(true), np.stack(made))
