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

from model import parallel, run_state
from tests.model.training import ROOT, TOGETHER, coming_and_going, new_model, train


def test_two_processes_do_what_one_does_with_the_double_batch(tmp_path):
    """Real processes under torchrun, over gloo, on images and clips, with objects that are absent from some clips."""
    script = tmp_path / "part.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from pathlib import Path
            import torch
            from tests.model.training import ROOT, TOGETHER, coming_and_going, new_model, train

            torch.set_num_threads(1)
            train(new_model(), lambda _: coming_and_going, TOGETHER, Path(sys.argv[1]), save_every=2, report_every=1)
            """
        )
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([*launch, str(script), str(tmp_path / "two")], check=True, env=environment, timeout=240)
    double = dataclasses.replace(
        TOGETHER, stages=tuple(dataclasses.replace(s, batch=2 * s.batch) for s in TOGETHER.stages)
    )
    alone = train(new_model(), lambda _: coming_and_going, double, tmp_path / "one", save_every=2, report_every=1)
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


def test_gloo_carries_tensors_of_the_cpu_and_nccl_those_of_the_gpu():
    """Reads the backend's table only: needs no GPU."""
    backend = Backend(parallel._backend("cuda:1"))
    carried = BackendConfig(backend).get_device_backend_map()
    assert carried["cpu"] == "gloo" and carried["cuda"] == "nccl" and parallel._backend("cpu") == "gloo"
