"""The results of an experiment as tables, with the paper's figures beside ours, and as a few figures for a benchmark.

Pure: takes the results of the steps. A step that is missing leaves its cells empty. Source: Ravi et al. 2024, tables 1,
2 and 9 (second version).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.experiments import measuring
from engine.experiments.steps import Result

Steps = Mapping[str, Result]
Row = tuple[str, ...]

ROUNDS = ("rounds-1", "rounds-2", "rounds-3")
PHASES = ("labour-1", "labour-2", "labour-3")
CHAIN = {"before": "before", "chain-1": "1", "chain-2": "2", "chain-3": "3", "chain-4": "auto"}

PAPER_LABOUR = {
    "modelled seconds a frame": ("37.8", "7.4", "4.5"),
    "times as fast as phase 1": ("1.0", "5.1", "8.4"),
    "edited frames": ("100 %", "23.25 %", "19.04 %"),
    "clicks a clicked frame": ("4.80", "3.61", "2.68"),
    "aligned with phase 1, all": ("", "86.4 %", "89.1 %"),
    "small objects": ("", "71.3 %", "72.8 %"),
    "medium objects": ("", "80.4 %", "81.8 %"),
    "large objects": ("", "97.9 %", "100.0 %"),
}
PAPER_CHAIN = {
    "before": ("50.0", "62.5"),
    "chain-1": ("53.0", "66.9"),
    "chain-2": ("58.8", "70.9"),
    "chain-3": ("62.5", "71.2"),
    "chain-4": ("63.2", "71.5"),
}
PAPER_FILTER = {"filter-edited": "66.2", "filter-random": "63.7"}


@dataclass(frozen=True)
class Table:
    """One table of the report. The first row of `rows` is the heading."""

    title: str
    note: str
    rows: tuple[Row, ...]


def tables(steps: Steps) -> list[Table]:
    """Every table that has at least one result."""
    made = (labour, chain, rounds, labels, filtered, ordered, verifier)
    return [table for make in made if len((table := make(steps)).rows) > 1]


def labour(steps: Steps) -> Table:
    """The paper's table 1."""
    found = [steps.get(name, {}) for name in PHASES]
    first = found[0].get("seconds_a_frame")
    aligned = [of.get("alignment", {}) for of in found]
    speeds = [_ratio(first, of.get("seconds_a_frame")) for of in found]
    ours: dict[str, Sequence[str]] = {
        "modelled seconds a frame": [_number(of.get("seconds_a_frame")) for of in found],
        "times as fast as phase 1": [_number(speed) for speed in speeds],
        "edited frames": [_share(of.get("edited_share")) for of in found],
        "clicks a clicked frame": [_number(of.get("clicks_a_clicked_frame"), 2) for of in found],
        "aligned with phase 1, all": [_percent(of.get("all")) for of in aligned],
        **{f"{size} objects": [_percent(of.get(size)) for of in aligned] for size in ("small", "medium", "large")},
        "masklets": [_count(of.get("masklets")) for of in found],
    }
    head = ("", "phase 1", "phase 2", "phase 3", "paper: phase 1", "phase 2", "phase 3")
    body = [(label, *cells, *PAPER_LABOUR.get(label, ("",) * 3)) for label, cells in ours.items()]
    return Table(
        "Table 1: the phases on the same clips",
        "The same clips labelled three times; people select every object. Phase 2 works with the checkpoint that was "
        "trained on phase 1, phase 3 with the one trained on phases 1 and 2. Time is modelled, not measured. In phase "
        "1 simulated people paint each frame and click nowhere. A mask is aligned if its IoU with that of phase 1 is "
        "above 0.75; sizes are of the first frame that shows the object (below 32², below 96² px, larger).",
        (head, *body) if any(found) else (head,),
    )


def chain(steps: Steps) -> Table:
    """The paper's table 2."""
    names = {
        "before": "nothing of the domain",
        "chain-1": "+ a batch of phase 1",
        "chain-2": "+ a batch of phase 2",
        "chain-3": "+ a batch of phase 3",
        "chain-4": "+ accepted candidates",
    }
    head = ("trained on", "masklets", "held-out J&F", "gained", "general set", "paper: SA-V val", "zero-shot sets")
    start = steps.get("before", {})
    body = []
    for name, label in names.items():
        if "domain" in (of := steps.get(name, {})):
            gained = "" if of is start else _gain(start, of)
            cells = (_count(of.get("trained_on")), _mean(of["domain"]), gained, _mean(of["general"]))
            body.append((label, *cells, *PAPER_CHAIN[name]))
    return Table(
        "Table 2: trained on the data of each phase",
        "After each batch the first checkpoint is trained on everything labelled so far, always with the same number "
        "of steps, and measured on the same held-out clips: three clicks an object, with a 95 % interval over videos. "
        "The general set are micro's own held-out clips.",
        (head, *body) if "chain-1" in steps else (head,),
    )


