"""Auto-masklets: the candidates of each video of a batch, see `engine.candidates`.

One part and one marker a video, so a killed run continues with the next video. A video on which the model fails gets a
quarantine record and an empty part; the other videos go on. So does one at which any other error comes twice, unless it
is the store's or the disk's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from engine import attempts, batches, trouble
from engine.batches import BatchStage
from engine.candidates.config import SearchConfig
from engine.progress import Progress, prefixed
from engine.registry import Checkpoint
from engine.services import Services
from engine.settings import AutoSettings
from storage import log_ids
from storage.blobs.base import BlobError, BlobMissing
from storage.dataset import parts
from storage.errors import first_line
from storage.records import FPS, Masklet, Quarantined, Refusal, Video
from storage.videos.reader import FrameUnreadable
from storage.wording import counted

if TYPE_CHECKING:
    from engine.candidates.search import Finder
    from model.checkpoints import LoadedModel
    from model.proposals import GridConfig

log = logging.getLogger(__name__)

STAGE = "auto-masklets"  # its name in the records of trouble and of quarantine
SMALL_PX, SMALL_MAX_OVERLAP = 256, 0.5  # models up to this input size, and the IoU above which two masks are duplicates
SMALL_MIN_AGREEMENT = 0.55  # of these models: a mask that no other click agrees or disagrees with has 0.5
NOT_COMPARED = "the candidates are not compared with the checkpoint before: %s"
LATE_AGREEMENT = 0.05  # so much more for an object that enters late: it gets several chances to be found
# Small models search again after smaller changes of the picture (see SearchConfig). Their searches cost little, and
# find more late objects so: 14 of 59 instead of 13 on clips 100 to 123 of benchmarks/auto_masklets.py.
SMALL_CHANGE_JUMP, SMALL_UNCOVERED_JUMP = 2.0, 0.04


class NotProposed(Exception):
    """Some videos of the batch have no candidates yet."""


class UnknownWord(ValueError):
    """A word of `auto.text` is no class of the ontology."""


class ModelFailed(Exception):
    """The model's outputs for this video are not finite."""


def pending(s: Services) -> list[str]:
    """The batches whose videos have no candidates yet, except those of an import, which fills them itself."""
    return [b for b in batches.pending(s.blobs, BatchStage.PROPOSED) if not batches.is_import(s.blobs, b)]


def missing(s: Services, batch_id: str) -> list[str]:
    """The videos of a batch that have no candidates yet."""
    ids = batches.video_ids(s.blobs, batch_id)
    return [v for v in ids if not parts.has_marker(s.blobs, "candidates", batch_id, v)]


def chunks(s: Services, batch_id: str) -> list[list[str]]:
    """The videos of a batch that have no candidates yet, in groups of one task each."""
    todo = missing(s, batch_id)
    size = s.settings.auto.chunk_videos
    return [todo[i : i + size] for i in range(0, len(todo), size)]


def propose_batch(s: Services, batch_id: str, progress: Progress | None = None) -> None:
    """Makes the missing candidates of a batch in this process, and marks the batch. Can run again at any time.

    progress: called with the frames done and the frames of one video; the name counts the videos.
    """
    with trouble.failure_recorded(s.blobs, batch_id, STAGE):
        todo = missing(s, batch_id)
    propose_videos(s, batch_id, todo, progress)
    finish(s, batch_id)


def propose_videos(s: Services, batch_id: str, video_ids: Sequence[str], progress: Progress | None = None) -> str:
    """Makes the candidates of some videos of a batch and returns the batch id; videos that have them are skipped.

    An error of the video itself is a quarantine record; so is a video at which two workers were killed, or that is to
    blame for two errors (`_blame`). After any other error the next video follows, too; the first error is raised at
    the end: one of the store or the disk as it is, NotProposed for another.
    progress: called with the frames done and the frames of one video; the name counts the videos.
    """
    with trouble.failure_recorded(s.blobs, batch_id, STAGE), attempts.stoppable():
        _propose_videos(s, batch_id, video_ids, progress)
    return batch_id


