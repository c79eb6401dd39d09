"""Training outside of rounds: recipes, interrupted runs, the files in the folder, and MLflow."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial

import cv2
import numpy as np
import pytest

from engine.cli import main
from engine.datasets import clip_sampler
from engine.datasets.clip_sampler import NothingToTrainOn
from engine.datasets.layouts import open_dataset
from engine.registry import Registry
from engine.rounds import recipes, record, training, watch
from model import architecture, checkpoints
from model.training.recipe import Interaction, parse_recipe


@pytest.fixture
def folder(tmp_path, clips):
    """Three annotated videos in SA-V's layout, with the number of edited frames."""
    root = tmp_path / "sa-v"
    root.mkdir()
    for path in sorted(clips.glob("*.mp4")):
        shutil.copy(path, root / path.name)
        note = json.loads(path.with_suffix(".truth.json").read_text())
        note["masklet_edited_frame_count"] = [k + 1 for k in range(len(note["masklet_id"]))]
        (root / f"{path.stem}_manual.json").write_text(json.dumps(note))
    return root


@pytest.fixture
def tiny():
    """Two stages of two steps: clips, then hard ones with the encoder frozen."""
    quick = recipes.recipe_of("quick", 64).stages[-1]
    how = Interaction(correction_clicks=1)
    first = replace(quick, steps=2, frames=2, objects=2, batch=1, warmup=1, interaction=how)
    hard = replace(first, name="hard", frames=3, encoder_lr=0.0, hardest=0.5)
    return replace(recipes.QUICK, stages=(first, hard), affine=0.5)


def test_the_recipe_of_the_paper_says_what_the_paper_says():
    clips, hard = recipes.RECIPES["full"].stages
    how = clips.interaction
    assert (clips.frames, clips.objects, how.prompted_frames, how.correction_clicks) == (8, 3, 2, 7)
    assert (how.mask, how.click, 1 - how.mask - how.click) == (0.5, 0.25, 0.25)
    assert (hard.frames, hard.hardest, hard.encoder_lr, hard.lr) == (16, 0.5, 0.0, clips.lr / 2)
    assert (clips.lr, clips.encoder_lr, clips.steps, hard.steps) == (3e-4, 6e-5, 200_000, 50_000)
    assert (clips.images, hard.images) == (0.15, 0.0)  # 15.2 % of the paper's mix are images
    assert (recipes.FULL.colour_jitter, recipes.FULL.tone_jitter) == (0.1, 0.03)
    (masks,) = recipes.RECIPES["mask-only"].stages
    assert masks.interaction.mask == 1.0 and masks.frames == 8 and masks.images == 0
    for recipe in recipes.RECIPES.values():
        assert parse_recipe(json.dumps(asdict(recipe))) == recipe


def test_a_round_that_learns_from_rejections_sees_single_frames_to_its_end_and_an_earlier_round_none_of_it():
    begun = record.Round("r", 1, "r", "p", None, 0, 150, 1e-4, 1, None, 0.0, 1)
    images, clips = recipes.of_round(replace(begun, rejected=True), 256).stages
    assert (images.frames, images.rejected, clips.rejected) == (1, 1, 1) and clips.images == 0.3
    assert recipes.of_round(begun, 256) == recipes.fitted(recipes.QUICK, steps=150, lr=1e-4, seed=1)


def test_a_recipe_is_named_or_a_file_and_may_be_shorter(tmp_path):
    assert {stage.image_size for stage in recipes.recipe_of("full", 512).stages} == {512}
    short = recipes.fitted(recipes.RECIPES["full"], steps=100, lr=3e-5, seed=4)
    assert [stage.steps for stage in short.stages] == [80, 20] and short.seed == 4
    assert short.stages[0].warmup == 6
    assert [stage.steps for stage in recipes.fitted(recipes.QUICK, steps=50).stages] == [20, 30]
    (only,) = recipes.fitted(recipes.QUICK, steps=1).stages
    assert (only.name, only.steps) == ("clips", 1)
    assert [stage.lr for stage in short.stages] == pytest.approx([3e-5, 1.5e-5])
    assert [stage.encoder_lr for stage in short.stages] == pytest.approx([6e-6, 0])
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(asdict(short)))
    assert recipes.recipe_of(str(path), 256) == short  # the recipe of a file keeps its image size
    for wrong, line in ((tmp_path / "none.json", "none.json"), ("slow", "full, mask-only, quick or a FILE.json")):
        with pytest.raises(ValueError, match=line):
            recipes.recipe_of(str(wrong), 256)
    path.write_text("{}")
    with pytest.raises(ValueError, match="mine.json: stages: Field required"):
        recipes.recipe_of(str(path), 256)


