"""Proposals: every object of a picture, found with grids of points.

Follows SAM's automatic mask generator (Kirillov et al. 2023, appendix B) with SA-V's three scales. A model that was
trained on a little data cannot rate its masks; for it, proposals are ranked by their agreement instead: an object is
found alike from everywhere in it. The filters are pure functions over arrays; only `propose` calls the model. Knows
nothing of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model import devices, masks
from model.checkpoints import LoadedModel
from model.image import Floats, ImageMasks, ImagePredictor
from storage import pixels
from storage.iou import box_table, mask_table
from storage.pixels import Boxes, Mask, Rgb
from storage.records import Prompt

BoxPx = tuple[int, int, int, int]  # xyxy, right and bottom exclusive


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One layer of the search: the picture is cut into crops, and every crop gets a grid of points."""

    crops_per_side: int  # 1 is the whole frame
    points_per_side: int


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """All thresholds of the search. SA-V's are not published; the defaults are SAM's, if it has them."""

    scales: tuple[Scale, ...] = (  # SA-V: 1024 + 4 * 256 + 16 * 16 = 2304 points
        Scale(crops_per_side=1, points_per_side=32),
        Scale(crops_per_side=2, points_per_side=16),
        Scale(crops_per_side=4, points_per_side=4),
    )
    crop_overlap: float = 512 / 1500  # of the frame's shorter side at two crops a side, in [0, 1)
    min_iou: float = 0.8  # estimated IoU, in [0, 1]
    min_stability: float = 0.95  # in [0, 1]
    stability_offset: float = 1.0  # logits, > 0
    min_object_score: float = 0.0  # presence logit; -inf accepts absent objects
    min_agreement: float = 0.0  # in [0, 1]; needs `by_agreement`
    max_box_overlap: float = 0.7  # IoU of boxes, in [0, 1], within a crop and between crops
    max_mask_overlap: float = 0.8  # IoU of masks, in [0, 1], between all remaining proposals
    min_area: float = 1e-4  # of the frame, in [0, 1]
    max_area: float = 0.9  # of the frame, in [0, 1]
    min_part_px: int = 100  # smaller specks are removed and smaller holes filled, >= 0
    edge_tolerance: float = 0.02  # of a crop's shorter side, >= 0: a box this near to the crop's inner edge is cut off
    points_per_batch: int = 64  # >= 1; bounds scratch memory
    by_agreement: bool = False  # rank by `agreement`, not by estimated IoU; all masks of a crop are in memory at once
    # in a search of the whole frame: draw each mask anew from its click, its box and itself; SAM can, without the box
    redraw: bool = False

    def __post_init__(self) -> None:
        shares = ("min_iou", "min_stability", "min_agreement", "max_box_overlap", "max_mask_overlap")
        for name in (*shares, "min_area", "max_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.min_agreement and not self.by_agreement:
            raise ValueError("min_agreement needs by_agreement")
        if not 0 <= self.crop_overlap < 1:
            raise ValueError(f"crop_overlap must be in [0, 1), got {self.crop_overlap}")
        if self.stability_offset <= 0 or self.points_per_batch < 1 or self.min_part_px < 0 or self.edge_tolerance < 0:
            raise ValueError(f"a threshold is out of its range: {self}")
        if not self.scales or any(s.crops_per_side < 1 or s.points_per_side < 1 for s in self.scales):
            raise ValueError(f"scales need at least one crop and one point a side, got {self.scales}")


@dataclass(frozen=True)
class MaskProposal:
    """An object that a grid point found. Nobody has judged it."""

    mask: Mask  # bool (H, W), cleaned
    score: float  # estimated IoU
    agreement: float  # in [0, 1], times the probability that an object is there; 0 if it was not asked for
    stability: float
    object_score: float
    point_xy: tuple[float, float]  # px of the frame
    box_xyxy: BoxPx
    crop_xyxy: BoxPx  # the part of the frame that was searched


def propose(
    loaded: LoadedModel, rgb: Rgb, config: GridConfig | None = None, *, where: Mask | None = None
) -> list[MaskProposal]:
    """The objects that the grids find in a picture, best first: by estimated IoU, or by agreement.

    rgb: uint8 (H, W, 3).  where: bool (H, W), only the points in it are asked; None: all. A crop is encoded once, and
    not at all if no point of it is asked. Scratch memory is bounded by `points_per_batch`.
    """
    config = config or GridConfig()
    hw = (rgb.shape[0], rgb.shape[1])
    predictor = ImagePredictor(loaded)
    found: list[MaskProposal] = []
    for scale in config.scales:
        for crop in crop_boxes(hw, scale.crops_per_side, config.crop_overlap):
            points = grid_points(scale.points_per_side, crop)
            if where is not None:
                points = points[where[points[:, 1].astype(np.int64), points[:, 0].astype(np.int64)]]
            if len(points):
                predictor.set_image(np.ascontiguousarray(rgb[crop[1] : crop[3], crop[0] : crop[2]]))
                found += _search(predictor, crop, hw, points - crop[:2], config, redraw=config.redraw and where is None)
    return without_duplicates(found, config)


def grid_points(points_per_side: int, box_xyxy: BoxPx) -> Floats:
    """The centres of a regular grid over a box, row by row: float (points_per_side ** 2, 2) as xy."""
    x0, y0, x1, y1 = box_xyxy
    steps = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(x0 + steps * (x1 - x0), y0 + steps * (y1 - y0))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def crop_boxes(hw: tuple[int, int], per_side: int, overlap: float) -> list[BoxPx]:
    """The overlapping crops of one scale, row by row; one crop is the whole frame.

    overlap: of the frame's shorter side at two crops a side; half of it at four.
    Source: Kirillov et al. 2023, released mask generator.
    """
    height, width = hw
    if per_side == 1:
        return [(0, 0, width, height)]
    shared = int(overlap * min(height, width) * 2 / per_side)
    crop_w = math.ceil((shared * (per_side - 1) + width) / per_side)
    crop_h = math.ceil((shared * (per_side - 1) + height) / per_side)
    return [
        (x0, y0, min(x0 + crop_w, width), min(y0 + crop_h, height))
        for y0 in (row * (crop_h - shared) for row in range(per_side))
        for x0 in (column * (crop_w - shared) for column in range(per_side))
    ]


def is_cut_off(box_xyxy: BoxPx, crop_xyxy: BoxPx, hw: tuple[int, int], tolerance_px: float) -> bool:
    """Whether a box reaches an edge of the crop that is not an edge of the frame: the object continues outside."""
    height, width = hw
    frame = (0, 0, width, height)
    return any(
        abs(box_xyxy[side] - crop_xyxy[side]) <= tolerance_px and abs(box_xyxy[side] - frame[side]) > tolerance_px
        for side in range(4)
    )


def agreement(logits: Tensor, points_xy: Floats, hw: tuple[int, int]) -> Tensor:
    """How much the other clicks inside a mask agree with it: float (N, K) in [0, 1], for K answers to each of N clicks.

    A click's IoU is that of its best answer with the mask. Agreement is the mean IoU over the other clicks inside the
    mask, with one extra click of IoU 0.5. This keeps masks with few clicks near the middle.

    logits: (N, K, h, w) at low resolution.  points_xy: (N, 2) in px of the crop.  hw: of the crop, px.
    """
    n, k, h, w = logits.shape
    drawn = (logits > 0).flatten(0, 1)
    flat = drawn.flatten(1).float()
    shared, area = flat @ flat.t(), flat.sum(1)
    iou = shared / (area[:, None] + area - shared).clamp(min=1)
    best = iou.view(n * k, n, k).amax(2)
    column, row = (
        (torch.from_numpy(points_xy).to(logits.device) * torch.tensor([w / hw[1], h / hw[0]])).long().unbind(1)
    )
    inside = drawn[:, row.clamp(max=h - 1), column.clamp(max=w - 1)].float().view(n, k, n)
    inside = (inside * (1 - torch.eye(n, device=logits.device)[:, None])).view(n * k, n)
    return (((best * inside).sum(1) + 0.5) / (inside.sum(1) + 1)).view(n, k)


def without_duplicates(proposed: Sequence[MaskProposal], config: GridConfig) -> list[MaskProposal]:
    """Removes duplicates: first by boxes, where the finer crop wins, then by masks, where the better proposal wins.

    Returns the remaining proposals, best first.
    """
    if not proposed:
        return []
    boxes = np.array([proposal.box_xyxy for proposal in proposed], dtype=np.float64)
    fineness = np.array([-_area(proposal.crop_xyxy) + _rank(proposal, config) for proposal in proposed])
    kept = [proposed[i] for i in masks.nms(box_table(boxes, boxes), fineness, config.max_box_overlap)]
    stack = np.stack([proposal.mask for proposal in kept])
    ranks = np.array([_rank(proposal, config) for proposal in kept])
    return [kept[i] for i in masks.nms(mask_table(stack, stack), ranks, config.max_mask_overlap)]


def _rank(proposal: MaskProposal, config: GridConfig) -> float:
    return proposal.agreement if config.by_agreement else proposal.score


@dataclass(frozen=True)
class Rough:
    """M masks of one crop that passed the first filters, at low resolution."""

    logits: Tensor  # float (M, h, w)
    boxes: Boxes  # (M, 4) in low-resolution pixels
    iou: Floats  # (M,)
    stability: Floats  # (M,)
    object_score: Floats  # (M,)
    agreement: Floats  # (M,); 0 if it was not asked for
    points_xy: Floats  # (M, 2) in px of the crop

    def __len__(self) -> int:
        return len(self.iou)

    def take(self, rows: Sequence[int]) -> Rough:
        """The masks of these rows, in this order."""
        index = np.array(rows, dtype=np.int64)
        return Rough(
            self.logits[torch.from_numpy(index).to(self.logits.device)],
            self.boxes[index],
            self.iou[index],
            self.stability[index],
            self.object_score[index],
            self.agreement[index],
            self.points_xy[index],
        )

    def rank(self, config: GridConfig) -> Floats:
        """What decides between duplicates, float (M,): the better one is higher."""
        return self.agreement if config.by_agreement else self.iou


def trusted(answer: ImageMasks, points_xy: Floats, config: GridConfig, agreed: Tensor | None = None) -> Rough:
    """The masks with good estimates among the K answers to each of N points, without duplicates by boxes.

    points_xy: float (N, 2) in px of the crop.  agreed: the agreement of each answer, float (N, K).
    Empty masks are always dropped, and masks that fill more than `max_area` of the crop: the background must not
    replace an object. Stability is measured at low resolution; SAM measures it after enlarging.
    """
    k = answer.iou.shape[1]
    logits, iou = answer.logits.flatten(0, 1), answer.iou.flatten()
    score = answer.object_score.repeat_interleave(k)
    agreed = torch.zeros_like(iou) if agreed is None else agreed.flatten()
    good = (iou >= config.min_iou) & (score >= config.min_object_score) & (agreed >= config.min_agreement)
    rows, index = devices.rows_of(good)
    drawn = logits[index]
    stability = masks.stability_score(drawn, config.stability_offset)
    share = (drawn > 0).flatten(1).float().mean(1)
    sure, among = devices.rows_of((stability >= config.min_stability) & (share > 0) & (share <= config.max_area))
    drawn, index = drawn[among], index[among]
    estimates = torch.stack([iou[index].float(), stability[among], score[index].float(), agreed[index].float()])
    ious, steady, present, agreements = np.asarray(estimates.cpu().numpy(), dtype=np.float64)
    rough = Rough(
        drawn,
        _boxes_of(drawn > 0),
        ious,
        steady,
        present,
        agreements,
        points_xy[np.array([rows[i] // k for i in sure], dtype=np.int64)],
    )
    return rough.take(masks.nms(box_table(rough.boxes, rough.boxes), rough.rank(config), config.max_box_overlap))


def finished(rough: Rough, crop_xyxy: BoxPx, hw: tuple[int, int], config: GridConfig) -> MaskProposal | None:
    """A rough mask as a proposal: enlarged, cleaned and placed in the frame; None if it is too small, too large or cut
    off.
    """
    x0, y0, x1, y1 = crop_xyxy
    mask = np.zeros(hw, dtype=np.bool_)
    mask[y0:y1, x0:x1] = masks.clean(masks.enlarge(rough.logits, (y1 - y0, x1 - x0))[0], config.min_part_px)
    box = pixels.box_of(mask)
    area = np.count_nonzero(mask) / mask.size
    if box is None or not config.min_area <= area <= config.max_area:
        return None
    if is_cut_off(box, crop_xyxy, hw, config.edge_tolerance * min(x1 - x0, y1 - y0)):
        return None
    return MaskProposal(
        mask=mask,
        score=float(rough.iou[0]),
        agreement=float(rough.agreement[0]),
        stability=float(rough.stability[0]),
        object_score=float(rough.object_score[0]),
        point_xy=(float(rough.points_xy[0, 0]) + x0, float(rough.points_xy[0, 1]) + y0),
        box_xyxy=box,
        crop_xyxy=crop_xyxy,
    )


def _search(
    predictor: ImagePredictor, crop: BoxPx, hw: tuple[int, int], points: Floats, config: GridConfig, *, redraw: bool
) -> Iterator[MaskProposal]:
    """The objects that points (N, 2), in px of one crop, find in it, without duplicates by boxes."""
    height, width = crop[3] - crop[1], crop[2] - crop[0]
    size = len(points) if config.by_agreement else config.points_per_batch
    found = []
    for begin in range(0, len(points), size):
        some = points[begin : begin + size]
        rows, answer = predictor.predict_points(some, min_iou=config.min_iou, min_object_score=config.min_object_score)
        agreed = None
        if config.by_agreement:
            agreed = agreement(answer.logits, some[rows], (height, width)) * answer.object_score.sigmoid()[:, None]
        found.append(trusted(answer, some[rows], config, agreed))
    best = _best_of(found, config)
    for begin in range(0, len(best), config.points_per_batch):
        rough = best.take(range(begin, min(begin + config.points_per_batch, len(best))))
        if redraw:
            rough = redrawn(predictor, rough, (height, width), config)
        for row in range(len(rough)):
            proposal = finished(rough.take([row]), crop, hw, config)
            if proposal is not None:
                yield proposal


def redrawn(predictor: ImagePredictor, rough: Rough, hw: tuple[int, int], config: GridConfig) -> Rough:
    """M masks, each drawn anew from its click, its box and its logits. A mask that would be empty stays as it was.

    hw: of the crop, px. The masks keep their agreement: it rates the click.
    """
    h, w = rough.logits.shape[-2:]
    boxes = rough.boxes * [hw[1] / w, hw[0] / h, hw[1] / w, hw[0] / h]
    prompts = [
        Prompt(frame_idx=0, points_xy=((x, y),), labels=(1,), box_xyxy=(x0, y0, x1, y1))
        for (x, y), (x0, y0, x1, y1) in zip(rough.points_xy.tolist(), boxes.tolist(), strict=True)
    ]
    answer = predictor.predict(prompts, previous=rough.logits)
    drawn = answer.logits[:, 0]
    some = (drawn > 0).flatten(1).any(1)
    logits = torch.where(some[:, None, None], drawn, rough.logits)
    stability = masks.stability_score(logits, config.stability_offset)
    found = np.asarray(torch.stack([answer.iou[:, 0].float(), stability, answer.object_score.float()]).cpu().numpy())
    old = np.stack([rough.iou, rough.stability, rough.object_score])
    iou, stable, present = np.where(some.cpu().numpy(), found, old).astype(np.float64)
    return replace(rough, logits=logits, boxes=_boxes_of(logits > 0), iou=iou, stability=stable, object_score=present)


def _best_of(batches: Sequence[Rough], config: GridConfig) -> Rough:
    """The masks of all batches of a crop, without duplicates by boxes, best first."""
    boxes = np.concatenate([rough.boxes for rough in batches])
    scores = np.concatenate([rough.rank(config) for rough in batches])
    place = [(batch, row) for batch in batches for row in range(len(batch))]
    kept = [place[i] for i in masks.nms(box_table(boxes, boxes), scores, config.max_box_overlap)]
    if len(batches) == 1:
        return batches[0].take([row for _, row in kept])
    return _joined([batch.take([row]) for batch, row in kept]) if kept else batches[0]


def _joined(roughs: Sequence[Rough]) -> Rough:
    return Rough(
        torch.cat([rough.logits for rough in roughs]),
        *(
            np.concatenate([getattr(rough, name) for rough in roughs])
            for name in ("boxes", "iou", "stability", "object_score", "agreement", "points_xy")
        ),
    )


def _boxes_of(found: Tensor) -> Boxes:
    """Boxes of non-empty masks bool (M, h, w): float (M, 4)."""
    boxes = [pixels.box_of(mask) for mask in found.cpu().numpy()]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _area(box_xyxy: BoxPx) -> int:
    return (box_xyxy[2] - box_xyxy[0]) * (box_xyxy[3] - box_xyxy[1])
