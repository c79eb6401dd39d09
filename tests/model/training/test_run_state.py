"""A run goes on from its state on disk after a kill, an upgrade or a new stage."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from typing import cast

import pytest
import torch
from transformers import Sam2VideoModel

from model.training import run_state
from model.training.recipe import Recipe
from tests.model.training.small_training import RECIPE, ROOT, STAGE, forgetful, new_model, squares, train


def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        import torch
        from tests.model.training.small_training import RECIPE, forgetful, squares, train

        def report(progress):
            if progress.step == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        torch.set_num_threads(1)
        train(forgetful(), lambda _: squares, RECIPE, Path(sys.argv[1]), save_every=2, report_every=1, report=report)
        """
    )
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    resumed = train(forgetful(), lambda _: squares, RECIPE, tmp_path / "a", save_every=2)
    whole = train(forgetful(), lambda _: squares, RECIPE, tmp_path / "b", save_every=2)
    for (name, a), b in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_file_that_a_kill_left_half_written_is_replaced_by_the_next_save(tmp_path, monkeypatch):
    model = cast(Sam2VideoModel, torch.nn.Linear(2, 2))  # any weights can be saved
    optimiser, whole = torch.optim.AdamW(model.parameters()), torch.save

    def killed(_, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    for number, save in enumerate((killed, whole)):  # two processes, one after the other
        monkeypatch.setattr(os, "getpid", lambda number=number: number)
        monkeypatch.setattr(torch, "save", save)
        try:
            run_state.save(tmp_path, model, optimiser, number, RECIPE)
        except KeyboardInterrupt:
            assert not (tmp_path / "state.pt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("kept", [0, 7, 300])
def test_half_a_state_is_an_error_in_one_line_that_says_what_to_do(tmp_path, kept):
    model = cast(Sam2VideoModel, torch.nn.Linear(2, 2))
    run_state.save(tmp_path, model, torch.optim.AdamW(model.parameters()), 1, RECIPE)
    path = tmp_path / "state.pt"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(run_state.DamagedState, match="state.pt is damaged, remove it to begin the training anew") as e:
        run_state.load(tmp_path)
    assert "\n" not in str(e.value)


def test_a_run_begun_with_an_earlier_version_goes_on(tmp_path):
    """Its recipe lacks the new fields, which have their defaults."""
    one = Recipe(stages=(dataclasses.replace(STAGE, steps=2),), seed=3)
    train(new_model(), lambda _: squares, one, tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    older = json.loads(state["recipe"])
    del older["affine"], older["stages"][0]["hardest"]
    torch.save(state | {"recipe": json.dumps(older)}, tmp_path / "state.pt")
    more = dataclasses.replace(one, stages=(*one.stages, dataclasses.replace(STAGE, name="more", steps=1)))
    train(new_model(), lambda _: squares, more, tmp_path)
    assert run_state.restore(new_model(), tmp_path) == 3
    with pytest.raises(ValueError, match="another recipe"):
        train(new_model(), lambda _: squares, dataclasses.replace(more, affine=0.5), tmp_path)


def test_a_folder_that_holds_a_run_of_another_recipe_is_refused(tmp_path):
    one = Recipe(stages=(dataclasses.replace(STAGE, steps=1),), seed=3)
    train(new_model(), lambda _: squares, one, tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        train(new_model(), lambda _: squares, dataclasses.replace(one, seed=4), tmp_path)


def test_stages_may_be_added_after_the_last_saved_step(tmp_path):
    first = dataclasses.replace(STAGE, steps=1)
    train(new_model(), lambda _: squares, Recipe(stages=(first,), seed=3), tmp_path / "a")
    more = Recipe(stages=(first, dataclasses.replace(first, name="more", lr=1e-6)), seed=3)
    resumed = train(new_model(), lambda _: squares, more, tmp_path / "a")
    whole = train(new_model(), lambda _: squares, more, tmp_path / "b")
    for a, b in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b)
