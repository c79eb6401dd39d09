"""Runs the toy steps in a folder: a program of its own, so that a test can kill it."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.experiments import steps
from tests.engine.experiments.test_steps import SLOW, experiment_in

if __name__ == "__main__":
    steps.run([experiment_in(Path(sys.argv[1]))], SLOW, lambda done, total, name: None)
