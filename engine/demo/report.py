"""The result of a run, for people: one table, and an HTML page with contact sheets of the masklets on their frames.

Only reads the store. The page is one self-contained file, and every picture names the checkpoint that made its masks.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine import pictures
from engine.protocols import first_frame
from engine.rounds import record
from engine.services import Services
from engine.stages import batches
from engine.stages.batches import BatchStage
from storage import iou, parts, rle
from storage.formats import sav
from storage.records import STRIDE, Masklet, Video
from storage.video import jpeg
from validation import jf


@dataclass(frozen=True)
class Summary:
    """The figures of a run. J&F is in points, 0 to 100; None if it could not be measured."""

    videos: int
    quarantined: int
    candidates: int
    verdicts: Mapping[str, int]
    edited_frames: int
    clicks: int
    accepted: int
    accepted_jf: float | None  # against the ground truth
    release: str
    round_id: str | None
    round_jf_before: float | None
    round_jf_after: float | None
    promoted: bool | None
    round_reasons: tuple[str, ...]
    seconds: Mapping[str, float]  # by stage, measured
    modelled_annotation_s: float | None  # by the paper's time model


def summarise(
    s: Services, batch_id: str, *, seconds: Mapping[str, float], modelled_annotation_s: float | None = None
) -> Summary:
    """Collects the figures of a batch, and of the round that was trained on its release."""
    videos = batches.videos(s, batch_id)
    rows = s.tables.masklets(where=f"batch_id == '{batch_id}'")
    operations = s.tables.operations(where=f"batch_id == '{batch_id}'")
    verdicts: dict[str, int] = {}
    for operation in operations:
        if operation.kind in ("verdict", "unsubmit") and (word := json.loads(operation.payload).get("verdict")):
            verdicts[word] = verdicts.get(word, 0) + (1 if operation.kind == "verdict" else -1)
    scores = [score for video in videos for score in against_truth(s, video, rows).values()]
    mean = jf.mean(scores)
    published = batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) or {}
    mine = [r for r in record.ids(s) if record.start_of(s, r).release == published.get("release")]
    last = next((outcome for r in reversed(mine) if (outcome := record.result_of(s, r))), None)
    return Summary(
        videos=len(videos),
        quarantined=len(s.tables.quarantine()),
        candidates=sum(m.rows for m in parts.markers(s.blobs, "candidates", batch_id)),
        verdicts=verdicts,
        edited_frames=sum(row.edited_frame_count for row in rows),
        clicks=sum(row.click_count for row in rows),
        accepted=len(rows),
        accepted_jf=None if mean is None else 50 * (mean.j + mean.f),
        release=str(published.get("release", "")),
        round_id=last.round_id if last else None,
        round_jf_before=100 * last.jf_before if last else None,
        round_jf_after=100 * last.jf_after if last else None,
        promoted=last.promoted if last else None,
        round_reasons=last.reasons if last else (),
        seconds=dict(seconds),
        modelled_annotation_s=modelled_annotation_s,
    )


def against_truth(s: Services, video: Video, rows: Sequence[Masklet]) -> dict[str, jf.JF]:
    """J and F of each masklet of a video against the true object with the largest overlap; {} without ground truth."""
    if video.truth_key is None:
        return {}
    truths = sav.from_sav(json.loads(s.blobs.read(video.truth_key)), video=video)
    scores = {}
    for row in rows:
        if row.video_id != video.video_id:
            continue
        truth = max(truths, key=lambda t: iou.tube_iou(row, t), default=None)
        if truth is None:
            continue
        score = first_frame.score_rows(row, truth)
        if score is not None:
            scores[row.masklet_id] = score
    return scores


def table(summary: Summary) -> list[tuple[str, str]]:
    """The summary as labelled lines, in the order of the stages."""

    def points(value: float | None) -> str:
        return "not measured" if value is None else f"{value:.1f}"

    verdicts = ", ".join(f"{n} {v}" for v, n in sorted(summary.verdicts.items())) or "none"
    lines = [
        ("videos", f"{summary.videos} admitted, {summary.quarantined} quarantined"),
        ("candidates", str(summary.candidates)),
        ("verdicts", verdicts),
        ("edited frames", f"{summary.edited_frames} ({summary.clicks} clicks)"),
        ("accepted masklets", str(summary.accepted)),
        ("their J&F against the truth", f"{points(summary.accepted_jf)} (painted frames are the truth itself)"),
        ("release", summary.release or "none: nothing was accepted"),
    ]
    if summary.round_id:
        gate = "promoted" if summary.promoted else "not promoted"
        lines += [
            ("round", summary.round_id),
            (
                "J&F held out, before and after",
                f"{points(summary.round_jf_before)} -> {points(summary.round_jf_after)}",
            ),
            ("gate", f"{gate}: {'; '.join(summary.round_reasons)}"),
        ]
    if summary.modelled_annotation_s is not None:
        lines.append(("annotators' time", f"{summary.modelled_annotation_s / 60:.1f} min, modelled not measured"))
    lines += [(f"seconds, {stage}", f"{value:.1f}") for stage, value in summary.seconds.items()]
    return lines


def write(s: Services, batch_id: str, summary: Summary, path: Path, *, title: str) -> Path:
    """Writes the HTML report of a batch."""
    rows = s.tables.masklets(where=f"batch_id == '{batch_id}'")
    sections = []
    for video in batches.videos(s, batch_id):
        mine = [row for row in rows if row.video_id == video.video_id]
        candidates = next(
            (
                parts.read_part(s.blobs, m)
                for m in parts.markers(s.blobs, "candidates", batch_id)
                if m.video_id == video.video_id
            ),
            [],
        )
        scores = against_truth(s, video, mine)
        sections.append(_section(s, video, candidates, mine, scores))
    lines = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in table(summary))
    docs = s.home / "data-docs" / batch_id
    page = _PAGE.format(
        title=html.escape(title), lines=lines, sections="\n".join(sections), docs=html.escape(str(docs))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    return path


def _section(
    s: Services,
    video: Video,
    candidates: Sequence[Masklet],
    accepted: Sequence[Masklet],
    scores: Mapping[str, jf.JF],
) -> str:
    name = html.escape(video.source_uri.rsplit("/", 1)[-1])
    held_out = ", held out" if video.split == "val" else ""
    parts_of = [f"<h2>{name} <small>{video.width}×{video.height}, {video.duration_s:.1f} s{held_out}</small></h2>"]
    for label, rows in (("Candidates", candidates), ("Accepted", accepted)):
        makers = ", ".join(sorted({row.checkpoint for row in rows}))
        masks = f", masks {'' if makers == 'by hand' else 'by '}{html.escape(makers)}" if rows else ""
        mean = jf.mean(scores.values()) if label == "Accepted" else None
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


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1400px; margin: 2rem auto; padding: 0 1.5rem; }}
h1 {{ font-size: 1.5rem; }}
h2 {{ font-size: 1.1rem; margin: 2.2rem 0 .3rem; }} small {{ font-weight: 400; opacity: .7; }}
table {{ border-collapse: collapse; }} th {{ text-align: left; font-weight: 500; opacity: .75; padding-right: 2rem; }}
th, td {{ padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--line); }}
p {{ margin: .6rem 0 .3rem; }} img {{ max-width: 100%; border-radius: 4px; display: block; }}
footer {{ margin: 3rem 0; opacity: .7; }}
</style>
<h1>{title}</h1>
<table>{lines}</table>
{sections}
<footer>Masks are drawn on the exact frames of the stored 24 fps videos; the number in a corner is the frame index.
Data Docs of the checks: {docs}</footer>
</html>
"""
