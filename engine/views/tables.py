"""The figures of a release as tables of text: for a terminal, a page and a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.views.figures import ALL, DEFINITIONS, SA_V, Figures, Group
from storage.records import Verdict
from storage.wording import counted

_COLUMNS = ("videos", "hours", "masklets", "masks", "frames", "disappearance_rate", "masklets_a_video")
_HEAD = tuple(name.replace("disappearance_rate", "disapp. rate").replace("_a_", " a ") for name in _COLUMNS)


@dataclass(frozen=True)
class Table:
    """A table of text. rows: the first one is the heading; the first cell of a row is its label."""

    title: str
    rows: Sequence[Sequence[str]]
    terms: Sequence[str] = ()  # keys of DEFINITIONS that explain it

    @property
    def note(self) -> str:
        """What its figures mean."""
        if len(self.terms) == 1:
            text = DEFINITIONS[self.terms[0]]
            return f"{text[0].upper()}{text[1:]}."
        return " ".join(f"{term.replace('_', ' ').capitalize()}: {DEFINITIONS[term]}." for term in self.terms)


def of(figures: Figures) -> list[Table]:
    """The tables of a release."""
    published = [(f"SA-V, {name}", *_published(values)) for name, values in SA_V.items()]
    groups = [(name, *_group(figures.groups[name])) for name in ("manual", "auto", ALL)]
    splits = [(name, *_group(group)) for name, group in figures.splits.items()]
    found = [
        Table("Beside SA-V", [("", *_HEAD), *groups, *published], _COLUMNS),
        Table("By split", [("", *_HEAD), *splits]),
        Table("Videos", _videos(figures), ("duration_s", "size_px")),
        _shares("Masklets by size", "size", figures.sizes, "sizes"),
        _shares("Masks by area", "share of the frame", _areas(figures), "area_share"),
        _shares("Masklets by visibility changes", "changes", figures.visibility_changes, "visibility_changes"),
        _shares("Manual masklets by edited frames", "edited", figures.edited_share, "edited_share"),
        Table("Objects", _objects(figures), ("small_masks", "first_frame")),
        Table(
            "People", _people(figures), ("edited_frames", "clicks", "people", "decided_alone", "held_out_with_model")
        ),
        _shares("Masklets by phase", "phase", figures.phases, "phases"),
        Table("Masklets by checkpoint", _makers(figures), ("makers",)),
    ]
    if figures.labels:
        rest = figures.groups[ALL].masklets - sum(figures.labels.values())
        counts = {**figures.labels, **({"(no label)": rest} if rest else {})}
        found.append(_shares("Masklets by label", "label", counts, "labels"))
    if figures.verdicts:
        found.append(Table("Verdicts by checkpoint", _verdicts(figures.verdicts), ("verdicts",)))
    return found


def count(number: float) -> str:
    """A number as SA-V writes it: 950, 50.9K, 10.0M."""
    if number < 10_000:
        return f"{number:,.0f}"
    return f"{number / 1e6:.1f}M" if number >= 999_950 else f"{number / 1e3:.1f}K"


def _group(group: Group) -> tuple[str, ...]:
    return (
        count(group.videos),
        _hours(group.hours),
        count(group.masklets),
        count(group.masks),
        count(group.frames),
        f"{group.disappearance_rate:.1%}" if group.masklets else "",
        f"{group.masklets_a_video:.1f}" if group.videos else "",
    )


def _published(values: tuple[int, float, int, int, int, float]) -> tuple[str, ...]:
    videos, hours, masklets, masks, frames, rate = values
    group = Group(videos=videos, hours=hours, masklets=masklets, masks=masks, frames=frames, disappearance_rate=rate)
    return _group(group)


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.3f}"


def _shares(title: str, label: str, counts: Mapping[str, int], term: str) -> Table:
    """Counts with their shares."""
    total = max(1, sum(counts.values()))
    rows = [(name, count(number), f"{number / total:.1%}") for name, number in counts.items()]
    return Table(title, [(label, "number", "share"), *rows], (term,))


def _areas(figures: Figures) -> dict[str, int]:
    return {f"up to {float(top):.4g}": number for top, number in figures.area_share.items()}


def _videos(figures: Figures) -> list[tuple[str, ...]]:
    found = figures.videos
    sizes = tuple(f"{width}×{height}" for width, height in found.size_px)
    return [
        ("", "mean", "least", "most"),
        ("duration", *(f"{seconds:.1f} s" for seconds in found.duration_s)),
        ("size", *sizes),
    ]


def _people(figures: Figures) -> list[tuple[str, ...]]:
    people = figures.people
    return [
        ("", ""),
        ("annotators", str(people["annotators"])),
        ("reviewers", str(people["reviewers"])),
        ("edited frames, manual masklets", _or_none(figures.edited_frames, ".1%")),
        ("clicks, manual masklets", _or_none(figures.clicks, ".1f")),
        ("accepted by the verifier alone", count(figures.decided_alone)),
        ("held out, made with a model", count(figures.held_out_with_model)),
    ]


def _objects(figures: Figures) -> list[tuple[str, ...]]:
    return [
        ("", ""),
        ("masks below a tenth of the frame", f"{figures.small_masks:.1%}"),
        ("masklets visible on the first frame", f"{figures.first_frame:.1%}"),
    ]


def _or_none(value: float | None, form: str) -> str:
    return "no manual masklet" if value is None else format(value, form)


def _makers(figures: Figures) -> list[tuple[str, ...]]:
    rows = [(name, count(of.get("unchanged", 0)), count(of.get("edited", 0))) for name, of in figures.makers.items()]
    return [("checkpoint", "unchanged", "edited"), *rows]


def _verdicts(verdicts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, ...]]:
    head = [verdict.value for verdict in Verdict]
    rows = []
    for checkpoint, of_it in verdicts.items():
        total = sum(of_it.values())
        cells = [f"{of_it.get(verdict, 0)} ({of_it.get(verdict, 0) / max(1, total):.0%})" for verdict in head]
        rows.append((checkpoint, *cells, counted(total, "answer")))
    return [("checkpoint", *head, "all"), *rows]