def _propose_videos(s: Services, batch_id: str, video_ids: Sequence[str], progress: Progress | None) -> None:
    todo = [v for v in video_ids if not parts.has_marker(s.blobs, "candidates", batch_id, v)]
    if not todo:
        return
    checkpoint = _pinned_checkpoint(s, batch_id)
    _check_words(s, batch_id)
    earlier = _earlier(s, checkpoint)
    kills = attempts.killed(s.blobs, STAGE, {_subject(batch_id, video_id) for video_id in todo})
    suspicion = kills + attempts.failures(s.blobs, STAGE)
    problems = dict[str, Exception]()
    failed = dict[str, str]()  # the errors since the last video that succeeded
    # the suspects come last, so that the others are not lost
    for number, video_id in enumerate(sorted(todo, key=lambda video_id: suspicion[_subject(batch_id, video_id)]), 1):
        subject = _subject(batch_id, video_id)
        shown = prefixed(progress, f"{number} of {len(todo)}") if progress else None
        with log_ids.about(video_id=video_id, checkpoint=checkpoint.name):
            if kills[subject] >= attempts.MOST:
                _give_up(s, batch_id, video_id, Refusal.KILLS_WORKER, attempts.detail(kills[subject]))
                continue
            loaded = s.model(checkpoint)
            try:
                with attempts.attempt(s.blobs, STAGE, subject):
                    video = s.video(video_id)
                    found = propose_video(s, video, loaded, checkpoint, shown)
                    if earlier is not None:
                        found = _compared(s, video, earlier, found)
            except (FrameUnreadable, ModelFailed) as error:
                _give_up(s, batch_id, video_id, Refusal.FAILED, str(error))
                continue
            except Exception as error:
                log.warning("no candidates, the next video follows", exc_info=True)
                if isinstance(error, OSError | BlobError) and not isinstance(error, BlobMissing):
                    problems[video_id] = error.with_traceback(None)  # it would hold the memory of this video
                else:
                    failed[video_id] = f"{type(error).__name__}: {first_line(error)}"
                    problems[video_id] = NotProposed(f"{video_id}: {failed[video_id]}")
                continue
            if suspicion[subject]:  # before the part: once it is there, nobody comes back to the video
                attempts.forget(s.blobs, STAGE, subject)
            _write(s, batch_id, video_id, found)
        for given_up in _blame(s, batch_id, failed):
            del problems[given_up]
        failed.clear()
    for given_up in _blame(s, batch_id, dict(list(failed.items())[:1])):
        del problems[given_up]
    if problems:
        raise next(iter(problems.values()))


def _earlier(s: Services, checkpoint: Checkpoint) -> LoadedModel | None:
    """The checkpoint before this one, if the settings ask for it and it is still there."""
    from model.checkpoints import NoCheckpoint

    before = s.parent(checkpoint) if s.settings.verifier.compare else None
    if before is None:
        return None
    try:
        return s.model(before)
    except NoCheckpoint as error:
        log.warning(NOT_COMPARED, first_line(error))
        return None


def _compared(s: Services, video: Video, earlier: LoadedModel, found: list[Masklet]) -> list[Masklet]:
    """The candidates of one video, with how well the checkpoint before follows them: see `verifier.compare`."""
    from engine.candidates import finding

    with s.frames(video) as reader:
        try:
            return finding.with_agreement(earlier, reader.read, found)
        except FloatingPointError as error:
            log.warning(NOT_COMPARED, error)
            return found


