"""How long a training step takes with one and two threads, alone and where other processes want the cores.

    python -m benchmarks.threads [--steps 6] [--json]

Compares the two ways in which a thread of OpenMP waits for the others: "active" keeps its core busy, which is the
library's default; "passive" sleeps, which `model/__init__.py` chooses. Each figure is from a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Trains `micro` on single frames; prints the seconds of a step, without the first steps, which load and reserve.
PROGRAM = """
import sys, tempfile
from pathlib import Path
from engine.rounds import general, recipes
from model import checkpoints, devices
from model.training import trainer

threads, steps = int(sys.argv[1]), int(sys.argv[2])
devices.set_threads(threads)
loaded = checkpoints.load("micro")
recipe = recipes.fitted(recipes.recipe_of("quick", loaded.image_size), steps=2 * steps)
seen = {}

class Enough(Exception):
    pass

def report(progress):
    seen[progress.step] = progress.seconds
    if progress.step == 1 + steps:
        raise Enough

with tempfile.TemporaryDirectory() as folder:
    try:
        options = trainer.RunOptions(workers=0, report_every=1)
        trainer.train(loaded.model, general.clips_of_micro, recipe, Path(folder), options, report=report)
    except Enough:
        print((seen[1 + steps] - seen[1]) / steps)
"""


def step_s(threads: int, waits: str, steps: int) -> float:
    """Seconds of a training step."""
    environment = os.environ | {"OMP_WAIT_POLICY": waits.upper()}
    command = [sys.executable, "-c", PROGRAM, str(threads), str(steps)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Processes that keep a core busy each."""
    until_we_end = "import os; ours = os.getppid()\nwhile os.getppid() == ours: pass"
    others = [subprocess.Popen([sys.executable, "-c", until_we_end]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Prints the seconds of a step for each way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=6, help="steps to time in each run")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = []
    for others in (0, os.cpu_count() or 1):
        for threads, waits in ((1, "passive"), (2, "passive"), (2, "active")):
            with busy(others):
                seconds = round(step_s(threads, waits, args.steps), 2)
            found.append({"busy_processes": others, "threads": threads, "waits": waits, "step_s": seconds})
            if not args.json:
                print(f"{others} busy processes, {threads} threads, {waits}: {seconds} s a step", flush=True)
    if args.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
