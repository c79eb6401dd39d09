"""A trainer that is killed: does it end with the same weights as one that was not?

A part of `benchmarks.faults`. A process fine-tunes `micro` for some steps on synthetic clips, as `masklets train` does.
It gets SIGKILL at random moments and is started again. The weights must be bit for bit those of a run that nobody
killed.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from engine.synthetic import scene, video_files

SCENE = scene.Scene(height=96, width=128, frames=24, objects=(2, 2), clutter=(0, 0), size=(0.2, 0.35), leave=0.0)
STEPS = 60
PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from engine.datasets.layouts import open_dataset
from engine.rounds import recipes, training
from model import checkpoints
torch.set_num_threads(1)
recipe = recipes.fitted(recipes.recipe_of("quick", 64), steps=int(sys.argv[3]))
parent = checkpoints.load("micro")
training.train_on(open_dataset(Path(sys.argv[1])), Path(sys.argv[2]), recipe, parent, workers=0)
"""


def _start(data: Path, out: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PROGRAM, str(data), str(out), str(STEPS)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _hash(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def under_kills(kills: int, number: int) -> dict[str, Any]:
    """Trains twice, once under so many kills. number: what their moments follow from."""
    chance, crashes = random.Random(number), list[str]()
    with tempfile.TemporaryDirectory() as name:
        data, quiet, stormy = (Path(name) / each for each in ("data", "quiet", "stormy"))
        video_files.write_videos(data, 3, SCENE, seed=5)
        for path in data.glob("*.truth.json"):
            path.rename(path.with_name(path.name.replace(".truth", "_manual")))
        since = time.monotonic()
        whole = _start(data, quiet)
        _, said = whole.communicate()
        if whole.returncode:
            raise RuntimeError(said.decode()[-2000:])
        lasts = time.monotonic() - since
        done = 0
        while done < kills:
            process = _start(data, stormy)
            try:
                _, said = process.communicate(timeout=chance.uniform(0.2, 0.5) * lasts)
                if process.returncode:
                    crashes.append(said.decode()[-2000:])
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                done += 1
        last = _start(data, stormy)
        _, said = last.communicate()
        if last.returncode:
            crashes.append(said.decode()[-2000:])
        same = not crashes and _hash(quiet) == _hash(stormy)
    return {"kills": done, "trainer_kills": done, "trainer_equal": same, "crashes": len(crashes), "crash": crashes}
