"""The interactive protocols: J&F that a simulated annotator reaches with a model, one object at a time.

Offline: the annotator watches the whole video, clicks on the worst frame, and everything is propagated again. Online:
the annotator watches the video once and clicks where the mask is bad. Image mode: single frames. The time is modelled,
never measured (see `effort`). Source: Ravi et al. 2024, section 6 and appendix F.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.datasets.labelled import Dataset, LabelledVideo
from engine.progress import Progress
from engine.protocols import annotator, effort
from engine.protocols.annotator import GOOD, prompt_object
from engine.protocols.truth import NothingHeldOut, Read, Truth, nothing_held_out
from storage import rle
from storage.iou import mask_iou
from storage.pixels import Mask
from storage.records import Prompt
from validation import jf

if TYPE_CHECKING:
    from model.checkpoints import LoadedModel
    from model.features import FeatureCache
    from model.image import ImagePredictor

FRAMES, CLICKS = 8, 3  # maximum number of frames with clicks, and of clicks on each


@dataclass(frozen=True)
class Reached:
    """The result after clicks on a number of frames of one object."""

    frames: int  # with clicks
    clicks: int  # in all
    metric: jf.JF | None
    modelled_s: float  # of an annotator


def offline(
    loaded: LoadedModel, features: FeatureCache, hw: tuple[int, int], frame_count: int, truth: Truth, most: int = FRAMES
) -> Iterator[Reached]:
    """The result after each pass: at most `most` passes, fewer once every frame is right.

    Yields nothing for an object that is never visible.
    """
    from model.tracker import Tracker, TrackerConfig

    if truth.first is None:
        return
    start = truth.frame_idx[truth.first]
    wanted, targets = truth.frame_idx[truth.first :], truth.masks[truth.first :]
    tracker = Tracker(loaded, features, video_hw=hw, frame_count=frame_count, config=TrackerConfig(history_frames=None))
    clicked: list[int] = []  # indices of annotated frames
    clicks = 0
    made: list[bytes] = []
    for number in range(1, most + 1):
        at = _worst(made, targets, hw, clicked) if made else 0
        if at is None:
            return
        mask = rle.decode(made[at], *hw) if made else None
        clicks += prompt_object(tracker, "it", wanted[at], targets[at], CLICKS, mask)
        clicked.append(at)
        found: dict[int, bytes] = {}
        for answer in tracker.propagate(start, frame_count):
            found[answer.frame_idx] = rle.encode(answer.masks(hw)[0])
        made = [found[frame] for frame in wanted]
        watched = (frame_count - start) * number
        seconds = effort.modelled_s(watched=watched, located=number, clicks=clicks)
        yield Reached(number, clicks, truth.measure(made, hw), seconds)


def online(
    loaded: LoadedModel, features: FeatureCache, hw: tuple[int, int], frame_count: int, truth: Truth, most: int = FRAMES
) -> list[Reached]:
    """The results with clicks on at most 1, 2, ... `most` frames, the prompted one included.

    Fewer results if fewer frames are bad; none for an object that is never visible. One pass gives all results: at each
    bad frame the object is copied, the copy gets the clicks, and the original continues without them.
    """
    from model.tracker import Tracker, TrackerConfig

    if truth.first is None:
        return []
    start = truth.frame_idx[truth.first]
    at = {frame: i for i, frame in enumerate(truth.frame_idx)}
    tracker = Tracker(loaded, features, video_hw=hw, frame_count=frame_count, config=TrackerConfig(history_frames=None))
    clicks = [prompt_object(tracker, "1", start, truth.masks[truth.first], CLICKS)]
    made: list[list[bytes]] = [[]]  # one list of masks for each limit
    frame = start
    while frame < frame_count:
        for answer in tracker.propagate(frame, frame_count):
            frame = answer.frame_idx + 1
            if answer.frame_idx not in at:
                continue
            found, target = answer.masks(hw), truth.masks[at[answer.frame_idx]]
            last = found[-1]  # of the copy with the most clicks
            if stop := answer.frame_idx > start and len(clicks) < most and mask_iou(last, target) < GOOD:
                name = str(len(clicks) + 1)
                tracker.copy(str(len(clicks)), name)
                made.append(list(made[-1]))
                clicks.append(clicks[-1] + prompt_object(tracker, name, answer.frame_idx, target, CLICKS, last))
                (corrected,) = tracker.propagate(answer.frame_idx, frame, objects=[name])
                found = np.concatenate([found, corrected.masks(hw)])
            for of, mask in zip(made, found, strict=True):
                of.append(rle.encode(mask))
            if stop:
                break  # propagate again, with the copy
    return [
        Reached(
            frames=number,
            clicks=clicks[number - 1],
            metric=truth.measure(of, hw),
            modelled_s=effort.modelled_s(watched=frame_count - start, located=number, clicks=clicks[number - 1]),
        )
        for number, of in enumerate(made, 1)
    ]


def on_images(loaded: LoadedModel, read: Read, truth: Truth, clicks: Sequence[int] = (1, 5)) -> dict[int, list[float]]:
    """Image mode: the IoU on each annotated frame that shows the object, for each number of clicks on that frame."""
    from model.image import ImagePredictor

    reached: dict[int, list[float]] = {count: [] for count in clicks}
    predictor = ImagePredictor(loaded)
    for frame, target in zip(truth.frame_idx, truth.masks, strict=True):
        if not target.any():
            continue
        predictor.set_image(read(frame))
        masks = _clicked(predictor, frame, target, max(clicks))
        for count in clicks:
            reached[count].append(mask_iou(masks[min(count, len(masks)) - 1], target))
    return reached


def _clicked(predictor: ImagePredictor, frame_idx: int, target: Mask, most: int) -> list[Mask]:
    """The mask after each click on one frame; fewer than `most` once a mask is right."""
    previous = None

    def ask(prompt: Prompt) -> Mask:
        nonlocal previous
        answer = predictor.predict([prompt], previous)
        previous = answer.best()
        mask: Mask = answer.masks((target.shape[0], target.shape[1]))[0]
        return mask

    return [mask for _, mask in annotator.click_on(ask, frame_idx, target, most)]


@dataclass(frozen=True)
class Exam:
    """The result of a checkpoint in the interactive protocols on a dataset."""

    objects: int
    offline_jf: tuple[float, ...]  # points after clicks on 1 .. FRAMES frames
    offline_mean_jf: float  # the paper's figure: their mean
    offline_modelled_s: float  # of an annotator for all passes, mean over objects
    online_jf: tuple[float, ...]  # points with clicks on at most 1 .. FRAMES frames
    online_mean_jf: float
    online_frames: float  # number of frames with clicks, if FRAMES are allowed; mean over objects
    online_modelled_s: float  # for the clicks on these frames
    image_miou_1: float  # percent, after one click
    image_miou_5: float


@dataclass(frozen=True)
class ImageExam:
    """The result of a checkpoint in image mode. Percent."""

    objects: int
    frames: int  # frames that show an object, counted once for each object
    miou_1: float  # after one click
    miou_5: float


def measure(
    data: Dataset,
    loaded: LoadedModel,
    *,
    most_objects: int | None = None,
    progress: Progress = lambda done, total, name: None,
) -> Exam:
    """All interactive protocols on the visible objects of a dataset. most_objects: use only the first ones.

    Raises NothingHeldOut, or the error of a bad video.
    """
    from model.features import FeatureCache

    passes: list[list[Reached]] = []
    once: list[list[Reached]] = []
    images: dict[int, list[float]] = {1: [], 5: []}
    for video, truth in _asked(data, most_objects, progress):
        hw = (video.height, video.width)
        with video.open() as reader:
            features = FeatureCache(loaded, reader.read)
            passes.append(list(offline(loaded, features, hw, video.frame_count, truth)))
            once.append(online(loaded, features, hw, video.frame_count, truth))
            for count, found in on_images(loaded, reader.read, truth).items():
                images[count] += found
    if not images[1] or not any(r.metric for of in passes for r in of):
        raise NothingHeldOut(f"{data.name}: no object is visible between the first and the last annotated frame")
    offline_jf, online_jf = curve(passes), curve(once)
    return Exam(
        objects=len(once),
        offline_jf=tuple(offline_jf),
        offline_mean_jf=float(np.mean(offline_jf)),
        offline_modelled_s=float(np.mean([of[-1].modelled_s for of in passes])),
        online_jf=tuple(online_jf),
        online_mean_jf=float(np.mean(online_jf)),
        online_frames=float(np.mean([of[-1].frames for of in once])),
        online_modelled_s=float(np.mean([of[-1].modelled_s for of in once])),
        image_miou_1=100 * float(np.mean(images[1])),
        image_miou_5=100 * float(np.mean(images[5])),
    )


def measure_images(
    data: Dataset,
    loaded: LoadedModel,
    *,
    most_objects: int | None = None,
    progress: Progress = lambda done, total, name: None,
) -> ImageExam:
    """Image mode alone, on the same objects as `measure`."""
    objects = 0
    images: dict[int, list[float]] = {1: [], 5: []}
    for video, truth in _asked(data, most_objects, progress):
        objects += 1
        with video.open() as reader:
            for count, found in on_images(loaded, reader.read, truth).items():
                images[count] += found
    means = (100 * float(np.mean(images[count])) for count in (1, 5))
    return ImageExam(objects, len(images[1]), *means)


def _asked(data: Dataset, most: int | None, progress: Progress) -> Iterator[tuple[LabelledVideo, Truth]]:
    """The visible objects of a dataset, the first `most` of them. Raises NothingHeldOut if none is."""
    count = 0
    most_frames: int | None = None
    for number, video in enumerate(data.videos()):
        most_frames = max(most_frames or 0, len(video.frame_idx))
        for truth in Truth.all_of(video).values():
            if count == most:
                return
            if truth.first is not None:
                progress(number, len(data), video.video_id)
                count += 1
                yield video, truth
    if count == 0:
        raise nothing_held_out(data, most_frames)


def curve(of_objects: Sequence[Sequence[Reached]], most: int = FRAMES) -> list[float]:
    """J&F in points after 1 .. `most` frames, mean over objects. An object with fewer frames keeps its last value."""
    curve_points = []
    for number in range(1, most + 1):
        last = [next((r for r in reversed(of) if r.frames <= number), None) for of in of_objects]
        points = [50 * (r.metric.j + r.metric.f) for r in last if r is not None and r.metric is not None]
        curve_points.append(float(np.mean(points)) if points else float("nan"))
    return curve_points


def _worst(made: Sequence[bytes], targets: Sequence[Mask], hw: tuple[int, int], clicked: Sequence[int]) -> int | None:
    """The annotated frame with the lowest IoU that has no clicks yet; None if every such frame is right."""
    ious = {i: mask_iou(rle.decode(made[i], *hw), targets[i]) for i in range(len(made)) if i not in clicked}
    worst = annotator.worst_frame(ious, clicked)
    return None if worst is None or ious[worst] == 1.0 else worst
