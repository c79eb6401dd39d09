"""What the tables say: alignment by size, figures with intervals, and the cells of steps that are missing."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.experiments import figures, measuring, tables
from storage import rle
from storage.records import Masklet
from tests.engine.verifier.made import made


def masklet(masklet_id: str, left: int, side: int, frames: int = 4) -> Masklet:
    """A square that stands still on a frame of 128 x 128; the last frame does not show it."""
    mask = np.zeros((128, 128), bool)
    mask[:side, left : left + side] = True
    rows = [rle.encode(mask)] * (frames - 1) + [rle.empty(128, 128)]
    return Masklet(
        masklet_id=masklet_id,
        video_id="v",
        batch_id="b",
        height=128,
        width=128,
        frame_idx=tuple(range(0, 4 * frames, 4)),
        rle=tuple(rows),
        area_px=(*[side * side] * (frames - 1), 0),
        score=(1.0,) * frames,
        object_score=(1.0,) * frames,
        stability=(1.0,) * frames,
        kind="manual",
        phase="1",
        round=0,
        checkpoint="by hand",
        prompt="{}",
    )


def test_alignment_counts_the_masks_of_phase_1_by_the_size_of_their_object():
    small, medium, large = masklet("s", 0, 20), masklet("m", 0, 60), masklet("l", 0, 100)
    found = figures.alignment([small, medium, large], [replace(small, masklet_id="s2"), masklet("l2", 3, 100)])
    assert found == {"all": 66.7, "small": 100.0, "medium": 0.0, "large": 100.0}
    half_lost = replace(small, rle=(small.rle[0], *small.rle[3:] * 3), area_px=(400, 0, 0, 0))
    assert figures.alignment([small], [half_lost])["small"] == 33.3
    assert figures.alignment([small], [replace(small, video_id="other")])["small"] == 0.0
    assert figures.alignment([], [])["all"] is None


def measured(*jf: float) -> dict[str, Any]:
    """J&F of one masklet a clip, as a step keeps it."""
    each = [(f"clip-{n}", "0", value) for n, value in enumerate(jf)]
    return {**measuring.mean((video, value) for video, _, value in each), "each": each}


STEPS: dict[str, Any] = {
    "before": {"domain": measured(30, 40, 50), "general": measured(60, 60, 60)},
    "rounds-1": {
        "domain": measured(35, 50, 80),
        "general": measured(60, 55, 50),
        "accepted": measuring.mean([("a", 0.0), ("b", 100.0)]),
        "clicks_a_masklet": measuring.mean([("a", 4), ("b", 8)]),
        "candidates": 2,
        "masklets": 3,
        "seconds_a_frame": 7.5,
        "release": "release-0002",
        "gate": {"promoted": False, "reasons": ["too few", "clearly worse"]},
    },
    "labour-1": {"seconds_a_frame": 30.0, "edited_share": 1.0, "clicks_a_clicked_frame": None, "masklets": 4},
    "labour-3": {"seconds_a_frame": 5.0, "edited_share": 0.25, "clicks_a_clicked_frame": 2.5, "masklets": 4},
    "labels-30": {"labels": 30, "steps": 8, "domain": measured(60, 60, 60), "general": measured(50, 50, 50)},
    "labels-100": {"labels": 100, "steps": 8, "domain": measured(70, 70, 70), "general": measured(40, 40, 40)},
    "filter-edited": {"trained_on": 5, "domain": measured(50, 60, 70), "general": measured(1, 1, 1)},
    "filter-random": {"trained_on": 5, "domain": measured(40, 50, 60), "general": measured(2, 2, 2)},
    "order-hard": {"candidates": 1, "left_out": "a verifier needs 60 verdicts"},
}


def test_the_tables_put_the_papers_figures_beside_ours():
    rows = {table.title.partition(":")[0]: {row[0]: row for row in table.rows} for table in tables.tables(STEPS)}
    labour = rows["Table 1"]
    assert labour["modelled seconds a frame"] == ("modelled seconds a frame", "30.0", "", "5.0", "37.8", "7.4", "4.5")
    assert labour["times as fast as phase 1"][1:4] == ("1.0", "", "6.0")
    assert labour["edited frames"][1:4] == ("100.0 %", "", "25.0 %")
    assert "Table 2" not in rows  # no step of the chain is finished
    rounds = rows["Three rounds in a row"]
    assert rounds["held-out J&F after the round"][1:3] == ("40.0 (30.0 to 50.0)", "55.0 (35.0 to 80.0)")
    assert rounds["gained in all"][2] == "+15.0 (-17.9 to +47.9)"  # Student's interval: a bootstrap says 5 to 30
    assert rounds["gate"][2] == "too few; clearly worse"
    assert [row for row in rows["What a label buys"]][1:] == ["0", "30", "100"]
    assert rows["Filtering"]["difference"][2:4] == ("+10.0 (+10.0 to +10.0)", "-1.0 (-1.0 to -1.0)")
    assert rows["Ordering"]["the half that the verifier doubts most"][2] == "a verifier needs 60 verdicts"


def test_the_table_of_the_verifier_says_how_its_figures_were_measured():
    def rows(**more):
        half = {"mean": 0.5, "low": 0.4, "high": 0.6}
        old = {"auroc": half, "calibration_error": half, "saved": half, "candidates": 9, "videos": 3}
        return {row[0]: row[1] for row in tables.verifier({"verifier": old | more}).rows}

    assert rows()["reviews saved at best, with cuts chosen on the same verdicts"] == "0.500 (0.400 to 0.600)"
    assert rows()["agreement of two people"] == "", "an older result does not know"
    most = {"mean": 0.9, "low": 0.8, "high": 1.0}
    new = rows(saved_precision=most, agreement=most, human_agreement={})
    assert (new["reviews saved"], new["right among them"]) == ("0.500 (0.400 to 0.600)", "0.900 (0.800 to 1.000)")
    assert new["agreement with people"] == "0.900 (0.800 to 1.000)"
    assert new["agreement of two people"] == "nobody judged a candidate twice"
    both = rows(saved_precision={}, human_agreement=most)
    assert (both["right among them"], both["agreement of two people"]) == ("nothing is saved", "0.900 (0.800 to 1.000)")


@pytest.mark.slow
def test_the_step_of_the_verifier_compares_people_with_each_other_if_two_judged_the_same(monkeypatch):
    from engine.experiments import selecting
    from engine.verifier import fitting
    from engine.verifier.fitting import Predictions

    judged = made(90)
    monkeypatch.setattr(selecting, "_rounds", lambda experiment: nullcontext())
    monkeypatch.setattr(selecting, "_judged", lambda s, experiment, rounds: judged if rounds == (1, 2, 3) else [])
    monkeypatch.setattr(fitting, "out_of_fold", lambda all_of: Predictions(np.full(90, 0.9), np.zeros(90)))
    experiment: Any = SimpleNamespace()
    assert selecting.verifier(experiment)["human_agreement"] == {}
    judged = [replace(one, answers=("accept", "refine")) for one in judged]
    found = selecting.verifier(experiment)
    assert found["human_agreement"]["mean"] == 0.0 < found["agreement"]["mean"]


def test_the_headline_has_every_figure_and_none_for_what_is_missing():
    found = tables.headline(STEPS)
    assert found["jf_before"] == 40.0 and found["jf_after"] is None  # the third round is missing
    assert found["clicks_by_round"] == [6.0, None, None]
    assert found["accepted_by_round"] == [50.0, None, None]
    assert (found["seconds_per_frame"], found["phase_speedup"]) == ([30.0, None, 5.0], 6.0)
    promoted = STEPS["rounds-1"] | {"gate": {"promoted": True, "reasons": ["better"]}}
    refused = promoted | {"domain": measured(99, 99, 99), "gate": {"promoted": False, "reasons": ["too few"]}}
    done = tables.headline(STEPS | {"rounds-1": promoted, "rounds-2": promoted, "rounds-3": refused})
    assert done["promoted_by_round"] == [True, True, False]
    assert done["jf_gain"] == 15.0 and done["jf_after"] == 55.0, "of the model that serves, not of the refused one"
    assert done["forgetting"] == pytest.approx(5.0)
    none = tables.headline(STEPS | {"rounds-1": refused, "rounds-2": refused, "rounds-3": refused})
    assert (none["jf_after"], none["jf_gain"]) == (40.0, 0.0)
    assert tables.headline({}).keys() == found.keys()