def _blame(s: Services, batch_id: str, failed: Mapping[str, str]) -> list[str]:
    """Notes errors for which a video is to blame, and returns the videos that are given up: they have too many.

    failed: the error of each video. Blame is certain where a later video succeeded. After the last success the machine
    may be at fault, as when the memory of its GPU is full: then only the first video is blamed, so that a broken
    machine does not empty a batch, and a bad video does not stop it for ever.
    """
    given_up = []
    for video_id, error in failed.items():
        if attempts.note_failure(s.blobs, STAGE, _subject(batch_id, video_id)) >= attempts.MOST:
            with log_ids.about(video_id=video_id):
                _give_up(s, batch_id, video_id, Refusal.FAILED, error)
            given_up.append(video_id)
    return given_up


def _give_up(s: Services, batch_id: str, video_id: str, reason: Refusal, detail: str) -> None:
    log.warning("the video is quarantined: %s", detail)
    row = Quarantined(stage=STAGE, subject=video_id, reason=reason.value, detail=detail, batch_id=batch_id)
    parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id=video_id, rows=[row])
    attempts.forget(s.blobs, STAGE, _subject(batch_id, video_id))
    _write(s, batch_id, video_id, [])


def _write(s: Services, batch_id: str, video_id: str, found: list[Masklet]) -> None:
    log.info("%s", counted(len(found), "candidate"))
    parts.write_part(s.blobs, kind="candidates", batch_id=batch_id, video_id=video_id, rows=found)


def _check_words(s: Services, batch_id: str) -> None:
    """Whether the settings can be used: otherwise every video would fail. Raises NoDetector, UnknownWord."""
    if s.settings.auto.max_objects and labels_of_words(s, batches.project_of(s.blobs, batch_id)):
        s.detector  # noqa: B018  loads it


def _subject(batch_id: str, video_id: str) -> str:
    return f"{batch_id}-{video_id}"


def finish(s: Services, batch_id: str) -> None:
    """Marks the batch as proposed. Raises NotProposed while a video lacks candidates: the batch stays pending."""
    with trouble.failure_recorded(s.blobs, batch_id, STAGE):
        wanted = batches.video_ids(s.blobs, batch_id)
        made = {m.video_id: m.rows for m in parts.markers(s.blobs, "candidates", batch_id)}
    if lacking := set(wanted) - set(made):
        of = counted(len(wanted), "video")
        problem = NotProposed(f"batch {batch_id}: {len(lacking)} of {of} without candidates")
        if not trouble.is_recorded(s.blobs, batch_id, STAGE):  # a killed process records nothing
            trouble.record(s.blobs, batch_id, STAGE, str(problem))
        raise problem
    batches.mark(s.blobs, batch_id, BatchStage.PROPOSED, {"candidates": sum(made.values())})
    trouble.remove(s.blobs, batch_id, STAGE)


def propose_video(
    s: Services, video: Video, loaded: LoadedModel, checkpoint: Checkpoint, progress: Progress | None = None
) -> list[Masklet]:
    """The candidates of one video.

    Nothing is searched if the settings allow no candidate. Raises ModelFailed, FrameUnreadable, NoDetector and
    UnknownWord.
    """
    from engine.candidates import finding

    if not s.settings.auto.max_objects:
        return []
    config, find = search(s.settings.auto, loaded.image_size), _finder(s, loaded, video)

    def tell(frame_idx: int) -> None:
        if progress:
            progress(frame_idx + 1, video.frame_count, video.video_id)

    with s.frames(video) as reader:
        try:
            found = finding.find_candidates(
                video,
                loaded,
                reader.read,
                find,
                config,
                checkpoint=checkpoint.name,
                round_number=checkpoint.round,
                progress=tell,
            )
            return finding.with_cycles(loaded, reader.read, found.masklets)
        except FloatingPointError as error:
            raise ModelFailed(f"{error} for {video.video_id}") from error


def _finder(s: Services, loaded: LoadedModel, video: Video) -> Finder:
    """How objects are found: by the words of the settings, or with grids. Raises NoDetector, UnknownWord."""
    from engine.candidates import finders

    auto = s.settings.auto
    points = grid(auto, loaded.image_size)
    if not auto.words:
        return finders.grid_finder(loaded, points)
    return finders.text_finder(
        loaded,
        s.detector,
        labels_of_words(s, batches.project_of(s.blobs, video.batch_id)),
        name=auto.detector,
        min_score=auto.min_text_score,
        max_overlap=points.max_mask_overlap,
    )


