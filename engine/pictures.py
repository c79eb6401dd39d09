"""Pictures for people: masks over frames, contact sheets, bars and curves. All images are uint8 RGB (H, W, 3).

Knows nothing about the store, models or protocols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.pixels import Mask, box_of

Image = NDArray[np.uint8]

# Okabe and Ito's palette without black: colour-blind people can tell the colours apart. RGB.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))
BLUE, ORANGE = "#0072B2", "#D55E00"  # of the same palette
_GAP_PX = 4  # between the cells of a contact sheet
_PAPER = 236  # grey value behind objects that are cut out


class Style(StrEnum):
    """How masks are drawn."""

    FILL = "fill"  # a tint and an outline
    OUTLINE = "outline"  # an outline: every pixel of the object stays as it is
    CUT_OUT = "cut-out"  # the objects alone, on grey


_TINT = {Style.FILL: 0.45, Style.OUTLINE: 0.0, Style.CUT_OUT: 0.0}  # how much of a mask's pixels is its colour


def overlay(rgb: Image, masks: Sequence[Mask], style: Style = Style.FILL) -> Image:
    """The frame with each mask in its own colour. `cut-out` keeps only the pixels of the masks."""
    out = rgb.copy()
    if style is Style.CUT_OUT:
        covered = np.zeros(rgb.shape[:2], np.bool_)
        for mask in masks:
            covered |= mask
        out[~covered] = _PAPER
    line = max(1, round(min(rgb.shape[:2]) / 240))
    for i, mask in enumerate(masks):
        colour = colour_of(i)
        if tint := _TINT[style]:
            out[mask] = ((1 - tint) * out[mask] + tint * np.array(colour, np.float32)).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, contours, -1, colour, line, cv2.LINE_AA)
    return out


def colour_of(place: int) -> tuple[int, int, int]:
    """The RGB colour of the mask at this place of a list."""
    return COLOURS[place % len(COLOURS)]


def numbered(rgb: Image, masks: Sequence[Mask]) -> Image:
    """The frame with a number, from 1, in the middle of the widest part of each mask."""
    out = rgb.copy()
    size = max(0.45, min(rgb.shape[:2]) / 450)
    for i, mask in enumerate(masks):
        if (box := box_of(mask)) is None:
            continue
        x0, y0, x1, y1 = box
        inside = cv2.distanceTransform(np.pad(mask[y0:y1, x0:x1].astype(np.uint8), 1), cv2.DIST_L2, 3)
        y, x = np.unravel_index(int(inside.argmax()), inside.shape)
        (wide, high), _ = cv2.getTextSize(str(i + 1), cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        at = (int(x) - 1 + x0 - wide // 2, int(y) - 1 + y0 + high // 2)
        _write(out, str(i + 1), at, size)
    return out


@dataclass(frozen=True)
class Entry:
    """A line of a legend. colour: RGB of the square before it, with `mark` on the square; None: no square."""

    text: str
    colour: tuple[int, int, int] | None = None
    mark: str = ""


def legend(entries: Sequence[Entry], width_px: int) -> Image:
    """Lines of black text on white."""
    step, margin = 22, 10
    out = np.full((step * len(entries) + margin, width_px, 3), 255, np.uint8)
    for n, entry in enumerate(entries):
        y, x = step * (n + 1), margin
        if entry.colour is not None:
            cv2.rectangle(out, (x, y - 14), (x + 24, y + 3), entry.colour, cv2.FILLED)
            cv2.putText(out, entry.mark, (x + 4, y - 1), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
            x += 34
        cv2.putText(out, entry.text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return out


def captioned(image: Image, caption: str) -> Image:
    """The image with a short white text in its lower left corner."""
    out = image.copy()
    at = (6, image.shape[0] - 8)
    _write(out, caption, at, 0.4)
    return out


def _write(out: Image, text: str, at: tuple[int, int], size: float) -> None:
    """White text with a black rim, in place. A thicker line would be longer too: the rim is shifted copies."""
    for dx, dy in ((-1, -1), (-1, 1), (1, -1), (1, 1), (0, 0)):
        colour = (255, 255, 255) if dx == dy == 0 else (0, 0, 0)
        place = at[0] + dx, at[1] + dy
        cv2.putText(out, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def side_by_side(images: Sequence[Image], *, width_px: int, height_px: int, gap_px: int = 0) -> Image:
    """The images in one row, each scaled to the same size, with white gaps between them."""
    gap = np.full((height_px, gap_px, 3), 255, np.uint8)
    return np.concatenate([x for image in images for x in (scaled(image, width_px, height_px), gap)][:-1], axis=1)


def contact_sheet(frames: Mapping[int, Image], masks: Mapping[int, Sequence[Mask]], *, width_px: int = 220) -> Image:
    """Frames of one video in a row, each with its masks and its frame index. The keys are frame indices."""
    height_px = round(next(iter(frames.values())).shape[0] * width_px / next(iter(frames.values())).shape[1])
    cells = [captioned(scaled(overlay(frame, masks[i]), width_px, height_px), str(i)) for i, frame in frames.items()]
    return side_by_side(cells, width_px=width_px, height_px=height_px, gap_px=_GAP_PX)


def scaled(image: Image, width_px: int, height_px: int) -> Image:
    """The image at another size."""
    return np.asarray(cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA), np.uint8)


def stacked(rows: Sequence[Image]) -> Image:
    """The images one below the other; narrower ones are padded with black on the right."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def write_jpeg(image: Image, path: Path, quality: int = 95) -> Path:
    """Writes an image file. quality: 1 to 100."""
    cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return path


