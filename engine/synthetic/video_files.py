"""Writes synthetic clips to disk: mp4 files, each with its true masklets as SA-V JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.synthetic.rendering import render
from engine.synthetic.scene import Scene
from model.clips import Clip
from storage import rle
from storage.formats import sav
from storage.records import FPS, STRIDE, Masklet, Video, content_id
from storage.videos import video


def write_videos(
    folder: Path, count: int, scene: Scene, *, seed: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Writes random clips of a scene; see `write_clips`."""
    return write_clips(folder, lambda n: render(seed * 1_000_003 + n, scene), range(1, count + 1), progress=progress)


def write_clips(
    folder: Path,
    draw: Callable[[int], Clip],
    numbers: Sequence[int],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Writes clips as clip_001.mp4 and so on, each with its true masklets as SA-V JSON in clip_001.truth.json.

    draw: the clip of a number.  Existing clips are kept. progress: called with the number done and the count.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for done, number in enumerate(numbers, 1):
        path = folder / f"clip_{number:03d}.mp4"
        paths.append(path)
        if not path.exists():
            clip = draw(number)
            path.with_suffix(".truth.json").write_text(json.dumps(truth_of(clip, path.stem)))
            video.write(path, clip.frames)
        if progress:
            progress(done, len(numbers))
    return paths


def truth_of(clip: Clip, name: str) -> dict[str, object]:
    """The true masklets of a 24 fps clip as an SA-V annotation, without objects that are never visible."""
    return dict(sav.to_sav(video_of(clip, name), true_masklets(clip, name)))


def video_of(clip: Clip, name: str) -> Video:
    """A 24 fps clip as a stored video; there is no file."""
    t, _, h, w = clip.masks.shape
    return Video(
        video_id=name,
        source_uri=name,
        source_sha256="",
        video_key="",
        video_sha256="",
        frames_key="",
        height=h,
        width=w,
        frame_count=t,
        duration_s=t / FPS,
        source_fps=FPS,
        variable_rate=False,
        rotation=0,
        split="train",
        batch_id="",
    )


def true_masklets(clip: Clip, name: str) -> list[Masklet]:
    """The true masklets of a 24 fps clip, without objects that are never visible on an annotated frame."""
    t, n, h, w = clip.masks.shape
    indices = range(0, t, STRIDE)
    rows = []
    for k in range(n):
        areas = tuple(int(clip.masks[i, k].sum()) for i in indices)
        if not any(areas):
            continue
        rows.append(
            Masklet(
                masklet_id=content_id(name, str(k)),
                video_id=name,
                batch_id="",
                height=h,
                width=w,
                frame_idx=tuple(indices),
                rle=tuple(rle.encode(clip.masks[i, k]) for i in indices),
                area_px=areas,
                score=(1.0,) * len(areas),
                object_score=tuple(1.0 if area else -1.0 for area in areas),
                stability=(1.0,) * len(areas),
                kind="manual",
                phase="1",
                round=0,
                checkpoint="truth",
                prompt="{}",
            )
        )
    return rows
