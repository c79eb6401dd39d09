"""One video of a release with its masklets: an overlay film, and a contact sheet with a legend.

The film has the annotated frames alone, at their 6 frames a second: each picture shows masks that were made on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine import pictures
from engine.pictures import Entry, Image, Style
from engine.progress import Progress
from engine.views import figures, frames
from engine.views.frames import Cell
from storage.dataset.releases import Release
from storage.records import FPS, STRIDE, Masklet, Video
from storage.videos import video as film
from storage.wording import counted

FRAMES_SHOWN = 12
COLUMNS = 4
CELL_PX = 320


@dataclass(frozen=True)
class Shown:
    """What was written."""

    video_id: str
    masklets: int
    frames: int  # in the film
    film: str
    sheet: str


def find(release: Release, name: str) -> Video:
    """The video that a person means: an id, a unique beginning of one, or the name of its source or source file.

    Raises ValueError if there is none or several.
    """
    ids = {file.video_id for file in release.files("media") if file.video_id is not None}
    begins = sorted(video_id for video_id in ids if video_id.startswith(name)) if name else []
    chosen = [name] if name in ids else begins
    if not chosen:
        chosen = [video.video_id for video in release.videos() if name in _names(video)]
    if not chosen:
        raise ValueError(f"release {release.name} has no video {name!r:.120}; it has {counted(len(ids), 'video')}")
    if len(chosen) > 1:
        few = ", ".join(chosen[:3]) + (", …" if len(chosen) > 3 else "")
        raise ValueError(f"{name!r:.120} are {counted(len(chosen), 'video')} of release {release.name}: {few}")
    return frames.video_of(release, chosen[0])


def _names(video: Video) -> set[str]:
    file = video.source_uri.rsplit("/", 1)[-1]
    return {video.source_uri, file, Path(file).stem, video.source_name or file}


def write(
    release: Release, video: Video, out: Path, style: Style = Style.FILL, progress: Progress | None = None
) -> Shown:
    """Writes FILE.mp4, and the contact sheet as FILE.jpg beside it.

    Raises ValueError for another kind of file, or if the release has no masklet of this video.
    """
    if out.suffix.lower() != ".mp4":
        raise ValueError(f"the film is a FILE.mp4, not {out}")
    rows = release.masklets([video.video_id])
    if not rows:
        raise ValueError(f"release {release.name} has no masklet of video {video.video_id}")
    out.parent.mkdir(parents=True, exist_ok=True)
    indices = range(0, video.frame_count, STRIDE)
    film.write(out, _drawn(release, video, rows, indices, style, progress), FPS / STRIDE, crf=20)
    jpg = out.with_suffix(".jpg")
    pictures.write_jpeg(sheet(release, video, rows, style), jpg, 90)
    return Shown(video_id=video.video_id, masklets=len(rows), frames=len(indices), film=str(out), sheet=str(jpg))


def sheet(release: Release, video: Video, rows: Sequence[Masklet], style: Style) -> Image:
    """Frames evenly spread over the video, with numbered masklets, and a legend."""
    annotated = range(0, video.frame_count, STRIDE)
    count = min(FRAMES_SHOWN, len(annotated))
    chosen = [annotated[round(n * (len(annotated) - 1) / max(1, count - 1))] for n in range(count)]
    drawn = _drawn(release, video, rows, chosen, style)
    cells = [Cell(image, f"frame {frame_idx}") for frame_idx, image in zip(chosen, drawn, strict=True)]
    grid = frames.grid(cells, columns=COLUMNS, width_px=CELL_PX)
    makers = frames.made_by(sorted({row.checkpoint for row in rows}))
    head = f"{frames.short_name(video)}, {video.width} x {video.height}, {video.duration_s:.1f} s, in {release.name}"
    entries = [Entry(head), Entry(f"{counted(len(rows), 'masklet')}, masks {makers}")]
    entries += [Entry(_line(row), pictures.colour_of(n), str(n + 1)) for n, row in enumerate(rows)]
    return pictures.stacked([grid, pictures.legend(entries, grid.shape[1])])


def _drawn(
    release: Release,
    video: Video,
    rows: Sequence[Masklet],
    indices: Sequence[int],
    style: Style,
    progress: Progress | None = None,
) -> Iterator[Image]:
    with frames.reader(release, video) as opened:
        for n, frame_idx in enumerate(indices):
            masks = frames.masks(rows, frame_idx)
            yield pictures.numbered(pictures.overlay(opened.read(frame_idx), masks, style), masks)
            if progress:
                progress(n + 1, len(indices), video.video_id)


def _line(row: Masklet) -> str:
    """What the legend says about a masklet."""
    areas = [area for area in row.area_px if area]
    size = figures.size_bucket(sum(areas) / len(areas)) if areas else "never visible"
    edited = f", {counted(row.edited_frame_count, 'edited frame')}" if row.edited_frame_count else ""
    seen = f"visible on {len(areas)} of {counted(len(row.area_px), 'annotated frame')}, {size}"
    return f"{row.masklet_id}: {row.kind}, phase {row.phase}, {row.verdict or 'no verdict'}; {seen}{edited}"
