"""Zero-shot detection: boxes of what words name, on one picture. Grounding DINO and OWLv2, as transformers has them.

Knows nothing of masks, of time and of ontologies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from PIL import Image

from storage.errors import first_line
from storage.pixels import Rgb


class NoDetector(Exception):
    """This is not a detector that transformers can load."""


@dataclass(frozen=True)
class Detection:
    """A box that one of the words names."""

    box_xyxy: tuple[float, float, float, float]  # px, inside the picture
    score: float  # in [0, 1], the model's own estimate
    word: str


class Detector:
    """Finds what words name. model, processor: those of one checkpoint of transformers."""

    def __init__(self, model: Any, processor: Any, device: str = "cpu") -> None:
        self._model, self._processor, self._device = model.to(device).eval(), processor, device

    @torch.inference_mode()
    def find(self, rgb: Rgb, words: Sequence[str], min_score: float) -> list[Detection]:
        """The boxes with at least this score, best first.

        rgb: uint8 (H, W, 3).  words: in lower case. Raises FloatingPointError if the model gives no numbers.
        """
        height, width = rgb.shape[:2]
        given = self._processor(images=Image.fromarray(rgb), text=[list(words)], return_tensors="pt").to(self._device)
        outputs = self._model(**given)
        if not bool(torch.isfinite(outputs.pred_boxes).all()):
            raise FloatingPointError("the detector gave no numbers")
        (answer,) = self._processor.post_process_grounded_object_detection(
            outputs, threshold=min_score, target_sizes=[(height, width)], text_labels=[list(words)]
        )
        found = []
        rows = zip(answer["boxes"].tolist(), answer["scores"].tolist(), answer["text_labels"], strict=True)
        for (x0, y0, x1, y1), score, text in rows:
            box = (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))
            word = named(text, words)
            if word is not None and box[0] < box[2] and box[1] < box[3]:
                found.append(Detection(box, score, word))
        return sorted(found, key=lambda d: -d.score)


def load(name: str, device: str = "cpu") -> Detector:
    """A detector by its name on the Hugging Face hub, or from a folder. Raises NoDetector."""
    try:
        model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(name)
        processor = transformers.AutoProcessor.from_pretrained(name)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError) as error:
        raise NoDetector(f"{name}: {first_line(error)}") from error
    return Detector(model, processor, device)


def named(text: str, words: Sequence[str]) -> str | None:
    """The word that a detector's text means; None if it is none of them.

    Grounding DINO answers with those pieces of the prompt that agree with a box: with a part of a word, or with the end
    of one word and the beginning of the next. The longest word of which the text has all or a part is taken.
    """
    if text in words:
        return text
    pieces = set(re.findall(r"[\w'-]+", text.lower()))
    whole = [word for word in words if set(word.split()) <= pieces]
    some = [word for word in words if set(word.split()) & pieces]
    return max(whole or some, key=len, default=None)