def rounds(steps: Steps) -> Table:
    """Three rounds in a row."""
    found = [steps.get(name, {}) for name in ROUNDS]
    start = steps.get("before", {})
    rows: list[Row] = [
        ("candidates", "", *(_count(of.get("candidates")) for of in found)),
        ("accepted as they were", "", *(_mean(of.get("accepted"), " %") for of in found)),
        ("their J&F against the truth", "", *(_mean(of.get("candidates_jf")) for of in found)),
        ("clicks a masklet", "", *(_mean(of.get("clicks_a_masklet")) for of in found)),
        ("edited frames a masklet", "", *(_mean(of.get("edited_frames_a_masklet")) for of in found)),
        ("modelled seconds a frame", "", *(_number(of.get("seconds_a_frame")) for of in found)),
        ("masklets published", "", *(_count(of.get("masklets")) for of in found)),
        ("held-out J&F after the round", *(_mean(of.get("domain")) for of in (start, *found))),
        ("gained in all", "", *(_gain(start, of) for of in found)),
        ("J&F on the general set", *(_mean(of.get("general")) for of in (start, *found))),
        ("gate", "", *(_gate(of) for of in found)),
    ]
    head = ("", "before", "batch and round 1", "batch and round 2", "batch and round 3")
    return Table(
        "Three rounds in a row",
        "Each batch is proposed by the checkpoint that is promoted then, and reviewed in phase 3; a round follows. "
        "Simulated reviewers err like people near the threshold. Intervals of 95 % are over videos.",
        (head, *rows) if any(found) else (head,),
    )


def labels(steps: Steps) -> Table:
    """J&F against the number of masklets."""
    head = ("masklets", "steps", "held-out J&F", "gained", "general set")
    start = steps.get("before", {})
    body = [
        (str(of["labels"]), str(of["steps"]), _mean(of["domain"]), _gain(start, of), _mean(of["general"]))
        for of in of_labels(steps)
    ]
    zero = [("0", "0", _mean(start.get("domain")), "", _mean(start.get("general")))]
    return Table(
        "What a label buys",
        "Training on a number of true masklets, with more steps for more masklets. The recipe is `quick`: that of a "
        "round, but without rejected candidates and without single frames among the clips.",
        (head, *zero, *body) if body else (head,),
    )


def filtered(steps: Steps) -> Table:
    """The paper's table 9."""
    names = {"filter-edited": "the most edited half", "filter-random": "as many random ones"}
    head = ("trained on", "masklets", "held-out J&F", "general set", "paper: SA-V val")
    body = _compared(steps, names, "trained_on", PAPER_FILTER)
    return Table("Filtering: the most edited masklets", "Of the masklets of the three rounds.", (head, *body))


def ordered(steps: Steps) -> Table:
    """Which candidates people should see first."""
    names = {"order-hard": "the half that the verifier doubts most", "order-random": "a random half"}
    head = ("trained on", "candidates", "held-out J&F", "general set")
    return Table(
        "Ordering: hard first",
        "The masklets that people made from half of the last batch's candidates. The verifier learned from the "
        "verdicts of the batches before.",
        (head, *(row[:4] for row in _compared(steps, names, "candidates", {}))),
    )


def verifier(steps: Steps) -> Table:
    """How well verdicts are predicted."""
    of = steps.get("verifier")
    head = ("the verifier on candidates of other videos", "ours", "asked for")
    if not of:
        return Table("The verifier", "", (head,))
    if "left_out" in of:
        return Table("The verifier", "", (head, ("not measured", str(of["left_out"]), "")))
    rows = (
        ("AUROC", _mean(of["auroc"], places=3), "0.90 or more"),
        ("calibration error", _mean(of["calibration_error"], places=3), "0.05 or less"),
        ("calibration error by chance alone", f"{of['chance_error']:.3f}" if "chance_error" in of else "", ""),
        *_saved(of),
        ("agreement with people", _mean(of.get("agreement"), places=3), "that of two people"),
        ("agreement of two people", _two_people(of), ""),
        ("candidates, videos", f"{of['candidates']}, {of['videos']}", ""),
    )
    return Table("The verifier", "Fitted on the verdicts of the three rounds.", (head, *rows))


