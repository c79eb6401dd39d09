"""What every step measures: held-out J&F on the domain, and on micro's own clips to see what was forgotten.

Everything is in points, 0 to 100, with a 95 % interval by a bootstrap over videos; that of a gain is nowhere narrower
than Student's, as the gate's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from engine.experiments.steps import Experiment, Result
from engine.protocols import first_frame
from engine.synthetic import labelled_clips, micro_clips
from validation import paired
from validation.paired import Change, MaskletJF

if TYPE_CHECKING:
    from model.checkpoints import LoadedModel


def held_out(loaded: LoadedModel, experiment: Experiment) -> Result:
    """J&F of a checkpoint: `domain` and `general`, each with every masklet's own."""
    clips = experiment.plan.measured_clips
    sets = {
        "domain": labelled_clips.held_out_of_domain(experiment.domain, clips),
        "general": micro_clips.held_out(clips),
    }
    found: Result = {}
    for name, data in sets.items():
        each = first_frame.measure(data, loaded, first_frame.PROTOCOL).each
        found[name] = mean([(one.video_id, 100 * one.jf) for one in each])
        found[name]["each"] = [[one.video_id, one.name, round(100 * one.jf, 2)] for one in each]
    return found


def mean(values: Iterable[tuple[str, float]]) -> Result:
    """The mean of values of videos, with its interval. Empty without a value."""
    every = list(values)
    return _rounded(paired.mean_by_video(every)) if every else {}


def gain(before: Result, after: Result) -> Result:
    """The gain in points between two measurements of `held_out` on the same masklets, with its interval."""
    return _rounded(paired.gain_of(paired.gains(_each(before["each"]), _each(after["each"]))))


def _rounded(change: Change) -> Result:
    figures = {name: round(getattr(change, name), 2) for name in ("mean", "low", "high")}
    return {**figures, "masklets": change.masklets, "videos": change.videos}


def _each(rows: Sequence[tuple[str, str, float]]) -> list[MaskletJF]:
    return [MaskletJF(video_id=video_id, name=name, jf=jf) for video_id, name, jf in rows]
