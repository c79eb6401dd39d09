"""The picture of the chain: held-out J&F, clicks, modelled seconds and cost over the rounds, as PNG or HTML."""

from __future__ import annotations

import html
import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine import html_page
from engine.pictures import BLUE, ORANGE
from engine.rounds.chain import Link, MeasuredJF

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PALE = "#9DC3DE"  # BLUE, lighter
_NOT_RECORDED = math.nan  # matplotlib draws no point there


def draw(links: Sequence[Link], table: Sequence[Sequence[str]], path: Path) -> Path:
    """Draws the rounds into FILE.png, or into FILE.html with the table below the picture.

    table: the header, then a row a round.  Raises ValueError for another kind of file and without a round.
    """
    if path.suffix not in (".png", ".html"):
        raise ValueError(f"a picture of the rounds is a FILE.png or a FILE.html, not {path}")
    if not links:
        raise ValueError("no round yet: there is nothing to draw")
    figure = _figure(links)
    if path.suffix == ".png":
        figure.savefig(path)
        return path
    svg = io.StringIO()
    figure.savefig(svg, format="svg")
    drawn = svg.getvalue()
    head, *rows = table
    cells = "".join(_row("td", row) for row in rows)
    body = _BODY.format(svg=drawn[drawn.index("<svg") :], head=_row("th", head), body=cells)
    path.write_text(html_page.page("Rounds", body, style=_STYLE), encoding="utf-8")
    return path


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _figure(links: Sequence[Link]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(9.0, 3 + 1.2 * len(links)), 6.5), dpi=120, layout="constrained")
    (quality, clicks), (seconds, cost) = figure.subplots(2, 2)
    _draw_jf(quality, links)
    _draw_curve(clicks, [link.added.clicks_a_masklet for link in links], "clicks a masklet")
    _draw_curve(seconds, [link.added.seconds_a_frame for link in links], "modelled seconds a frame")
    _draw_cost(cost, links)
    for axes in (quality, clicks, seconds, cost):
        axes.set_xticks(range(len(links)), _labels(links))
        axes.set_xlim(-0.6, len(links) - 0.4)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("round", fontsize="medium")
    return figure


def _labels(links: Sequence[Link]) -> list[str]:
    """The number of each round; its id where two rounds have one number, as rounds that were not promoted have."""
    numbers = [link.begun.number for link in links]
    return [
        link.begun.round_id.removeprefix("round-").replace("-", "\n", 1)
        if numbers.count(link.begun.number) > 1
        else str(link.begun.number)
        for link in links
    ]


def _draw_jf(axes: Axes, links: Sequence[Link]) -> None:
    """J&F of the checkpoints before and after each round, with their intervals; hollow: not in service."""
    before = [link.before for link in links]
    after = [link.after for link in links]
    for name, shift, values, colour, marker in (
        ("before the round", -0.08, before, BLUE, "o"),
        ("after the round", 0.08, after, ORANGE, "D"),
    ):
        for place, (link, jf) in enumerate(zip(links, values, strict=True)):
            if jf is None:
                continue
            hollow = values is after and link.checkpoint_after != link.begun.round_id
            axes.errorbar(
                place + shift,
                100 * jf.mean,
                yerr=_bars(jf),
                fmt=marker,
                color=colour,
                capsize=4,
                markerfacecolor="white" if hollow else colour,
            )
        axes.plot([], [], marker, color=colour, label=name)
    axes.plot([], [], "D", color=ORANGE, markerfacecolor="white", label="after, not promoted")
    axes.set(title="held-out J&F, with 95 % intervals", ylim=(0, 100))
    axes.legend(frameon=False, fontsize="small", loc="best")


def _bars(jf: MeasuredJF) -> list[list[float]] | None:
    if jf.interval is None:
        return None
    low, high = jf.interval
    return [[100 * (jf.mean - low)], [100 * (high - jf.mean)]]


def _draw_curve(axes: Axes, values: Sequence[float | None], title: str) -> None:
    """A curve of a figure of each round's new masklets, from 0."""
    shown = [_NOT_RECORDED if value is None else value for value in values]
    axes.plot(range(len(shown)), shown, "o-", color=BLUE)
    for place, value in enumerate(values):
        if value is not None:
            axes.annotate(f"{value:.1f}", (place, value), xytext=(0, 7), textcoords="offset points", ha="center")
    top = max((value for value in values if value is not None), default=0)
    axes.set(title=f"{title}, new masklets", ylim=(0, 1.25 * top or 1))


def _draw_cost(axes: Axes, links: Sequence[Link]) -> None:
    """Modelled hours of people up to each round: those of earlier rounds pale, its own on top."""
    hours = [link.added.hours or 0.0 for link in links]
    total = list(itertools.accumulate(hours))
    earlier = [until - own for until, own in zip(total, hours, strict=True)]
    axes.bar(range(len(hours)), earlier, color=_PALE, width=0.6, label="before")
    bars = axes.bar(range(len(hours)), hours, bottom=earlier, color=BLUE, width=0.6, label="for this round")
    axes.bar_label(bars, labels=[f"{until:.1f}" for until in total], padding=3)
    axes.set(title="modelled hours of people, in all", ylim=(0, 1.25 * max(total) or 1))
    axes.legend(frameon=False, fontsize="small", loc="upper left")


_STYLE = """svg { max-width: 100%; height: auto; }
table { font-size: .85rem; }
th, td { padding: .35rem 1rem .35rem 0; vertical-align: top; }
:root { color-scheme: light; }
"""

_BODY = """<h1>Rounds</h1>
<p>Each round trains the checkpoint before it on a release, and is measured on held-out videos. Clicks, seconds and
hours are of the masklets that were published since the round before. Time is modelled, not measured.</p>
{svg}
<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>"""