def test_a_run_leaves_a_checkpoint_of_transformers_its_recipe_and_pictures(folder, tiny, checkpoint, tmp_path):
    from transformers import Sam2VideoModel

    reported = []
    begun = checkpoints.load(checkpoint)
    before = {name: value.clone() for name, value in begun.model.state_dict().items()}
    out = training.train_on(open_dataset(folder), tmp_path / "out", tiny, begun, workers=0, report=reported.append)
    assert [p.step for p in reported] == [1, 2, 3, 4] and [p.stage for p in reported[::2]] == ["clips", "hard"]
    tuned = Sam2VideoModel.from_pretrained(out).state_dict()
    assert any(not (tuned[name] == value).all() for name, value in before.items() if "mask_decoder" in name)
    assert parse_recipe((out / "recipe.json").read_text()) == tiny
    meta = json.loads((out / "meta.json").read_text())
    assert meta["data"] == str(folder) and meta["videos"] == 3
    pictures = sorted((out / "training" / "samples").glob("*.jpg"))
    assert [path.stem for path in pictures] == ["0000001", "0000002", "0000003", "0000004"]
    sheet = cv2.imread(str(pictures[-1]))
    assert sheet is not None
    image, truth, _ = np.split(np.asarray(sheet), 3, axis=1)
    assert sheet.shape[:2] == (480, 960) and (image != truth).any()
    assert not (out / "training" / "state.pt").exists()

    again = training.train_on(
        open_dataset(folder), out, tiny, checkpoints.load(checkpoint), workers=0, report=reported.append
    )
    assert again == out and len(reported) == 4  # nothing was done again
    with pytest.raises(ValueError, match="another recipe"):
        training.train_on(open_dataset(folder), out, replace(tiny, seed=5), checkpoints.load(checkpoint), workers=0)
    with pytest.raises(ValueError, match="holds a run with split None, not 'train'"):
        training.train_on(open_dataset(folder, split="train"), out, tiny, checkpoints.load(checkpoint), workers=0)


def test_a_folder_of_something_else_is_refused_before_anything_is_written(folder, tiny, checkpoint, tmp_path):
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"mine")
    before = sorted(p for p in tmp_path.rglob("*"))
    for out, says in (
        (folder, "lies in the dataset"),
        (folder / "out", "lies in the dataset"),
        (other, "is not empty and holds no run"),
        (other / "a.jpg", "is a file"),
    ):
        with pytest.raises(ValueError, match=says):
            training.train_on(open_dataset(folder), out, tiny, checkpoints.load(checkpoint), workers=0)
    assert sorted(p for p in tmp_path.rglob("*")) == before


def without_dropout(name="tiny"):
    """A model without dropout: a resumed run does not restore the generator that dropout uses."""
    shape = architecture.Shape(
        image_size=64, embed_dim=16, blocks=(1, 1, 2, 1), decoder_mlp=64, memory_mlp=128, dropout=0.0
    )
    model = architecture.build(shape)
    architecture.init_weights(model, 3)
    return checkpoints.wrap(model, name=name)


