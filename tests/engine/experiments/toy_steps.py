"""Steps for tests: one that waits until a file says go on, one that needs it, one that fails."""

from __future__ import annotations

import os
import time

from engine.experiments.steps import Experiment, Result


def first(experiment: Experiment) -> Result:
    """Counts how often it ran."""
    with (experiment.folder / "ran").open("a") as file:
        file.write("first\n")
    return {"value": 1}


def slow(experiment: Experiment) -> Result:
    """Writes its process id, and ends once the test allows it."""
    (experiment.folder / "pid.new").write_text(str(os.getpid()))
    (experiment.folder / "pid.new").rename(experiment.folder / "pid")
    while not (experiment.folder / "go").exists():
        time.sleep(0.01)
    return {"value": experiment.result("first")["value"] + 1}


def broken(experiment: Experiment) -> Result:
    """Fails."""
    raise ValueError(f"nothing to measure in {experiment.domain}\nsecond line")
