"""The command `evaluate` on datasets of every format, and `train` on the same."""

import json
from functools import partial

import cv2
import pytest

from engine.protocols import interactive
from engine.rounds import training
from tests.engine.labelled_folders import write_sav_frames


def test_evaluate_and_train_accept_the_test_set_of_sav(command, checkpoint, tmp_path, monkeypatch):
    in_process = partial(training.train_on, workers=0)  # starting a worker process takes longer than the training step
    monkeypatch.setattr(training, "train_on", in_process)
    folder = str(write_sav_frames(tmp_path / "sav_test", "one", 33, listed="sav_test.txt"))
    words = ("evaluate", str(checkpoint), "--data", folder, "--split", "test", "--protocol", "mask", "--json")
    assert json.loads(command(*words))["masklets"] == 2
    trained = ("train", "--data", folder, "--split", "test", "--from", str(checkpoint), "--steps", "1", "--json")
    facts = json.loads(command(*trained, "--out", str(tmp_path / "out")))
    assert facts["steps"] == 1 and facts["loss"] > 0


def test_evaluate_gives_people_and_programs_the_same_figures_and_draws_them(command, release, checkpoint, tmp_path):
    command("export", str(tmp_path / "davis"), "--format", "davis")
    where = ["evaluate", str(checkpoint), "--data", str(tmp_path / "davis"), "--protocol", "mask", "--split", "all"]
    figures = json.loads(command(*where, "--json"))
    drawn = tmp_path / "bars.png"
    output = command(*where, "--picture", str(drawn))
    for score in [score for score in figures["mose"].values() if score]:
        assert f"{50 * (score['j'] + score['f']):.1f}" in output and "J&Ḟ" in output
    assert figures["mose"]["all"]["count"] == figures["masklets"]
    assert figures["jf"] == pytest.approx((figures["j"] + figures["f"]) / 2)
    for name, value in {"J": figures["j"], "F": figures["f"], "HOTA": figures["hota"]["hota"]}.items():
        assert f"{name}\t{100 * value:.1f}" in output
    assert f"{100 * figures['jf']:.1f}" in output and "J&F" in output and str(figures["masklets"]) in output
    assert cv2.imread(str(drawn)).std() > 5
    image = command("evaluate", str(checkpoint), "--data", release.name, "--protocol", "image", "--objects", "1")
    assert "mIoU, 5 clicks" in image


def test_evaluate_runs_the_interactive_protocols(command, release, checkpoint, tmp_path, monkeypatch):
    where = ["evaluate", str(checkpoint), "--data", release.name, "--protocol", "interactive", "--objects", "1"]
    figures = json.loads(command(*where, "--json"))
    assert figures["objects"] == 1 and len(figures["offline_jf"]) == len(figures["online_jf"]) == interactive.FRAMES
    monkeypatch.setattr(interactive, "measure", lambda *_, **__: interactive.Exam(**figures))
    drawn = tmp_path / "curves.png"
    output = command(*where, "--picture", str(drawn))
    for number in (0, 7):
        assert f"J&F {figures['offline_jf'][number]:.1f} and {figures['online_jf'][number]:.1f}" in output
    assert f"J&F {figures['offline_mean_jf']:.1f} and {figures['online_mean_jf']:.1f}" in output
    assert cv2.imread(str(drawn)).std() > 5
