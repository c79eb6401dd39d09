"""Faces are blurred before a video is stored: the stored file and all that is made of it never show them.

The detector is OpenCV's YuNet (face_detection_yunet_2023mar.onnx of the OpenCV Zoo, 232,589 bytes, MIT licence), or any
ONNX file that `cv2.FaceDetectorYN` reads. Nothing is downloaded: `ingest.face_detector` names the file. If a frame has
fewer faces than another one within half a second, the places of all faces of this time are blurred on it: a face that
the detector misses for a moment stays hidden. Faces that are never found stay visible: very small, turned away or
covered ones.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.wording import counted

if TYPE_CHECKING:
    import av.video.frame

Box = tuple[int, int, int, int]  # x, y, x, y in pixels; ends are not in it
Detect = Callable[
    [NDArray[np.uint8]], list[tuple[float, float, float, float]]
]  # BGR (H, W, 3) -> boxes in pixels, xyxy

#: sha256 of the files whose licence we know -> their name. Source: opencv/opencv_zoo, models/face_detection_yunet
KNOWN = {"8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4": "yunet-2023mar"}


FACES = "faces_blurred"  # in the metadata of a video: an object, `Blurred`


class BadDetector(ValueError):
    """The file that `ingest.face_detector` names is missing, or no detector of faces."""


@dataclass(frozen=True, kw_only=True)
class BlurConfig:
    """How faces are found and blurred."""

    min_score: float = 0.6  # of the detector, 0 to 1: rather a blurred lamp than a visible face
    sides_px: tuple[int, ...] = (960, 320)  # longer side of the picture that is searched; large faces need a small one
    every: int = 2  # frames from one search to the next
    hold: int = 12  # frames before and after, on which a face is blurred that is not found there
    margin: float = 0.25  # of a box's sides, on each side
    cells: int = 4  # a box becomes so many cells a side, blurred into each other


@dataclass
class Blurred:
    """What was blurred in a video."""

    detector: str
    faces: int = 0  # a face that is lost for a second counts again
    frames: int = 0

    @property
    def changes(self) -> list[str]:
        """What it did to the picture, in words; nothing for a video without faces."""
        return (
            [f"faces blurred, {counted(self.faces, 'face')} on {counted(self.frames, 'frame')}"] if self.frames else []
        )


class FaceDetector:
    """Finds faces with an ONNX file. For one thread."""

    def __init__(self, weights: Path, min_score: float) -> None:
        """Raises BadDetector."""
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns of its own engine otherwise
        self.name = _name(weights)
        try:
            self._net = cv2.FaceDetectorYN.create(str(weights), "", (320, 320), min_score, 0.3, 5000)
        except cv2.error as error:
            raise BadDetector(f"{weights}: no detector of faces: {' '.join(str(error).split())[:200]}") from None

    def __call__(self, picture: NDArray[np.uint8]) -> list[tuple[float, float, float, float]]:
        """The faces of a picture, BGR (H, W, 3): boxes in pixels, xyxy."""
        self._net.setInputSize((picture.shape[1], picture.shape[0]))
        _, found = self._net.detect(picture)
        return [] if found is None else [(x, y, x + w, y + h) for x, y, w, h in found[:, :4].tolist()]


def _name(weights: Path) -> str:
    """A name for the metadata. Raises BadDetector."""
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise BadDetector(f"{weights}: {error.strerror}") from None
    return KNOWN.get(digest, f"{weights.stem} sha256 {digest[:16]}")


class FaceBlur:
    """Blurs the faces in the pictures of a video while they are written."""

    def __init__(self, detect: Detect, detector: str, config: BlurConfig) -> None:
        self._detect, self._config = detect, config
        self.blurred = Blurred(detector)

    def through(self, pictures: Iterator[av.video.frame.VideoFrame]) -> Iterator[av.video.frame.VideoFrame]:
        """The pictures, yuv420p, with blurred faces; a picture without faces stays as it is.

        Holds `hold` pictures in memory: a face that is found later is blurred on them.
        """
        hold = self._config.hold
        waiting: deque[av.video.frame.VideoFrame] = deque()
        found: deque[list[Box] | None] = deque()  # of the waiting pictures and of those before them; None: not searched
        for n, picture in enumerate(pictures):
            boxes = self._faces(picture) if n % self._config.every == 0 else None
            old = [box for of in found if of for box in of]
            self.blurred.faces += sum(not any(_touch(box, other) for other in old) for box in boxes or ())
            waiting.append(picture)
            found.append(boxes)
            if len(waiting) > hold:
                yield self._written(waiting, found)
            if len(found) > 2 * hold:
                found.popleft()
        while waiting:
            yield self._written(waiting, found)
            if len(found) > hold + len(waiting):
                found.popleft()

    def _faces(self, picture: av.video.frame.VideoFrame) -> list[Box]:
        """Boxes with their margin, at even pixels, in the picture."""
        height, width = picture.height, picture.width
        found: list[Box] = []
        for side in self._config.sides_px:
            scale = min(1.0, side / max(height, width))
            small = picture.reformat(
                width=max(2, round(width * scale)), height=max(2, round(height * scale)), format="bgr24"
            )
            for x0, y0, x1, y1 in self._detect(np.asarray(small.to_ndarray(), dtype=np.uint8)):
                dx, dy = self._config.margin * (x1 - x0), self._config.margin * (y1 - y0)
                box = _even(((x0 - dx) / scale, (y0 - dy) / scale, (x1 + dx) / scale, (y1 + dy) / scale), height, width)
                if box is not None and not any(_touch(box, other) for other in found):
                    found.append(box)
        return found

    def _written(
        self, waiting: deque[av.video.frame.VideoFrame], found: Sequence[Sequence[Box] | None]
    ) -> av.video.frame.VideoFrame:
        """The first of the waiting pictures, blurred. found: within `hold` pictures of it, up to the last one."""
        at = len(found) - len(waiting)
        picture = waiting.popleft()
        searched = [(abs(n - at), of) for n, of in enumerate(found) if of is not None]
        near = [of for distance, of in searched if distance <= self._config.every]
        is_complete = min(map(len, near), default=0) == max((len(of) for _, of in searched), default=0)
        boxes = [box for of in (near if is_complete else [of for _, of in searched]) for box in of]
        if not boxes:
            return picture
        self.blurred.frames += 1
        return _without(picture, boxes, self._config.cells)


def _even(box: tuple[float, float, float, float], height: int, width: int) -> Box | None:
    """The box in the picture, with even ends: colours have half of the pixels. None if it is outside."""
    x0, y0 = (max(0, int(start) // 2 * 2) for start in box[:2])
    x1, y1 = min(width, -int(-box[2] // 2) * 2), min(height, -int(-box[3] // 2) * 2)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _touch(a: Box, b: Box) -> bool:
    """Whether most of the smaller box is in the other one: the same face."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width > 0 and height > 0 and width * height > 0.5 * smaller


def _without(picture: av.video.frame.VideoFrame, boxes: Sequence[Box], cells: int) -> av.video.frame.VideoFrame:
    """A copy of a yuv420p picture, with the boxes blurred."""
    import av

    height, width = picture.height, picture.width
    packed = picture.to_ndarray().copy()  # (1.5 H, W): the brightness, then both colours at half the size
    colours = packed[height:].reshape(2, height // 2, width // 2)
    for x0, y0, x1, y1 in boxes:
        for plane, half in ((packed[:height], 1), (colours[0], 2), (colours[1], 2)):
            part = plane[y0 // half : y1 // half, x0 // half : x1 // half]
            coarse = cv2.resize(part, (cells, cells), interpolation=cv2.INTER_AREA)
            part[:] = cv2.resize(coarse, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_LINEAR)
    made = av.VideoFrame.from_ndarray(packed, format="yuv420p")
    made.colorspace, made.color_range = picture.colorspace, picture.color_range
    return made