def test_a_run_that_was_cut_ends_as_one_that_was_not(folder, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "picture", lambda *_: np.zeros((2, 2, 3), np.uint8))

    def cut(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    def weights(out, report=lambda progress: None):
        training.train_on(open_dataset(folder), tmp_path / out, tiny, without_dropout(), workers=0, report=report)
        return (tmp_path / out / "model.safetensors").read_bytes()

    with pytest.raises(KeyboardInterrupt):
        weights("cut", cut)
    assert (tmp_path / "cut" / "training" / "state.pt").exists() and not (tmp_path / "cut" / "meta.json").exists()
    steps = []
    resumed = weights("cut", lambda progress: steps.append(progress.step))
    assert steps == [3, 4]
    assert resumed == weights("whole")
    with pytest.raises(ValueError, match="holds a run with from .*, not 'another'"):
        training.train_on(open_dataset(folder), tmp_path / "cut", tiny, without_dropout("another"), workers=0)


def test_what_was_not_edited_by_anybody_is_trained_on_whole_and_too_short_videos_are_said(
    folder, tiny, checkpoint, tmp_path, caplog
):
    for path in folder.glob("*.json"):
        note = json.loads(path.read_text())
        note["masklet_edited_frame_count"] = [0] * len(note["masklet_id"])
        path.write_text(json.dumps(note))
    data = open_dataset(folder)
    known = list(clip_sampler.index(data))
    assert training._hardest(tiny.stages[1], data, known) == 1.0 and "does not record edits" in caplog.text
    long = replace(tiny, stages=(tiny.stages[0], replace(tiny.stages[1], frames=16)))
    with pytest.raises(NothingToTrainOn, match="16 annotated frames"):  # before the first stage is begun
        training.train_on(data, tmp_path / "out", long, checkpoints.load(checkpoint), workers=0)
    assert not (tmp_path / "out" / "training" / "curve.jsonl").exists()


def test_mlflow_has_the_curves_and_the_pictures_and_its_loss_costs_no_training(
    folder, tiny, checkpoint, tmp_path, caplog
):
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")

    def train() -> None:
        begun = checkpoints.load(checkpoint)
        tracked = partial(registry.track, "mine", "training")
        training.train_on(open_dataset(folder), tmp_path / "out", tiny, begun, workers=0, tracked=tracked)

    train()
    client = registry._client
    (found,) = client.search_runs([client.get_experiment_by_name("training").experiment_id])
    assert found.info.run_name == "mine" and found.info.status == "FINISHED"
    curve = client.get_metric_history(found.info.run_id, "loss_total")
    assert [point.step for point in curve] == [1, 2, 3, 4] and all(point.value > 0 for point in curve)
    assert json.loads(found.data.params["recipe"])["affine"] == 0.5
    pictures = client.list_artifacts(found.info.run_id, "samples")
    assert [item.path for item in pictures] == [f"samples/000000{i}.jpg" for i in (1, 2, 3, 4)]
    assert registry.track("mine", "training").run_id == found.info.run_id
    assert caplog.records == []

    tracked = registry.track("mine", "training")
    tracked.picture(tmp_path / "no such picture.jpg")
    tracked.parameters({"recipe": "another"})
    assert [record.getMessage()[:12] for record in caplog.records] == ["not tracked:"] * 2


def command(settings, *words, launch=("-m", "engine.cli")):
    environment = os.environ | settings.environment() | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launch, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_command_is_stopped_with_ctrl_c_and_goes_on(settings, folder, tiny, tmp_path, monkeypatch, capsys):
    """With a worker process, as people run it."""
    recipe = tmp_path / "tiny.json"
    recipe.write_text(json.dumps(asdict(replace(tiny, stages=(replace(tiny.stages[0], steps=24),)))))
    out = tmp_path / "out"
    curve = out / "training" / "curve.jsonl"
    words = ("train", "--data", str(folder), "--out", str(out), "--recipe", str(recipe), "--json")
    child = command(settings, *words)
    deadline = time.monotonic() + 200
    while (not curve.exists() or len(curve.read_text().splitlines()) < 2) and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    lines = [line for line in said.strip().splitlines() if not line.startswith("training: ")]  # every half a minute
    assert child.returncode == 130 and lines == ["stopped; run it again to go on"], said
    reached = len(curve.read_text().splitlines())
    assert not (out / "meta.json").exists()

    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["masklets", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    facts = json.loads(capsys.readouterr().out)
    assert not ended.value.code and facts["steps"] == 24 and facts["loss"] > 0
    steps = [json.loads(line)["step"] for line in curve.read_text().splitlines()]
    assert steps == [*range(2, 25, 2)] and reached < len(steps)  # it continued
    assert (out / "model.safetensors").exists()


def test_two_processes_train_one_model_under_torchrun(settings, folder, tiny, tmp_path):
    recipe = tmp_path / "tiny.json"
    recipe.write_text(json.dumps(asdict(replace(tiny, stages=(replace(tiny.stages[0], steps=1),)))))
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "engine.cli")
    words = ("train", "--data", str(folder), "--out", str(tmp_path / "out"), "--recipe", str(recipe), "--json")
    child = command(settings, *words, launch=launch)
    printed, said = child.communicate(timeout=150)
    assert child.returncode == 0, said
    assert json.loads(printed)["steps"] == 1  # only one process prints
    assert (tmp_path / "out" / "meta.json").exists()
