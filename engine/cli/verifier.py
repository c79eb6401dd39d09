"""The command about the verifier: its figures, and fitting it now."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import console
from engine.cli.console import Json
from engine.cli.data import newest
from storage.wording import counted

if TYPE_CHECKING:
    from engine.verifier.figures import VerifierFigures
    from engine.verifier.keeping import Kept
    from validation.verdicts import Cut, Interval


def verifier(
    fit: Annotated[bool, typer.Option("--fit", help="Fit it now, from all verdicts up to the newest release.")] = False,
    as_json: Json = False,
) -> None:
    """The verifier that learns from people's verdicts: how well it predicts them, and what it could decide alone."""
    from engine.services import connect
    from engine.verifier import keeping

    with connect() as s:
        if fit:
            found = keeping.refit(s.blobs, newest(s), s.settings.verifier.precision)
        elif known := keeping.ids(s.blobs):
            found = keeping.find(s.blobs, known[-1])
        else:
            raise ValueError("no verifier yet: a round fits one, or masklets verifier --fit")
    if as_json:
        console.print_json(found)
        return
    figures = found.figures
    title = f"{found.verifier_id}: {counted(figures.candidates, 'candidate')} of {counted(figures.videos, 'video')}"
    console.print_rows(("", "value", "95 % interval"), _rows(found), title=title)
    sure = {"accept": figures.sure_accept, "reject": figures.sure_reject, "correct": figures.sure_refine}
    console.out.print("; ".join(f"sure to {act}: {_cut(cut)}" for act, cut in sure.items()))


def _rows(found: Kept) -> list[tuple[str, str, str]]:
    figures = found.figures
    rows = [
        _row("AUROC", figures.auroc, 1),
        _row("calibration error", figures.calibration_error, 1),
        ("calibration error by chance alone", _places(figures.chance_error), ""),
        *_saved(figures),
        _row("agrees with people, %", figures.agreement, 100),
    ]
    if figures.human_agreement is None:
        return [*rows, ("people agree", "not measured", "no candidate was judged twice")]
    return [*rows, _row("people agree, %", figures.human_agreement, 100)]


def _saved(figures: VerifierFigures) -> list[tuple[str, str, str]]:
    """Saved reviews, and how many of these decisions were right."""
    if figures.saved_precision is None:  # an older file
        return [_row("reviews saved at best (cuts chosen on the same verdicts), %", figures.saved, 100)]
    reached = ("right among them, %", "not measured", "nothing is saved")
    if not math.isnan(figures.saved_precision.value):
        reached = _row("right among them (98 % wanted), %", figures.saved_precision, 100)
    return [_row("reviews saved, %", figures.saved, 100), reached]


def _row(name: str, value: Interval, factor: int) -> tuple[str, str, str]:
    digits = 1 if factor > 1 else 3
    low, high = (f"{factor * end:.{digits}f}" for end in (value.low, value.high))
    return name, f"{factor * value.value:.{digits}f}", f"{low} to {high}"


def _places(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _cut(cut: Cut) -> str:
    return f"{cut.right} of {cut.count} right" if cut.count else "nothing"
