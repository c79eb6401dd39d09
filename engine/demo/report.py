"""The result of a demo, for people: an HTML page with its tables, and with contact sheets of the masklets.

Only reads the store. The page is one self-contained file, and every picture names the checkpoint that made its masks.
"""

from __future__ import annotations

import base64
import html
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine import batches, html_page, pictures
from engine.datasets import layouts
from engine.demo import summary
from engine.demo.summary import Summary
from engine.protocols import first_frame
from engine.registry import Checkpoint
from engine.rounds import record
from engine.services import Services
from storage import rle
from storage.dataset import parts, releases
from storage.records import STRIDE, Masklet, Video
from storage.videos.video import jpeg
from validation import jf

HELD_OUT_SHOWN = 3  # videos in the picture of what a round learned
SHOWN_PX = 360  # width of a frame in it


def write(s: Services, figures: Summary, path: Path, *, title: str) -> Path:
    """Writes the HTML report of a demo."""
    sections = [_round_section(s, figures.round.round_id)] if figures.round else []
    for number, batch in enumerate(figures.batches, 1):
        sections.append(f"<h2>Batch {number}, proposed by {html.escape(batch.proposed_by)}</h2>")
        rows = s.tables.masklets(where=f"batch_id == '{batch.batch_id}'")
        markers = {m.video_id: m for m in parts.markers(s.blobs, "candidates", batch.batch_id)}
        for video in batches.videos(s, batch.batch_id):
            mine = [row for row in rows if row.video_id == video.video_id]
            marker = markers.get(video.video_id)
            candidates = [] if marker is None else parts.read_part(s.blobs, marker)
            sections.append(_section(s, video, candidates, mine, summary.against_truth(s, video, mine)))
    head, *table_rows = summary.table(figures)
    body = _BODY.format(
        title=html.escape(title),
        heading=_cells("th", head),
        rows="".join(f"<tr>{_cells('td', row)}</tr>" for row in table_rows),
        lines="".join(f"<tr>{_cells('td', line)}</tr>" for line in summary.lines(figures)),
        sections="\n".join(sections),
        docs=html.escape(str(s.home / "data-docs")),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html_page.page(title, body, style=_STYLE))
    return path


def _cells(tag: str, row: Sequence[str]) -> str:
    """The cells of a table's row; the first one is its label."""
    label, *others = (html.escape(cell) for cell in row)
    return f"<th>{label}</th>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in others)


def _round_section(s: Services, round_id: str) -> str:
    """Held-out frames with the true masks, and with those of the checkpoints before and after the round."""
    begun = record.start_of(s, round_id)
    before, after = (
        s.model(Checkpoint(begun.parent, begun.parent_round, begun.parent_key)),
        s.model(record.checkpoint_of(s, round_id)),
    )
    held_out = layouts.of_release(releases.load(s.blobs, begun.release)).only("val")
    shown = []
    for video in itertools.islice(held_out.videos(), HELD_OUT_SHOWN):
        frame = video.frame_idx[2 * len(video.frame_idx) // 3]
        names = [name for name, of in video.objects.items() if frame in of and min(of) < frame]
        masks = {"truth": [video.mask(name, frame) for name in names]}
        with video.open() as reader:
            rgb = reader.read(frame)
            for label, loaded in (("before", before), ("after", after)):
                masks[label] = first_frame.masks_at(loaded, reader.read, video, names, frame)
        height = round(SHOWN_PX * video.height / video.width)
        cells = [  # captions last: text does not look well when it is scaled
            pictures.captioned(pictures.scaled(pictures.overlay(rgb, made), SHOWN_PX, height), label)
            for label, made in masks.items()
        ]
        shown.append(pictures.side_by_side(cells, width_px=SHOWN_PX, height_px=height, gap_px=4))
    if not shown:
        return ""
    picture = base64.b64encode(jpeg(pictures.stacked(shown), 88)).decode()
    return (
        "<section><h2>What the round learned</h2><p>Held-out videos, three clicks on the first frame that shows an "
        "object: the true masks, and the masks before and after the round.</p>"
        f'<img alt="Held-out frames before and after the round" src="data:image/jpeg;base64,{picture}"></section>'
    )


def _section(
    s: Services,
    video: Video,
    candidates: Sequence[Masklet],
    accepted: Sequence[Masklet],
    measured: Mapping[str, jf.JF],
) -> str:
    name = html.escape(video.source_uri.rsplit("/", 1)[-1])
    held_out = ", held out" if video.split == "val" else ""
    parts_of = [f"<h3>{name} <small>{video.width}×{video.height}, {video.duration_s:.1f} s{held_out}</small></h3>"]
    for label, rows in (("Candidates", candidates), ("Accepted", accepted)):
        makers = ", ".join(sorted({row.checkpoint for row in rows}))
        masks = f", masks: {html.escape(makers)}" if rows else ""
        mean = jf.mean(measured.values()) if label == "Accepted" else None
        note = f", J&amp;F {50 * (mean.j + mean.f):.1f} against the truth" if mean else ""
        parts_of.append(f"<p>{label}: {len(rows)}{masks}{note}</p>")
        picture = base64.b64encode(jpeg(_sheet(s, video, rows), 88)).decode()
        parts_of.append(f'<img alt="{label} of {name}" src="data:image/jpeg;base64,{picture}">')
    return "<section>" + "".join(parts_of) + "</section>"


def _sheet(s: Services, video: Video, rows: Sequence[Masklet], columns: int = 6) -> pictures.Image:
    """Frames evenly spread over a video, with these masklets on them."""
    annotated = range(0, video.frame_count, STRIDE)
    chosen = [annotated[round(i * (len(annotated) - 1) / (columns - 1))] for i in range(columns)]
    with s.frames(video) as reader:
        frames = {i: reader.read(i) for i in chosen}
    nothing = rle.empty(video.height, video.width)
    counts = [dict(zip(row.frame_idx, row.rle, strict=True)) for row in rows]
    masks = {i: [rle.decode(of.get(i, nothing), video.height, video.width) for of in counts] for i in chosen}
    return pictures.contact_sheet(frames, masks)


_STYLE = """h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; } small { font-weight: 400; opacity: .7; }
table { margin: 1rem 0 1.6rem; } thead th { font-weight: 600; opacity: 1; }
th { font-weight: 500; opacity: .75; }
th, td { padding: .25rem 1rem .25rem 0; }
p { margin: .6rem 0 .3rem; }
"""

_BODY = """<h1>{title}</h1>
<table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table>
<table>{lines}</table>
{sections}
<footer>Masks are drawn on the exact frames of the stored 24 fps videos; the number in a corner is the frame index.
Data Docs of the checks: {docs}</footer>"""
