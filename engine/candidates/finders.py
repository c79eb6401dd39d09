"""How objects are found on one frame: with grids of points, or with the boxes of a detector that was given words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from engine.candidates.search import Finder, Seed
from model import masks, proposals
from model.checkpoints import LoadedModel
from model.detector import Detector
from model.image import ImagePredictor
from model.proposals import GridConfig
from storage.iou import mask_table
from storage.pixels import Mask, Rgb
from storage.records import Prompt


def grid_finder(loaded: LoadedModel, grid: GridConfig) -> Finder:
    """Finds objects with grids of points."""

    def find(rgb: Rgb, where: Mask | None) -> list[Seed]:
        return [
            Seed(
                mask=found.mask,
                rank=found.agreement if grid.by_agreement else found.score,
                score=found.score,
                stability=found.stability,
                object_score=found.object_score,
                found_by={
                    "points_xy": [[round(float(v), 1) for v in found.point_xy]],
                    "labels": [1],
                    "seed_score": round(found.score, 4),
                    "seed_agreement": round(found.agreement, 4),
                    "grid": dataclasses.asdict(grid),
                },
            )
            for found in proposals.propose(loaded, rgb, grid, where=where)
        ]

    return find


def text_finder(
    loaded: LoadedModel,
    detector: Detector,
    labels: Mapping[str, str],
    *,
    name: str,
    min_score: float,
    max_overlap: float,
) -> Finder:
    """Finds what words name: a detector gives boxes, the model draws a mask in each of them.

    labels: word in lower case -> the label of its objects.
    name: of the detector, for the provenance.  min_score: of a box, in [0, 1].  max_overlap: IoU of two masks, above
    which only that with the better box stays.  The detector looks at the whole frame, wherever objects are searched.
    """

    def find(rgb: Rgb, where: Mask | None) -> list[Seed]:
        boxes = detector.find(rgb, list(labels), min_score)
        if not boxes:
            return []
        hw = (rgb.shape[0], rgb.shape[1])
        predictor = ImagePredictor(loaded)
        predictor.set_image(rgb)
        answer = predictor.predict([Prompt(frame_idx=0, box_xyxy=box.box_xyxy) for box in boxes])
        drawn, best = answer.masks(hw), answer.best()
        stability, iou = masks.stability_score(best).tolist(), answer.iou.amax(1).tolist()
        kept = masks.nms(mask_table(drawn, drawn), np.array([box.score for box in boxes]), max_overlap)
        return [
            Seed(
                mask=drawn[i],
                rank=boxes[i].score,
                score=iou[i],
                stability=stability[i],
                object_score=float(answer.object_score[i]),
                found_by={
                    "box_xyxy": [round(v, 1) for v in boxes[i].box_xyxy],
                    "word": boxes[i].word,
                    "box_score": round(boxes[i].score, 4),
                    "seed_score": round(iou[i], 4),
                    "detector": name,
                    "min_score": min_score,
                },
                label=labels[boxes[i].word],
            )
            for i in kept
            if drawn[i].any()
        ]

    return find
