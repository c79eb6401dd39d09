"""The card of a release: a README.md that says what it is, how it was made, what was checked, and what it cannot do.

    releases/<name>/README.md    create-only: the short card, written with the release

`write` makes the full card on demand: it reads the whole release. The short card costs what the new batch costs: totals
from the manifest, and figures of the masklets that the batch added. It says nothing that could identify one video, so
it stays when a video is withdrawn or erased. No hash of a release covers it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.services import Services
from engine.views import figures, tables
from engine.views.figures import ALL, DEFINITIONS, Figures
from engine.views.tables import Table
from storage.dataset.releases import Release
from storage.formats import imported, video_metadata
from storage.masklet_rules import RULES
from storage.records import FPS, STRIDE, Masklet, Video
from storage.wording import counted
from validation import mask_warnings
from validation.mask_warnings import Summary, Thresholds

LOOKED_AT = 1000  # masklets that are searched for what looks wrong
_HOLDS = ("Beside SA-V", "By split", "Videos", "Masklets by size")
_MAKING = ("Masklets by phase", "Masklets by checkpoint", "Verdicts by checkpoint")
_STAND_IN = "micro"
_MOST_COLUMNS, _MOST_VALUES, _MOST_LETTERS = 30, 8, 40  # of metadata: more columns, more and longer values are counted


def write(s: Services, release: Release, found: Figures, reading: str | None = None) -> str:
    """The card as Markdown. found: the figures of the release.

    reading: its last section, how to read the dataset. Default: how to read the release in its store.

    The mask warnings are of at most LOOKED_AT masklets, evenly spread over the release. Raises ReleaseError, BlobError.
    """
    videos = release.videos()
    limits = Thresholds(**s.settings.checks.model_dump())
    warned = mask_warnings.of_release(release, limits, most=LOOKED_AT)
    refused = Counter(row.reason for row in s.tables.quarantine() if row.stage in ("publish", "review"))
    shown = {table.title: table for table in tables.of(found)}
    sections = [
        f"# {release.name}",
        _summary(found),
        "## What it holds",
        *(_markdown(shown[name]) for name in _HOLDS),
        "## How it was made",
        _how(found, videos),
        *(_markdown(shown[name]) for name in _MAKING if name in shown),
        "## Who worked on it",
        _who(found),
        "## What the sources say",
        _sources(videos),
        "## Licences",
        _licences(videos),
        "## Checks",
        f"{_RULES}\n\n{_checks(warned, refused)}",
        "## Known limits",
        _limits(found, found.groups[ALL].videos),
        "## How to read it",
        reading or _READ.format(name=release.name, stride=STRIDE, fps=FPS, digest=release.digest),
    ]
    return "\n\n".join(sections) + "\n"


@dataclass(frozen=True, kw_only=True)
class Added:
    """What a batch added to a release."""

    batch: str  # the id of the batch, or of its increment
    videos: Sequence[Video]
    masklets: Sequence[Masklet]
    refused: Mapping[str, int]  # by the check that failed: masklets that are not in the release


def key_of(name: str) -> str:
    """Where the short card of a release is."""
    return f"releases/{name}/README.md"


def keep(release: Release, note: str, added: Added | None = None) -> None:
    """Writes the short card beside the manifest of a release, unless there is one.

    note: what this release is beside the one before, in a sentence. added: None if no masklet is new.
    """
    release.blobs.create(key_of(release.name), short(release, note, added).encode())


def short(release: Release, note: str, added: Added | None = None) -> str:
    """The short card as Markdown. Reads nothing. Arguments: as for `keep`."""
    counts = release.counts
    found, videos = None, list[Video]()
    if added and added.masklets:
        shows = {masklet.video_id for masklet in added.masklets}
        videos = [video for video in added.videos if video.video_id in shows]
        found = figures.of_masklets(release, videos, added.masklets)
    shown = {table.title: table for table in tables.of(found)} if found else {}
    sections = [
        f"# {release.name}",
        f"{counted(counts['masklets'], 'masklet')} of {counted(counts['videos'], 'video')}, "
        f"{counted(counts['masks'], 'mask')}. {_MASKLET}",
        f"{note} This card was written with the release. `masklets card {release.name}` makes the full one: it reads "
        "the whole release.",
        "## What it holds",
        _totals(counts),
    ]
    if added and found:
        sections += [
            f"## What batch {added.batch} added",
            "Down to the checks, this card is about these masklets. Those of earlier batches are on earlier cards.",
            *(_markdown(shown[name]) for name in _HOLDS),
            "## How they were made",
            _how(found, videos),
            *(_markdown(shown[name]) for name in _MAKING if name in shown),
            "## Who worked on them",
            _who(found),
            "## Licences of their videos",
            _licences(videos),
        ]
    sections += ["## Checks", _RULES]
    if added and added.refused:
        said = ", ".join(f"{reason} {number}" for reason, number in sorted(added.refused.items()))
        sections.append(f"Batch {added.batch} has masklets that were refused: {said}.")
    sections += [
        "## Known limits",
        _limits(found, counts["videos"]) if found else _GAPS,
        "## How to read it",
        _READ.format(name=release.name, stride=STRIDE, fps=FPS, digest=release.digest),
    ]
    return "\n\n".join(sections) + "\n"


def _totals(counts: Mapping[str, Any]) -> str:
    """The counts of a manifest."""
    kinds = ("videos", "masklets", "masks")
    rows = {"all": counts, **counts["by_kind"], **counts["by_split"]}
    lines = [_row(("", *kinds)), _row(("---", *["---:"] * len(kinds)))]
    return "\n".join(lines + [_row((name, *(str(of[kind]) for kind in kinds))) for name, of in rows.items()])


def _summary(found: Figures) -> str:
    every = found.groups[ALL]
    classes = "A label names the class of an object." if found.labels else "Objects have no classes."
    return (
        f"{counted(every.masklets, 'masklet')} of {counted(every.videos, 'video')} ({every.hours:.2f} hours), "
        f"{counted(every.masks, 'mask')} on {counted(every.frames, 'annotated frame')}. {_MASKLET} {classes}"
    )


def _how(found: Figures, videos: Sequence[Video]) -> str:
    changes = Counter(change.partition(",")[0] for video in videos for change in video.changes)
    lines = [
        f"- Videos are stored upright, in H.264 at a constant {FPS} frames a second. A table keeps the source's times.",
        "- A model proposes masklets (candidates). People accept, correct or reject each one, and somebody else checks "
        "each correction. Only accepted masklets are published.",
        "- In phase 1 people mask every annotated frame; in phase 2 a model propagates their masks; in phase 3 it also "
        "takes clicks on any frame.",
    ]
    if changes:
        said = ", ".join(f"{counted(number, 'video')} {change}" for change, number in sorted(changes.items()))
        lines.append(f"- Ingest changed: {said}.")
    for checkpoint, form in imported.CHECKPOINTS.items():
        if came := sum(found.makers.get(checkpoint, {}).values()):
            of_files = f"- {counted(came, 'masklet')} came from files of {form}"
            lines.append(f"{of_files}: only their source knows who made them, and how.")
    return "\n".join(lines)


def _who(found: Figures) -> str:
    people = found.people
    lines = [
        f"- Drew and corrected masklets: {counted(people['annotators'], 'annotator')}.",
        f"- Judged them: {counted(people['reviewers'], 'reviewer')}. The card names nobody.",
    ]
    if not any(people.values()):
        lines = ["- The release does not say: its masklets were imported."]
    if found.decided_alone:
        lines.append(f"- {counted(found.decided_alone, 'masklet')}: {DEFINITIONS['decided_alone']}.")
    return "\n".join(lines)


def _licences(videos: Sequence[Video]) -> str:
    """Licences as the sources of the videos state them. Nothing is guessed."""
    known = Counter(video_metadata.licence_of(_metadata(video)) for video in videos)
    unknown = known.pop(None, 0)
    lines = [f"- {licence}: {counted(number, 'video')}" for licence, number in sorted(known.items())]
    if unknown:
        unstated = f"- not stated by the source: {counted(unknown, 'video')}"
        lines.append(f"{unstated}. Whoever publishes this release must know their terms.")
    return "\n".join(lines)


def _metadata(video: Video) -> dict[str, Any]:
    """What the source of a video says about it; nothing, if another tool wrote something else there."""
    try:
        return video_metadata.of(video)
    except ValueError:
        return {}


def _sources(videos: Sequence[Video]) -> str:
    """What tables beside the videos, or the datasets of imported ones, say about them: a row a column."""
    said: dict[str, Counter[str]] = {}
    for video in videos:
        for column, value in _metadata(video).items():
            if column not in video_metadata.LICENCE_KEYS and (text := video_metadata.text_of(value)) is not None:
                said.setdefault(" ".join(column.split())[:_MOST_LETTERS], Counter())[text] += 1
    if not said:
        return "Nothing about these videos."
    shown = sorted(said.items(), key=lambda each: (-each[1].total(), each[0]))
    lines = [_row(("column", "videos", "values")), _row(("---", "---:", "---"))]
    lines += [_row((column, str(of.total()), _values(column, of))) for column, of in shown[:_MOST_COLUMNS]]
    if len(shown) > _MOST_COLUMNS:
        lines += ["", f"And {counted(len(shown) - _MOST_COLUMNS, 'more column')}."]
    if video_metadata.AUTHOR in said:
        lines += ["", "Authors have pseudonyms."]
    return "\n".join(lines)


def _values(column: str, of: Counter[str]) -> str:
    """The values of a column that are few and short, each with its videos; of others, how many there are."""
    texts = [" ".join(value.split()) for value in of]
    if column == video_metadata.AUTHOR or len(of) > _MOST_VALUES or max(map(len, texts)) > _MOST_LETTERS:
        return f"{len(of)} different"
    return ", ".join(f"{text} {number}" for text, number in zip(texts, of.values(), strict=True))


def _checks(warned: Summary, refused: Counter[str]) -> str:
    lines = list[str]()
    if refused:
        said = ", ".join(f"{reason} {number}" for reason, number in sorted(refused.items()))
        lines.append(f"The whole store refused {counted(refused.total(), 'masklet')} so far: {said}.")
        lines.append("")
    lines.append(
        f"What looks wrong in {counted(warned.checked, 'masklet')}, evenly spread over the release; hints only:"
    )
    lines.append("")
    total = max(1, warned.checked)
    for check, meaning in mask_warnings.CHECKS.items():
        number = warned.masklets[check]
        lines.append(f"- {check}: {counted(number, 'masklet')} ({number / total:.1%}); {meaning}")
    return "\n".join(lines)


def _limits(found: Figures, videos: int) -> str:
    """found: the figures of the masklets that are described. videos: of the whole release."""
    every, auto = found.groups[ALL], found.groups["auto"]
    lines = [_GAPS]
    if auto.masklets:
        lines.append(
            f"- {auto.masklets / every.masklets:.0%} of the masklets are a model's own, accepted as they were: "
            "their borders are the model's."
        )
    if _STAND_IN in found.makers:
        lines.append(
            "- `micro` proposed or propagated masklets: a small model that stands in for published checkpoints."
        )
    if found.held_out_with_model:
        number = counted(found.held_out_with_model, "held-out masklet")
        lines.append(f"- {number} (val, test) made with a model in the loop: figures on them favour models like it.")
    if videos < 100:
        lines.append(f"- Few videos ({videos}): figures about this release vary a lot.")
    return "\n".join(lines)


def _markdown(table: Table) -> str:
    head, *rows = table.rows
    lines = [_row(head), _row(["---", *["---:"] * (len(head) - 1)]), *map(_row, rows)]
    note = [f"\n*{table.note}*"] if len(table.terms) == 1 else []
    terms = [f"- {term.replace('_', ' ')}: {DEFINITIONS[term]}" for term in table.terms] if len(table.terms) > 1 else []
    return "\n".join([f"### {table.title}", "", *lines, *note, *(["", *terms] if terms else [])])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_MASKLET = f"A masklet is the masks of one object through a video, at {FPS // STRIDE} frames a second."
_RULES = "Every masklet passed these before it was published:\n\n" + "\n".join(
    f"- {name}: {meaning}" for name, meaning in RULES.items()
)
_GAPS = (
    "- Not every object of a video has a masklet: do not take the rest of a frame for background.\n"
    f"- Masks exist on every {STRIDE}th frame at {FPS} a second; the frames between them have none."
)
_READ = """```sh
masklets export FOLDER --release {name}      # SA-V JSON, or another format: --format
masklets validate {name}                     # every file against its hash, every mask against its row
```

Without this project: the masklets are Parquet files, one row a masklet, and `releases/{name}/manifest.json` leads to
them. `frame_idx` counts frames of the stored video at {fps} a second (every {stride}th has masks), `rle` holds COCO
compressed counts of `height` x `width`, column-major, and an absent object is an all-zero mask.

sha256 of the manifest: `{digest}`"""
