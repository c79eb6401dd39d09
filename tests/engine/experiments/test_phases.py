"""The real steps on the smallest plan: through a real queue, a real round, and a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.experiments import figures, loops, phases, report, selecting, steps, tables
from engine.experiments.loops import Labelling
from engine.experiments.plan import FULL, QUICK
from engine.experiments.steps import Experiment
from engine.ingest import ingest
from engine.rounds import record
from engine.services import Services
from engine.synthetic.domains.drawing import Size
from storage.dataset import releases
from storage.dataset.releases import Release

pytestmark = pytest.mark.server


@pytest.fixture
def experiment(tmp_path: Path, checkpoint: Path) -> Experiment:
    """Clips of six annotated frames, the tiny model, one training step."""
    plan = replace(
        QUICK,
        size=Size(height=96, width=128, frames=24),
        measured_clips=1,
        candidates=2,
        steps=1,
        chain_steps=1,
        labels=(3,),
        checkpoint=str(checkpoint),
    )
    return Experiment(tmp_path / "cells", "cells", plan)


def test_the_steps_label_learn_and_measure_and_a_second_run_does_nothing(experiment: Experiment) -> None:
    wanted = ("chain-1", "labels-3")
    chosen = [step for step in phases.steps_of(experiment.plan) if step.name in wanted]
    assert steps.run([experiment], chosen, lambda done, total, name: None) == []
    found = experiment.results(wanted)
    assert found.keys() == set(wanted)
    for of in (found[name][data] for name in wanted for data in ("domain", "general")):
        assert 0 <= of["low"] <= of["mean"] <= of["high"] <= 100
        assert of["masklets"] == len(of["each"]) > 0
    by_hand = found["chain-1"]
    assert by_hand["candidates"] == 0  # people select every object
    assert by_hand["masklets"] > 0 and by_hand["clicks_a_clicked_frame"] is None
    assert by_hand["seconds_a_frame"] > 20 and by_hand["edited_share"] > 0.5  # painted
    assert (experiment.folder / by_hand["checkpoint"] / "meta.json").exists()
    assert 0 < by_hand["trained_on"] <= by_hand["masklets"]

    kept = {path.name: path.stat().st_mtime_ns for path in (experiment.folder / "steps").iterdir()}
    seen: list[str] = []
    assert steps.run([experiment], chosen, lambda done, total, name: seen.append(name)) == []
    assert seen == [""]  # no step was started
    assert kept == {path.name: path.stat().st_mtime_ns for path in (experiment.folder / "steps").iterdir()}

    every = phases.steps_of(experiment.plan)
    page = report.write(experiment.folder.parent, [experiment], every, [])
    assert "Table 2: trained on the data of each phase" in page.read_text()
    results = json.loads((experiment.folder.parent / report.RESULTS).read_text())
    assert results["missing"]["cells"] == [step.name for step in every if step.name not in wanted]
    assert results["domains"]["cells"]["jf_by_phase"]["1"] == by_hand["domain"]["mean"]
    assert "each" not in results["domains"]["cells"]["steps"]["chain-1"]["domain"]


def test_clips_whose_ingest_was_killed_are_labelled_in_two_batches(experiment: Experiment, tmp_path: Path) -> None:
    how = Labelling(phase="1", candidates=False)
    clips = loops.render(experiment, tmp_path / "clips", range(1, 3))
    with loops.opened("killed", experiment, how) as at:
        second = clips / "clip_002.mp4"
        apart = second.rename(tmp_path / second.name)
        ingest.admit(at.s, str(clips))
        apart.rename(second)
        batch_ids, release = loops.label(at, clips, how)
        found = figures.work_of(at.s, batch_ids) | figures.candidates_of(at.s, batch_ids)
        assert len(batch_ids) == 2 and release in releases.names(at.s.blobs)
        assert {row.masklet_id for row in releases.load(at.s.blobs, release).iter_masklets()} == {
            row.masklet_id for row in figures.published(at.s, batch_ids)
        }
        assert found["masklets"] == len(figures.published(at.s, batch_ids)) > 1 and found["modelled_s"] > 0


def test_a_release_keeps_its_round_when_a_killed_step_comes_back_after_the_promotion(
    s: Services, true_release: Release
) -> None:
    made, result = loops.learn(s, true_release.name, seed=1)
    s.registry.promote(made, s.blobs.uri_of(str(made.key)), s.registry.record(made.name, {}, {}))
    assert loops.learn(s, true_release.name, seed=1) == (made, result)
    assert [begun.round_id for begun in record.all_of(s)] == [made.name]


def test_every_step_needs_only_earlier_steps_and_both_plans_have_the_same_kinds_of_steps() -> None:
    for plan in (FULL, QUICK):
        names: list[str] = []
        for step in phases.steps_of(plan):
            assert set(step.needs) <= set(names)
            names.append(step.name)
    known = {*tables.CHAIN, *tables.ROUNDS, *tables.PHASES, *tables.PAPER_FILTER}
    assert known <= set(names) and selecting.LAST in names
