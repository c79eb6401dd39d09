"""Several processes that train one model."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch.distributed.distributed_c10d import Backend, BackendConfig

from model.training import parallel, run_state, trainer
from model.training.parallel import Team
from tests.model.training.small_training import ROOT, STAGE, TOGETHER, coming_and_going, doubled, new_model, train


@pytest.mark.parametrize("shared", [False, True])
def test_two_processes_do_what_one_does_with_the_batches_of_both(tmp_path, shared):
    """Real processes under torchrun, over gloo, on images and clips, with objects that are absent from some clips.

    shared: they share a batch; otherwise each adds its own.
    """
    script = tmp_path / "part.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from pathlib import Path
            import torch
            from tests.model.training.small_training import TOGETHER, coming_and_going, doubled, new_model, train

            torch.set_num_threads(1)
            shared = sys.argv[2] == "True"
            recipe = doubled(TOGETHER) if shared else TOGETHER
            options = {"save_every": 2, "report_every": 1, "share_batch": shared}
            train(new_model(), lambda _: coming_and_going, recipe, Path(sys.argv[1]), **options)
            """
        )
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([*launch, str(script), str(tmp_path / "two"), str(shared)], check=True, env=environment, timeout=240)
    alone = train(
        new_model(), lambda _: coming_and_going, doubled(TOGETHER), tmp_path / "one", save_every=2, report_every=1
    )
    curves = [
        [json.loads(line)["losses"] for line in (tmp_path / of / "curve.jsonl").read_text().splitlines()]
        for of in ("two", "one")
    ]
    assert len(curves[0]) == len(curves[1]) == 4  # the first process alone writes
    for two, one in zip(*curves, strict=True):
        assert two == pytest.approx(one, rel=2e-3, abs=2e-5)
    assert curves[1][0] != pytest.approx(curves[1][2], rel=1e-2)  # the steps differ from each other
    reached = new_model()
    run_state.restore(reached, tmp_path / "two")
    two, one, begun = (torch.nn.utils.parameters_to_vector(m.parameters()) for m in (reached, alone, new_model()))
    assert (two - one).norm() < 0.02 * (one - begun).norm()  # AdamW amplifies rounding where gradients are near zero


def test_a_batch_that_processes_cannot_share_equally_is_refused():
    assert trainer._own_part(dataclasses.replace(STAGE, batch=6), Team(1, 3)).batch == 2
    with pytest.raises(ValueError, match="3 processes cannot share the 2 clips of a step of 'tiny' equally"):
        trainer._own_part(dataclasses.replace(STAGE, batch=2), Team(1, 3))


def test_gloo_carries_tensors_of_the_cpu_and_nccl_those_of_the_gpu():
    """Reads the backend's table only: needs no GPU."""
    backend = Backend(parallel._backend("cuda:1"))
    carried = BackendConfig(backend).get_device_backend_map()
    assert carried["cpu"] == "gloo" and carried["cuda"] == "nccl" and parallel._backend("cpu") == "gloo"