def draw_bars(points: Mapping[str, float], title: str, path: Path) -> Path:
    """Values between 0 and 100 as horizontal bars, a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1 + 0.4 * len(points)), dpi=120, layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(points), list(points.values()), color=BLUE)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set(title=title, xlim=(0, 110), xticks=range(0, 101, 20))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    return path


def draw_curves(offline_jf: Sequence[float], online_jf: Sequence[float], title: str, path: Path) -> Path:
    """J&F in points after clicks on 1, 2, ... frames, a PNG: one curve for each interactive protocol."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    frames = range(1, len(offline_jf) + 1)
    axes.plot(frames, offline_jf, "o-", color=BLUE, label="offline")
    axes.plot(frames, online_jf, "D-", color=ORANGE, label="online")
    axes.set(xlabel="frames clicked on", ylabel="J&F", title=title, ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path)
    return path


@dataclass(frozen=True)
class Panel:
    """One chart of values with their intervals.

    series: a line for each name; for each label the "mean", "low" and "high" of a value. An empty mapping leaves a gap.
    """

    title: str
    series: Mapping[str, Sequence[Mapping[str, float]]]
    labels: Sequence[str]
    xlabel: str = ""


def draw_intervals(panels: Sequence[Panel], path: Path) -> Path:
    """Charts beside each other, as one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(panels), 3.6), dpi=120, layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for n, (name, values) in enumerate(panel.series.items()):
            shown = [(place, of) for place, of in enumerate(values) if of]
            means = [of["mean"] for _, of in shown]
            bars = [
                [max(0.0, of["mean"] - of["low"]) for _, of in shown],
                [max(0.0, of["high"] - of["mean"]) for _, of in shown],
            ]
            places = [place + 0.04 * n for place, _ in shown]
            colour = (BLUE, ORANGE)[n % 2]
            axes.errorbar(places, means, yerr=bars, fmt="oD"[n % 2] + "-", color=colour, capsize=4, label=name)
        axes.set(title=panel.title, xlabel=panel.xlabel, xlim=(-0.4, len(panel.labels) - 0.6))
        axes.set_xticks(range(len(panel.labels)), panel.labels)
        axes.set_ylim(0, None)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if len(panel.series) > 1:
            axes.legend(frameon=False, loc="best")
    figure.savefig(path)
    return path