def _saved(of: Result) -> list[Row]:
    """Saved reviews, and how many of these decisions were right. Older results have no second figure."""
    saved = _mean(of["saved"], places=3)
    if "saved_precision" not in of:
        return [("reviews saved at best, with cuts chosen on the same verdicts", saved, "0.5 or more")]
    reached = _mean(of["saved_precision"], places=3) or "nothing is saved"
    return [("reviews saved", saved, "0.5 or more"), ("right among them", reached, "0.98 or more")]


def _two_people(of: Result) -> str:
    if "human_agreement" not in of:
        return ""  # an older result
    return _mean(of["human_agreement"], places=3) or "nobody judged a candidate twice"


def serving(steps: Steps) -> Result:
    """The measured model that serves after the three rounds: that of the last one that the gate promoted, or else the
    first model. Empty if a round is missing."""
    if any(name not in steps for name in ROUNDS):
        return {}
    promoted = [name for name in ROUNDS if (gate := steps[name].get("gate")) and gate["promoted"]]
    return steps[promoted[-1]] if promoted else steps.get("before", {})


def of_labels(steps: Steps) -> list[Result]:
    """The results of the label curve, from few labels to many."""
    return sorted((of for of in steps.values() if "labels" in of), key=lambda of: int(of["labels"]))


def headline(steps: Steps) -> Result:
    """The figures that `benchmarks.rounds` prints; None where a step is missing. J&F and shares are of 0 to 100."""
    before, last = steps.get("before", {}), serving(steps)
    seconds = [steps.get(name, {}).get("seconds_a_frame") for name in PHASES]
    both = before and last
    gates = [steps.get(name, {}).get("gate") for name in ROUNDS]
    gain = measuring.gain(before["domain"], last["domain"]) if both else {}
    forgotten = measuring.gain(last["general"], before["general"]) if both else {}
    judged = steps.get("verifier", {})
    return {
        "jf_before": _value(before.get("domain")),
        "jf_after": _value(last.get("domain")),
        "jf_gain": _value(gain),
        "jf_gain_interval": [gain["low"], gain["high"]] if gain else None,
        "promoted_by_round": [None if gate is None else bool(gate["promoted"]) for gate in gates],
        "clicks_by_round": [_value(steps.get(name, {}).get("clicks_a_masklet")) for name in ROUNDS],
        "accepted_by_round": [_value(steps.get(name, {}).get("accepted")) for name in ROUNDS],
        "seconds_per_frame": seconds,
        "phase_speedup": _ratio(seconds[0], seconds[2]),
        "jf_by_phase": {phase: _value(steps.get(name, {}).get("domain")) for name, phase in CHAIN.items()},
        "forgetting": _value(forgotten),  # points lost on the general set
        "verifier_auroc": _value(judged.get("auroc")),
        "verifier_ece": _value(judged.get("calibration_error")),
        "verifier_chance_error": judged.get("chance_error"),
        "reviews_saved": _value(judged.get("saved")),
        "reviews_saved_precision": _value(judged.get("saved_precision")),
    }


def _compared(steps: Steps, names: Mapping[str, str], count: str, paper: Mapping[str, str]) -> list[Row]:
    """Two results, and the paired difference of the first to the second."""
    rows: list[Row] = []
    for name, label in names.items():
        if (of := steps.get(name)) is None:
            continue
        cells = (of["left_out"], "") if "left_out" in of else (_mean(of["domain"]), _mean(of["general"]))
        rows.append((label, _count(of.get(count)), *cells, paper.get(name, "")))
    ours, other = (steps.get(name, {}) for name in names)
    if "domain" in ours and "domain" in other:
        rows.append(("difference", "", _gain(other, ours), _gain(other, ours, "general"), ""))
    return rows


def _gain(before: Result, after: Result, on: str = "domain") -> str:
    if on not in before or on not in after:
        return ""
    found = measuring.gain(before[on], after[on])
    return f"{found['mean']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"


def _gate(of: Result) -> str:
    gate = of.get("gate")
    if gate is None:
        return "no round: nothing was published" if of.get("release") == "" else ""
    return "promoted" if gate["promoted"] else "; ".join(gate["reasons"])


def _mean(found: Result | None, unit: str = "", places: int = 1) -> str:
    if not found:
        return ""
    mean, low, high = (f"{found[name]:.{places}f}" for name in ("mean", "low", "high"))
    return f"{mean}{unit} ({low} to {high})"


def _value(found: Result | None) -> float | None:
    return float(found["mean"]) if found else None


def _ratio(first: float | None, other: float | None) -> float | None:
    return round(first / other, 2) if first and other else None


def _number(value: float | None, places: int = 1) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} %"


def _count(value: int | None) -> str:
    return "" if value is None else str(value)