def labels_of_words(s: Services, project: str = "") -> dict[str, str]:
    """The label of each word that the settings ask for, in a project; empty if they ask for everything.

    With an ontology, a word is the name of a class in lower case. Raises UnknownWord.
    """
    words = s.settings.auto.words
    if not words or (ontology := s.ontology_of(project)) is None:
        return {word: word for word in words}
    names = {each.name.lower(): each.name for each in ontology.classes}
    if unknown := [word for word in words if word not in names]:
        raise UnknownWord(f"the ontology has no class {unknown[0]!r}: it has {', '.join(names.values())}")
    return {word: names[word] for word in words}


def grid(settings: AutoSettings, image_size: int) -> GridConfig:
    """The grids of a search: SA-V's three scales, or one coarse grid for small models and the preset "quick".

    image_size: of the model, px. SAM's thresholds and crops assume a model that rates its masks well. Models up to
    256 px get no crops, and their proposals are chosen and ranked by agreement.
    """
    from model.proposals import GridConfig, Scale

    small = image_size <= SMALL_PX
    chosen = GridConfig()
    if small:
        chosen = replace(
            chosen,
            by_agreement=True,
            min_agreement=SMALL_MIN_AGREEMENT,
            min_iou=0.0,
            min_stability=0.0,
            max_mask_overlap=SMALL_MAX_OVERLAP,
            redraw=True,
        )
    if settings.min_iou is not None:
        chosen = replace(chosen, min_iou=settings.min_iou)
    if settings.min_stability is not None:
        chosen = replace(chosen, min_stability=settings.min_stability)
    if settings.min_agreement is not None and small:
        chosen = replace(chosen, min_agreement=settings.min_agreement)
    preset = settings.preset or ("quick" if small else "default")
    quick = (Scale(crops_per_side=1, points_per_side=16),)
    return replace(chosen, scales=quick) if preset == "quick" else chosen


def track_step(settings: AutoSettings, image_size: int) -> int:
    """Every how many frames of a video are tracked: as set, or 4 for small models and 1 for others."""
    return FPS // (settings.track_fps or (6 if image_size <= SMALL_PX else 24))


def search(settings: AutoSettings, image_size: int) -> SearchConfig:
    """When objects are searched and which ones are new, for a model of this image size (px)."""
    points = grid(settings, image_size)
    ranked_by_agreement = points.by_agreement and not settings.words
    chosen = SearchConfig(
        max_objects=settings.max_objects,
        step=track_step(settings, image_size),
        window_s=settings.window_s,
        keyframe_s=settings.keyframe_s or None,
        late_rank=points.min_agreement + LATE_AGREEMENT if ranked_by_agreement else 0.0,
        same_masklet=points.max_mask_overlap,
    )
    if image_size <= SMALL_PX:
        chosen = replace(chosen, change_jump=SMALL_CHANGE_JUMP, uncovered_jump=SMALL_UNCOVERED_JUMP)
    return chosen


def _pinned_checkpoint(s: Services, batch_id: str) -> Checkpoint:
    """The checkpoint that proposes for this batch: the one that was promoted when its first chunk began.

    A promotion in the middle of a batch does not change it. It is pinned after it was loaded, so that a wrong name in
    the settings can be corrected.
    """
    if batches.facts(s.blobs, batch_id, batches.CHECKPOINT) is None:
        promoted = s.checkpoint()
        s.model(promoted)
        batches.mark(s.blobs, batch_id, batches.CHECKPOINT, asdict(promoted))
    return Checkpoint(**batches.facts(s.blobs, batch_id, batches.CHECKPOINT) or {})
