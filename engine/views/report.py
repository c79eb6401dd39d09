"""The figures of a release as one self-contained HTML page: tables, plots, and a contact sheet of its videos."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine import html_page, pictures
from engine.pictures import BLUE, ORANGE
from engine.views import frames, tables
from engine.views.figures import DEFINITIONS, Figures
from engine.views.tables import Table
from storage.dataset.releases import Release
from storage.records import Video
from storage.videos.video import jpeg
from storage.whole_files import complete
from storage.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VIDEOS_SHOWN = 12
COLUMNS_SHOWN = 4
CELL_PX = 320  # width of a frame


def write(release: Release, found: Figures, path: Path) -> Path:
    """Writes the page of a release."""
    videos = _spread(release.videos(), VIDEOS_SHOWN)
    picture = base64.b64encode(jpeg(sheet(release, videos), 85)).decode()
    makers = frames.made_by(found.makers)
    body = _BODY.format(
        name=html.escape(release.name),
        plots=_plots(found),
        tables="".join(map(_table, tables.of(found))),
        picture=picture,
        shown=html.escape(f"{counted(len(videos), 'video')}, evenly spread over the release. Masks {makers}."),
        digest=html.escape(release.digest),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete(path) as partial:
        partial.write_text(html_page.page(release.name, body, style=_STYLE), encoding="utf-8")
    return path


def sheet(release: Release, videos: Sequence[Video]) -> pictures.Image:
    """The busiest frame of each video with its masklets."""
    cells = []
    for video in videos:
        rows = release.masklets([video.video_id])
        shown = frames.busiest(rows)
        with frames.reader(release, video) as opened:
            drawn = pictures.overlay(opened.read(shown), frames.masks(rows, shown))
        name = frames.short_name(video)
        cells.append(frames.Cell(drawn, f"{name}, frame {shown}, {counted(len(rows), 'masklet')}"))
    return frames.grid(cells, columns=COLUMNS_SHOWN, width_px=CELL_PX)


def _spread(videos: Sequence[Video], most: int) -> list[Video]:
    """Videos evenly spread over the list."""
    if len(videos) <= most:
        return list(videos)
    return [videos[round(n * (len(videos) - 1) / (most - 1))] for n in range(most)]


def _table(table: Table) -> str:
    head, *rows = table.rows
    heading = f"<thead>{_row(head, 'th')}</thead>" if any(head) else ""
    note = "" if len(table.terms) != 1 else f"<p>{html.escape(table.note)}</p>"
    terms = "" if len(table.terms) < 2 else _definitions(table.terms)
    body = "".join(_row(row, "td") for row in rows)
    wide = " class=all" if len(head) > COLUMNS_SHOWN else ""
    return (
        f"<section{wide}><h2>{html.escape(table.title)}</h2>{note}"
        f'<div class="wide"><table>{heading}<tbody>{body}</tbody></table></div>{terms}</section>'
    )


def _definitions(terms: Sequence[str]) -> str:
    lines = "".join(
        f"<dt>{html.escape(term.replace('_', ' '))}</dt><dd>{html.escape(DEFINITIONS[term])}</dd>" for term in terms
    )
    return f"<details><summary>What these figures mean</summary><dl>{lines}</dl></details>"


def _row(cells: Sequence[str], tag: str) -> str:
    label, *others = (html.escape(cell) for cell in cells)
    return f"<tr><th>{label}</th>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in others) + "</tr>"


def _plots(found: Figures) -> str:
    """Six plots as one SVG."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(12, 6.4), layout=ConstrainedLayoutEngine(h_pad=0.15, w_pad=0.1))
    (sizes, areas, changes), (edits, makers, verdicts) = figure.subplots(2, 3)
    _bars(sizes, "Masklets by size", found.sizes)
    _bars(areas, "Masks by share of the frame", {f"≤ {float(top):.4g}": n for top, n in found.area_share.items()})
    _bars(
        changes,
        "Masklets by visibility changes",
        {name.replace(" or more", "+"): n for name, n in found.visibility_changes.items()},
    )
    _bars(
        edits,
        "Manual masklets by edited frames",
        {name.replace("up to", "≤"): n for name, n in found.edited_share.items()},
    )
    _stacks(makers, "Masklets by checkpoint", found.makers, ("unchanged", "edited"))
    if found.verdicts:
        _stacks(verdicts, "Verdicts by checkpoint", found.verdicts, ("accept", "refine", "reject", "unsure"))
    else:
        _bars(verdicts, "Masklets by phase", found.phases)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg")
    text = drawn.getvalue()
    return text[text.index("<svg") :]


_STACK = (BLUE, ORANGE, "#999999", "#E69F00")


def _bars(axes: Axes, title: str, values: Mapping[str, int]) -> None:
    from matplotlib.ticker import MaxNLocator

    bars = axes.bar(list(values), list(values.values()), color=BLUE, width=0.7)
    axes.bar_label(bars, labels=[tables.count(n) if n else "" for n in values.values()], padding=2, fontsize="small")
    axes.set_ylim(0, 1.15 * max([*values.values(), 1]))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    _plain(axes, title)


def _stacks(axes: Axes, title: str, values: Mapping[str, Mapping[str, int]], parts: Sequence[str]) -> None:
    """Horizontal bars that consist of parts; long names are shortened."""
    names = [name if len(name) <= 24 else f"{name[:11]}…{name[-12:]}" for name in values]
    left = [0] * len(names)
    for part, colour in zip(parts, _STACK, strict=False):
        widths = [of.get(part, 0) for of in values.values()]
        axes.barh(range(len(names)), widths, left=left, color=colour, label=part, height=0.6)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6 - 0.25 * len(names))  # room for the legend
    axes.legend(frameon=False, fontsize="small", ncols=len(parts), loc="upper right", columnspacing=1, handlelength=1)
    _plain(axes, title)


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.tick_params(labelsize="small")
    axes.spines[["top", "right"]].set_visible(False)


_STYLE = """:root { color-scheme: light; }
body { max-width: 1180px; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 0 2.5rem; }
main .all { grid-column: 1 / -1; }
h2 { font-size: 1.1rem; margin: 1.8rem 0 .3rem; } p { margin: .3rem 0 .6rem; max-width: 75ch; }
svg { max-width: 100%; height: auto; margin: 1rem 0; }
table { font-variant-numeric: tabular-nums; }
th, td { padding: .25rem 1.2rem .25rem 0; white-space: nowrap; }
td, thead th:not(:first-child) { text-align: right; }
tbody th { font-weight: 400; } thead th { font-weight: 600; }
details { margin: .6rem 0; } dt { font-weight: 600; } dd { margin: 0 0 .4rem 1rem; }
"""

_BODY = """<h1>{name}</h1>
<main>{tables}</main>
<h2>Plots</h2>
{plots}
<h2>What it looks like</h2>
<p>{shown}</p>
<img alt="A frame of each video" src="data:image/jpeg;base64,{picture}">
<footer>Masks are drawn on the exact frames of the stored 24 fps videos. SA-V's figures: Ravi et al. 2024, SAM 2:
Segment Anything in Images and Videos. sha256 of the manifest: {digest}</footer>"""
